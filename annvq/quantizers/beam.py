"""Beam search over codebooks, vectorised in torch; shared by residual and additive quantizers.

A beam holds partial codes. Extending one by entry c changes its squared error ‖x − s‖² by
‖c‖² − 2⟨x, c⟩ + 2⟨s, c⟩, so with one product x·Cᵀ and the codebooks' Gram matrix C·Cᵀ no residual is ever formed.
"""

import itertools

import torch
from torch import Tensor


class BeamTables:
    """What beam search looks up: entry norms, ⟨x, c⟩ for every vector and entry, and the Gram matrix."""

    def __init__(self, x: Tensor, weight: Tensor) -> None:
        self.gram = weight @ weight.T
        self.gains = self.gram.diagonal() - 2 * x @ weight.T  # (n, ΣK): error change from an empty code
        self.double_gram = 2 * self.gram


def residual_beam(x: Tensor, weight: Tensor, offsets: tuple[int, ...], beam: int) -> Tensor:
    """Codes (n, M) int64 by beam search in stage order.

    Babenko and Lempitsky, CVPR 2014, section 3.2, restricted to one codebook a step; greedy when ``beam`` is 1.
    """
    tables = BeamTables(x, weight)
    n = len(x)
    error = x.new_zeros(n, 1)
    flat = torch.zeros(n, 1, 0, dtype=torch.int64, device=x.device)  # entries chosen so far, as rows of weight
    for a, b in itertools.pairwise(offsets):
        change = tables.gains[:, None, a:b]
        for j in range(flat.shape[2]):
            change = change + tables.double_gram[flat[:, :, j], a:b]
        total = (error[:, :, None] + change).reshape(n, -1)
        error, picked = total.topk(min(beam, total.shape[1]), dim=1, largest=False)
        parent, entry = picked // (b - a), picked % (b - a) + a
        flat = torch.cat([flat.gather(1, parent[:, :, None].expand(-1, -1, flat.shape[2])), entry[:, :, None]], 2)
    best = flat[torch.arange(n, device=x.device), error.argmin(1)]
    return best - torch.as_tensor(offsets[:-1], device=x.device)


def additive_beam(x: Tensor, weight: Tensor, offsets: tuple[int, ...], beam: int) -> Tensor:
    """Codes (n, M) int64 by beam search in which each step may take any codebook not yet used.

    Babenko and Lempitsky, "Additive Quantization for Extreme Vector Compression", CVPR 2014, section 3.2. The same
    set of entries reached in two orders counts once.
    """
    tables = BeamTables(x, weight)
    n, M = len(x), len(offsets) - 1
    owner = torch.repeat_interleave(
        torch.arange(M, device=x.device),
        torch.as_tensor([b - a for a, b in itertools.pairwise(offsets)], device=x.device),
    )
    # A set of entries is told from another by the sum of random 63-bit names of its members.
    names = torch.randint(1 << 62, (len(weight),), generator=torch.Generator().manual_seed(0)).to(x.device)
    change = tables.gains[:, None, :]  # (n, B, ΣK): error change when beam b takes entry e; inf if not allowed
    error = x.new_zeros(n, 1)
    codes = torch.full((n, 1, M), -1, dtype=torch.int64, device=x.device)
    name = torch.zeros(n, 1, dtype=torch.int64, device=x.device)
    for _ in range(M):
        width = min(beam, change.shape[2])
        best, entry = change.topk(width, dim=2, largest=False)  # (n, B, width): the best extensions of each beam
        total = (error[:, :, None] + best).reshape(n, -1)
        extended = (name[:, :, None] + names[entry]).reshape(n, -1)
        total = _mask_repeats(total, extended)
        error, picked = total.topk(min(beam, total.shape[1]), dim=1, largest=False)
        parent, taken = picked // width, entry.reshape(n, -1).gather(1, picked)
        name = extended.gather(1, picked)
        codes = codes.gather(1, parent[:, :, None].expand(-1, -1, M)).clone()
        codes.scatter_(2, owner[taken][:, :, None], taken[:, :, None])
        change = change.gather(1, parent[:, :, None].expand(-1, -1, change.shape[2]))
        change = change + tables.double_gram[taken]
        change = change.masked_fill(owner[None, None, :] == owner[taken][:, :, None], torch.inf)
    best_codes = codes[torch.arange(n, device=x.device), error.argmin(1)]
    return best_codes - torch.as_tensor(offsets[:-1], device=x.device)


def _mask_repeats(total: Tensor, name: Tensor) -> Tensor:
    """``total`` with +inf for all but one of the candidates of each row that share a name."""
    ordered, order = name.sort(dim=1, stable=True)
    repeat = torch.zeros_like(ordered, dtype=torch.bool)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    mask = torch.zeros_like(repeat).scatter_(1, order, repeat)
    return total.masked_fill(mask, torch.inf)
