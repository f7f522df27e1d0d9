"""Beam search over codebooks, vectorised in torch; shared by residual and additive quantizers.

A beam holds partial codes. Extending one by entry c changes its squared error ‖x − s‖² by
‖c‖² − 2⟨x, c⟩ + 2⟨s, c⟩, so with one product x·Cᵀ and the codebooks' Gram matrix C·Cᵀ no residual is ever formed.
"""

import itertools

import torch
from torch import Tensor

_CACHED_SCORES = 1 << 20  # of partial codes times entries


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
    n = x.shape[0]
    error = x.new_zeros(n, 1)
    flat = torch.zeros(n, 1, 0, dtype=torch.int64, device=x.device)  # entries chosen so far, as rows of weight
    for a, b in itertools.pairwise(offsets):
        change = tables.gains[:, None, a:b]
        for j in range(flat.shape[2]):
            change = change + tables.double_gram[flat[:, :, j], a:b]
        total = (error[:, :, None] + change).flatten(1)
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
    owner = torch.cat(
        [x.new_full((b - a,), m, dtype=torch.int64) for m, (a, b) in enumerate(itertools.pairwise(offsets))]
    )
    # Taking an entry makes all of its codebook infinitely dear.
    after = tables.double_gram.masked_fill_(owner[:, None] == owner[None, :], torch.inf)
    # On a CPU, a few vectors at a time, whose scores stay in the cache.
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        parts = [_any_order(tables.gains, after, owner, len(offsets) - 1, beam)]
    else:
        together = max(1, _CACHED_SCORES // (beam * len(weight)))
        split = torch.split(tables.gains, together)
        parts = [_any_order(gains, after, owner, len(offsets) - 1, beam) for gains in split]
    return torch.cat(parts) - torch.as_tensor(offsets[:-1], device=x.device)


def _any_order(gains: Tensor, after: Tensor, owner: Tensor, M: int, beam: int) -> Tensor:
    """The best entries (n, M), as rows of weight.

    Args:
        gains: (n, ΣK), the error change from an empty code.
        after: (ΣK, ΣK), what an entry taken adds to the change of another; inf where both are of one codebook.
        owner: (ΣK,), the codebook of each entry.
    """
    (n, total), device = gains.shape, gains.device
    # A set of entries is told from another by the sum of 62-bit names of its members, as good as random.
    names = _mixed(torch.arange(1, total + 1, device=device))
    first = torch.arange(n, device=device)[:, None]
    change = gains[:, None, :]  # (n, B, ΣK): error change when beam b takes entry e; inf if not allowed
    error = gains.new_zeros(n, 1)
    codes = torch.full((n, 1, M), -1, dtype=torch.int64, device=device)
    name = torch.zeros(n, 1, dtype=torch.int64, device=device)
    for step in range(M):
        width = min(beam, total)
        best, entry = change.topk(width, dim=2, largest=False)  # (n, B, width): the best extensions of each beam
        extended = (name[:, :, None] + names[entry]).flatten(1)
        errors = _mask_repeats((error[:, :, None] + best).flatten(1), extended)
        error, picked = errors.topk(min(beam, errors.shape[1]), dim=1, largest=False)
        parent, taken = picked // width, entry.flatten(1).gather(1, picked)
        name = extended.gather(1, picked)
        codes = codes.gather(1, parent[:, :, None].expand(-1, -1, M))
        codes.scatter_(2, owner[taken][:, :, None], taken[:, :, None])
        if step + 1 < M:
            rows = parent + change.shape[1] * first
            change = change.flatten(0, 1).index_select(0, rows.flatten())
            change += after.index_select(0, taken.flatten())
            change = change.view(n, taken.shape[1], total)
    return codes[first[:, 0], error.argmin(1)]


def _mixed(numbers: Tensor) -> Tensor:
    """Int64 numbers made to 62 bits that look random (splitmix64, Steele, Lea and Flood, OOPSLA 2014)."""
    z = numbers * -7046029254386353131
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * -4658895280553007687
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * -7723592293110705685
    return (z ^ (z >> 31 & (1 << 33) - 1)) & (1 << 62) - 1


def _mask_repeats(total: Tensor, name: Tensor) -> Tensor:
    """``total`` with +inf for all but one of the candidates of each row that share a name."""
    ordered, order = name.sort(dim=1, stable=True)
    repeat = torch.zeros_like(ordered, dtype=torch.bool)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    mask = torch.zeros_like(repeat).scatter_(1, order, repeat)
    return total.masked_fill(mask, torch.inf)
