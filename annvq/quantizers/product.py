"""Product quantization: each sub-vector by a codebook of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from annvq.complexity import OperationCounts, encode_counts
from annvq.quantizers.registry import register
from annvq.quantizers.tables import TableQuantizer
from annvq.training.estimators import Estimator
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe
from annvq.training.trainer import nsvq_part
from annvq.types import F32, Codes


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

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, estimator: Estimator | None = None) -> None:
        if isinstance(dim, int) and isinstance(M, int) and M > 0 and dim % M:
            divisors = [m for m in range(1, min(dim, 128) + 1) if dim % m == 0]
            raise ValueError(f"dim must be divisible by M, got dim={dim}, M={M}; M that fit: {divisors}")
        super().__init__(dim, M, nbits, estimator, width=dim // M if isinstance(M, int) and M > 0 else 1)

    def costs(self) -> OperationCounts:
        return encode_counts("product", dim=self.dim, M=self.M, nbits=self.bits_per_codebook)

    def default_recipe(self) -> Recipe:
        """K-means, then stochastic optimisation by NSVQ."""
        return Recipe((KMeans(40), nsvq_part(steps=200)))

    def _own_codes(self, x: F32) -> Codes:
        return self.books().product_encoder.encode(x) if self._on_cpu else self._encode_in_torch(x)

    def _encode(self, x: Tensor) -> Tensor:
        parts = x.reshape(x.shape[0], self.M, self.width)
        columns = []
        for m, book in enumerate(self.codebooks):
            scores = book.square().sum(1) - 2 * parts[:, m] @ book.T
            columns.append(scores.argmin(1))
        return torch.stack(columns, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        rows = [embedding(codes[:, m], book) for m, book in enumerate(self.codebooks)]
        return torch.cat(rows, 1)
