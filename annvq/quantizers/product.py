"""Product quantization: each sub-vector by a codebook of its own."""

from collections.abc import Sequence

from annvq.complexity import OperationCounts, encode_counts
from annvq.quantizers.tables import TableCoder
from annvq.types import F32, Codes


class ProductCoder(TableCoder):
    """x̂ = [c₀, …, c_{M−1}], codebook m over dimensions m·d/M … (m+1)·d/M: see :class:`~annvq.ProductVQ`."""

    kind = "product"
    needs_norm = False

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int] = 8) -> None:
        if isinstance(dim, int) and isinstance(M, int) and M > 0 and dim % M:
            divisors = [m for m in range(1, min(dim, 128) + 1) if dim % m == 0]
            raise ValueError(f"dim must be divisible by M, got dim={dim}, M={M}; M that fit: {divisors}")
        super().__init__(dim, M, nbits, width=dim // M if isinstance(M, int) and M > 0 else 1)

    def costs(self) -> OperationCounts:
        return encode_counts("product", dim=self.dim, M=self.M, nbits=self.bits_per_codebook)

    def _own_codes(self, x: F32) -> Codes:
        return self.books().product_encoder.encode(x) if self._on_cpu else self._encode_in_torch(x)
