"""Additive quantization: sums of entries, one of each codebook, chosen in any order."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor

from annvq.arrays import F32
from annvq.kernels.encode import AdditiveEncoder
from annvq.quantizers.beam import additive_beam
from annvq.quantizers.registry import register
from annvq.quantizers.sums import SumQuantizer

if TYPE_CHECKING:
    from annvq.training.estimators import Estimator


@register("additive")
class AdditiveVQ(SumQuantizer):
    """x̂ = c₀ + … + c_{M−1}, the codebooks on equal terms: beam search may take them in any order.

    Babenko and Lempitsky, "Additive Quantization for Extreme Vector Compression", CVPR 2014; trained by NSVQ in Vali
    and Bäckström, ICASSP 2023.

    Args:
        dim: d.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        beam: partial codes kept at each step.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        beam: int = 8,
        estimator: "Estimator | None" = None,
    ) -> None:
        super().__init__(dim, M, nbits, beam, estimator)

    def _native_search(self, encoder: AdditiveEncoder) -> Callable[[F32], npt.NDArray[Any]]:
        return lambda x: encoder.additive(x, self.beam)

    def _search(self, x: Tensor, weight: Tensor) -> Tensor:
        return additive_beam(x, weight, self.offsets, self.beam)

    def _workspace_per_row(self) -> int:
        return 4 * 3 * self.beam * sum(self.sizes)
