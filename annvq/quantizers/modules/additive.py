"""Additive quantization, learned: sums of entries, one of each codebook, chosen in any order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from annvq.quantizers.additive import AdditiveCoder, graded_codebooks
from annvq.quantizers.modules.beam import additive_beam, residual_beam
from annvq.quantizers.modules.registry import register
from annvq.quantizers.modules.sums import FLAT, WARM, SumQuantizer, residual_start
from annvq.training.estimators import Estimator
from annvq.training.learn.alternating import Alternation
from annvq.training.parts import Alternate, BestOf, ByGrading, Refit, SubspaceKMeans
from annvq.training.recipe import Part, Recipe
from annvq.training.trainer import nsvq_part

HOPELESS = 20.0
"""Where residual codebooks are graded more than this from coarse to fine, additive ones from scratch are hopeless: on
image patches (70 and more). On SIFT descriptors (3) and correlated normal vectors (5) they are better, or may be."""

MANY = 2048
"""Entries of all codebooks beyond which learning from scratch has fewer iterations, and may end far behind residual
codebooks: those of 16x8 bits on sentence embeddings (docs/log/performance.md)."""


@register("additive")
class AdditiveVQ(AdditiveCoder, SumQuantizer):
    """x̂ = c₀ + … + c_{M−1}, the codebooks on equal terms: beam search may take them in any order.

    Babenko and Lempitsky, "Additive Quantization for Extreme Vector Compression", CVPR 2014; trained by NSVQ in Vali
    and Bäckström, ICASSP 2023.

    Args:
        dim: d of the vectors.
        M: codebooks, at most 1024; many are better learned in groups, by :class:`ProductAdditiveVQ`.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        beam: partial codes kept at each step; with ``rounds``, codebooks that are graded from coarse to fine, as
            residual quantization learns them, are searched in their order, with twice as many.
        rounds: iterations of local search after the beam search (LSQ, Martinez et al., ECCV 2016), on the CPU; a GPU
            gives the codes of the beam search alone. 0 is beam search alone; 128 finds codes with one or two per cent
            less error than the default, in less than twice the time.
        norm_free: choose codes so that their norm follows from them: an index then stores none (see
            :class:`~annvq.quantizers.sums.SumCoder`).
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        beam: int = 8,
        rounds: int = 64,
        norm_free: bool = False,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__(dim, M, nbits, beam=beam, rounds=rounds, norm_free=norm_free)
        self._take_estimator(estimator)

    def norm_recipe(self) -> Recipe:
        """Local search and least squares from scratch under noise, or a product code, or, where residual codebooks
        would be graded from coarse to fine and where there are many entries, these and local search from them under
        less noise: whichever is better on held-out rows. Then NSVQ, which keeps the codebooks that are best on
        those."""
        entries = sum(self.sizes)
        scratch = Alternation(iterations=min(40, max(10, 40 * MANY // entries)))
        residual = (residual_start(self.sizes), Alternate(WARM, warm=True))
        others = (Alternate(scratch, graded=HOPELESS), SubspaceKMeans(20))
        best: Part = BestOf((*residual, *others), finish=Refit(3))
        if entries <= MANY:
            best = ByGrading(flat=(BestOf(others, finish=Refit(2)),), graded=(best,), limit=FLAT)
        # Few vectors gain by NSVQ, up to 1.5 %; many do not, and a first look tells.
        return Recipe((best, nsvq_part(steps=20, patience=1)))

    def _search(self, x: Tensor, weight: Tensor, offsets: tuple[int, ...]) -> Tensor:
        if torch.compiler.is_compiling() and self.rounds > 0:
            return self._better_search(x, weight, offsets)
        graded = self.rounds > 0 and graded_codebooks(self.books())
        search = residual_beam if graded else additive_beam
        return search(x, weight, offsets, self._width(graded))

    def _better_search(self, x: Tensor, weight: Tensor, offsets: tuple[int, ...]) -> Tensor:
        """Both searches, and of each row the better code: which one suits the codebooks cannot be asked in a trace."""
        ordered = residual_beam(x, weight, offsets, self._width(graded=True))
        free = additive_beam(x, weight, offsets, self._width(graded=False))
        first = torch.as_tensor(offsets[:-1], device=x.device)
        one, other = ((x - weight[codes + first].sum(1)).square().sum(1) for codes in (ordered, free))
        return torch.where((one <= other)[:, None], ordered, free)

    def _workspace_per_row(self) -> int:
        return 4 * 3 * self._width(graded=self.rounds > 0) * sum(self.sizes)
