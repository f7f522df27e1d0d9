"""Residual codes: each codebook quantizes what the ones before left over."""

from collections.abc import Sequence

from annvq.codebooks import Codebooks
from annvq.quantizers.sums import SumCoder
from annvq.types import F32, Codes


class ResidualCoder(SumCoder):
    """x̂ = c₀ + … + c_{M−1}, entries chosen codebook after codebook, by beam search: see :class:`~annvq.ResidualVQ`."""

    kind = "residual"

    def __init__(
        self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, beam: int = 7, norm_free: bool = False
    ) -> None:
        super().__init__(dim, M, nbits, beam, norm_free)

    def _native_search(self, books: Codebooks, x: F32) -> Codes:
        return books.additive_encoder.residual(x, self.beam)
