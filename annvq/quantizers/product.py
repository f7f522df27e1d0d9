"""Product quantization: each sub-vector by a codebook of its own."""

from collections.abc import Sequence

from annvq.complexity import OperationCounts, encode_counts
from annvq.quantizers.tables import TableCoder
from annvq.types import F32, Codes


class ProductCoder(TableCoder):
    """x̂ = [c₀, …, c_{M−1}], each codebook over dimensions of its own: see :class:`~annvq.ProductVQ`."""

    kind = "product"
    needs_norm = False

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int] = 8) -> None:
        super().__init__(dim, M, nbits, groups=M)

    def costs(self) -> OperationCounts:
        return encode_counts("product", dim=self.dim, M=self.M, nbits=self.bits_per_codebook)

    def _own_codes(self, x: F32) -> Codes:
        return self.books().nearest(x) if self._on_cpu else self._encode_in_torch(x)
