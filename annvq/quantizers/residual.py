"""Residual quantization: each codebook quantizes what the ones before left over."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor

from annvq.kernels.encode import AdditiveEncoder
from annvq.quantizers.beam import residual_beam
from annvq.quantizers.registry import register
from annvq.quantizers.sums import SumQuantizer
from annvq.types import F32

if TYPE_CHECKING:
    from annvq.training.estimators import Estimator


@register("residual")
class ResidualVQ(SumQuantizer):
    """x̂ = c₀ + … + c_{M−1}, entries chosen codebook after codebook, by beam search.

    Chen, Guan and Wang, "Approximate Nearest Neighbor Search by Residual Vector Quantization", Sensors 2010;
    beam search as in Babenko and Lempitsky, CVPR 2014.

    Args:
        dim: d.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        beam: partial codes kept at each step; 1 is greedy.
        norm_free: choose codes so that their norm follows from them: an index then stores none (see
            :class:`~annvq.quantizers.sums.SumQuantizer`).
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
        estimator: "Estimator | None" = None,
    ) -> None:
        super().__init__(dim, M, nbits, beam, norm_free, estimator)

    def _native_search(self, encoder: AdditiveEncoder) -> Callable[[F32], npt.NDArray[Any]]:
        return lambda x: encoder.residual(x, self.beam)

    def _search(self, x: Tensor, weight: Tensor) -> Tensor:
        return residual_beam(x, weight, self.offsets, self.beam)

    def _workspace_per_row(self) -> int:
        return 4 * (2 * self.beam * max(self.sizes) + sum(self.sizes))
