"""Additive quantization: sums of entries, one of each codebook, chosen in any order."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor

from annvq.arrays import F32, positive_int
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
        rounds: iterations of local search after the beam search (LSQ, Martinez et al., ECCV 2016), on the CPU; a GPU
            gives the codes of the beam search alone. 0 is beam search alone; 128 finds codes with a few per cent
            less error than the default, in three times the time.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        beam: int = 8,
        rounds: int = 32,
        estimator: "Estimator | None" = None,
    ) -> None:
        super().__init__(dim, M, nbits, beam, estimator)
        self.rounds = positive_int(rounds, "rounds", low=0, high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "rounds": self.rounds}

    def _native_search(self, encoder: AdditiveEncoder) -> Callable[[F32], npt.NDArray[Any]]:
        if self.rounds == 0 or self.M == 1:
            return lambda x: encoder.additive(x, self.beam)
        return lambda x: encoder.iterated_search(x, encoder.additive(x, self.beam), iterations=self.rounds)

    def _search(self, x: Tensor, weight: Tensor) -> Tensor:
        return additive_beam(x, weight, self.offsets, self.beam)

    def _workspace_per_row(self) -> int:
        return 4 * 3 * self.beam * sum(self.sizes)
