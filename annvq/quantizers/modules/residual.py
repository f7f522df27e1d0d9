"""Residual quantization, learned: each codebook quantizes what the ones before left over."""

from collections.abc import Sequence

from torch import Tensor

from annvq.quantizers.modules.beam import residual_beam
from annvq.quantizers.modules.registry import register
from annvq.quantizers.modules.sums import WARM, SumQuantizer, residual_start
from annvq.quantizers.residual import ResidualCoder
from annvq.training.estimators import Estimator
from annvq.training.parts import Alternate, Refit
from annvq.training.recipe import Recipe
from annvq.training.trainer import nsvq_part


@register("residual")
class ResidualVQ(ResidualCoder, SumQuantizer):
    """x̂ = c₀ + … + c_{M−1}, entries chosen codebook after codebook, by beam search.

    Chen, Guan and Wang, "Approximate Nearest Neighbor Search by Residual Vector Quantization", Sensors 2010;
    beam search as in Babenko and Lempitsky, CVPR 2014.

    Args:
        dim: d of the vectors.
        M: codebooks, at most 1024.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        beam: partial codes kept at each step; 1 is greedy.
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
        beam: int = 7,
        norm_free: bool = False,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__(dim, M, nbits, beam=beam, norm_free=norm_free)
        self._take_estimator(estimator)

    def norm_recipe(self) -> Recipe:
        """Residual k-means, local search and least squares in turn under a little noise, joint refits to their own
        search, then NSVQ. Refits and NSVQ keep the codebooks that are best on held-out rows."""
        start = residual_start(self.sizes)
        return Recipe((start, Alternate(WARM, warm=True), Refit(3), nsvq_part(steps=40)))

    def _search(self, x: Tensor, weight: Tensor, offsets: tuple[int, ...]) -> Tensor:
        return residual_beam(x, weight, offsets, self.beam)

    def _workspace_per_row(self) -> int:
        return 4 * (2 * self.beam * max(self.sizes) + sum(self.sizes))
