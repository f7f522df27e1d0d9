"""Product quantization: each sub-vector by a codebook of its own."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding

from annvq.kernels.encode import ProductEncoder
from annvq.quantizers.base import TableQuantizer
from annvq.quantizers.registry import register
from annvq.types import F32

if TYPE_CHECKING:
    from annvq.complexity import OperationCounts
    from annvq.training.estimators import Estimator


@register("product")
class ProductVQ(TableQuantizer):
    """x̂ = [c₀, …, c_{M−1}], codebook m over dimensions m·d/M … (m+1)·d/M.

    Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011.

    Args:
        dim: d, divisible by M.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    needs_norm = False

    def __init__(
        self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, estimator: "Estimator | None" = None
    ) -> None:
        if isinstance(dim, int) and isinstance(M, int) and M > 0 and dim % M:
            divisors = [m for m in range(1, min(dim, 128) + 1) if dim % m == 0]
            raise ValueError(f"dim must be divisible by M, got dim={dim}, M={M}; M that fit: {divisors}")
        super().__init__(dim, M, nbits, estimator, width=dim // M if isinstance(M, int) and M > 0 else 1)

    def costs(self) -> "OperationCounts":
        from annvq.complexity import encode_counts

        return encode_counts("product", dim=self.dim, M=self.M, nbits=self.bits_per_codebook)

    def _row_encoder(self) -> Callable[[F32], npt.NDArray[Any]]:
        return (
            ProductEncoder(self._entries(), self.sizes, self.starts).encode if self._on_cpu else self._encode_in_torch
        )

    def _encode(self, x: Tensor) -> Tensor:
        parts = x.reshape(len(x), self.M, self.width)
        columns = []
        for m, book in enumerate(self.codebooks):
            scores = book.square().sum(1) - 2 * parts[:, m] @ book.T
            columns.append(scores.argmin(1))
        return torch.stack(columns, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        rows = [embedding(codes[:, m], book) for m, book in enumerate(self.codebooks)]
        return torch.cat(rows, 1)
