"""Product quantization, learned: each sub-vector by a codebook of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.registry import register
from annvq.quantizers.product import ProductCoder
from annvq.training.estimators import Estimator
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe
from annvq.training.trainer import nsvq_part


@register("product")
class ProductVQ(ProductCoder, TableQuantizer):
    """x̂ = [c₀, …, c_{M−1}], each codebook over dimensions of its own.

    Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011.

    Args:
        dim: d.
        M: codebooks, at most d; each over d/M dimensions or, where M does not divide d, over one more or less.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, estimator: Estimator | None = None) -> None:
        super().__init__(dim, M, nbits)
        self._take_estimator(estimator)

    def default_recipe(self) -> Recipe:
        """K-means, then stochastic optimisation by NSVQ."""
        return Recipe((KMeans(40), nsvq_part(steps=200)))

    def _encode(self, x: Tensor) -> Tensor:
        columns = []
        for part, book in zip(torch.split(x, list(self.widths), 1), self.codebooks, strict=True):
            scores = book.square().sum(1) - 2 * part @ book.T
            columns.append(scores.argmin(1))
        return torch.stack(columns, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        rows = [embedding(codes[:, m], book) for m, book in enumerate(self.codebooks)]
        return torch.cat(rows, 1)
