"""A learned change of coordinates before a quantizer, learned with it.

Optimized product quantization (Ge, He, Ke and Sun, TPAMI 2014) is ``Transformed(Rotation(d), ProductVQ(d, M))``, or
:class:`RotatedProductVQ` for short.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.contract import Kept, Quantizer
from annvq.quantizers.modules.maps import TRANSFORMS, Rotation, Transform
from annvq.quantizers.modules.product import ProductVQ
from annvq.quantizers.modules.registry import make, register
from annvq.quantizers.modules.watched import Watched
from annvq.quantizers.sums import NORM_FREE_ROWS
from annvq.quantizers.transformed import Parts, RotatedProductCoder, TransformedCoder
from annvq.training.estimators import Estimator
from annvq.training.maps import Inside, LearnLinearMap, LearnRotation, PrincipalAxes
from annvq.training.parts import KMeans
from annvq.training.recipe import Part, Recipe
from annvq.types import F32, Array, Codes, Self

MANY_DIMS, NARROW = 256, 8
"""From so many dimensions on, where codebooks have at most so many of them each, a rotation that was learned had hardly
less error on held-out vectors than principal axes, which take seconds (docs/log/performance.md)."""
PRINCIPAL_ROWS = 1 << 16
"""Learn vectors that are used behind principal axes, so that learning takes as long however many there are."""
AXES_KMEANS = KMeans(15)


def principal_recipe(inner: Part, emphasis: float = 0.0) -> Recipe:
    """Principal axes, and behind them a part that learns the quantizer."""
    return Recipe((PrincipalAxes(emphasis), Inside(inner)), max_rows=PRINCIPAL_ROWS)


@register("transformed")
class Transformed(TransformedCoder, TableQuantizer):
    """A quantizer of transformed vectors: ``encode`` transforms first, ``decode`` transforms back.

    The codes are those of ``quantizer``; saved, encoded, searched and exported, the transform goes with it. Tables are
    built from transformed queries. Under a rotation the codes of a norm-free quantizer stay norm-free. Under a general
    linear map squared distance needs ‖x̂‖², as for additive codes, which these then are: ``codebooks`` shows them as
    entries over all d dimensions whose sum is x̂.

    ``make("transformed", transform="rotation", quantizer="product", dim=128, M=8)`` makes both parts by name.

    Args:
        transform: a :class:`Rotation` or :class:`LinearMap` of the quantizer's dimension.
        quantizer: a product, residual or additive quantizer.
        estimator: how gradients pass in training mode, over transform and quantizer together; default NSVQ.

    Raises:
        TypeError, ValueError: parts of another kind, or of different dimensions.
    """

    transform: Transform
    quantizer: TableQuantizer

    def __init__(self, transform: Transform, quantizer: TableQuantizer, *, estimator: Estimator | None = None) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform must be a Rotation or a LinearMap, got {type(transform).__name__}")
        if not isinstance(quantizer, TableQuantizer) or isinstance(quantizer, Transformed):
            raise TypeError(
                f"quantizer must be a product, residual or additive quantizer, got {type(quantizer).__name__}"
            )
        super().__init__(transform, quantizer)
        self._take_estimator(estimator)
        self.forget_norms()
        self._kept_parts = Kept()
        if not quantizer.fitted.is_meta and bool(quantizer.fitted):
            self.mark_fitted()

    def _begin(self, dim: int, M: int, nbits: Sequence[int]) -> None:
        Quantizer.__init__(self, dim, M, nbits)

    @classmethod
    def _inner(cls, kind: str, config: Mapping[str, Any]) -> Any:
        return make(kind, **config)

    @classmethod
    def _map(cls, kind: str, arguments: Mapping[str, Any]) -> Any:
        return TRANSFORMS[kind](**arguments)

    shapes, fill, _arrays = Quantizer.shapes, Quantizer.fill, Quantizer._arrays

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]
        """The inner quantizer's entries, (ΣK, its width), in transformed coordinates."""
        return self.quantizer.weight

    def reset_parameters(self) -> None:
        """Random codebooks after the identity."""
        self.transform.reset()
        self.quantizer.reset_parameters()
        self.fitted.fill_(False)

    def mark_fitted(self) -> None:
        super().mark_fitted()
        self.quantizer.mark_fitted()

    def default_recipe(self) -> Recipe:
        """Behind a map, product codebooks are learned together with it; others as if there were no map."""
        if isinstance(self.quantizer, ProductVQ):
            rotated = isinstance(self.transform, Rotation)
            if rotated and self.dim >= MANY_DIMS and max(self.quantizer.widths) <= NARROW:
                return principal_recipe(AXES_KMEANS)
            rotation = LearnRotation.of_dim(self.dim)
            return Recipe((rotation if rotated else LearnLinearMap(rotation),))
        inner = self.quantizer.default_recipe()
        return replace(inner, parts=[Inside(part) for part in inner.parts])

    def rotated(self) -> "Transformed":
        """The same inner quantizer behind a rotation, the identity at first."""
        return Transformed(Rotation(self.dim), self.quantizer)

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """M codebooks (K_m, d) in the vectors' own coordinates, whose entries add up to x̂; computed, not views."""
        back, books = self.transform.inverse(), []
        for book, start in zip(self.quantizer.codebooks, self.quantizer.starts, strict=True):
            books.append(book @ back[:, start : start + book.shape[1]].T)
        if self.transform.shift is not None:
            books[0] = books[0] + self.transform.shift
        return tuple(books)

    def set_codebooks(self, codebooks: Sequence[Array]) -> Self:
        raise TypeError("codebooks of a Transformed follow from its parts: call .quantizer.set_codebooks(…)")

    @torch.no_grad()
    def restore(self, mean: F32, scale: float) -> None:
        shift = self.transform.shift
        if shift is not None:
            shift.mul_(scale).add_(torch.from_numpy(mean).to(shift.device))
            self.quantizer.restore(np.zeros_like(mean), scale)
        else:
            inner_mean = mean.astype(np.float64) @ self.transform.matrix().cpu().numpy().T.astype(np.float64)
            self.quantizer.restore(inner_mean.astype(np.float32), scale)
        self.forget_norms()
        self.mark_fitted()

    @torch.no_grad()
    def in_own_coordinates(self, x: F32) -> tuple[TableQuantizer, F32]:
        return self.quantizer, self.transform(torch.from_numpy(x)).numpy()

    def _parts(self) -> Parts:
        # (PyTorch looks for attributes that are modules in all other places first.)
        modules: Any = self._modules
        transform = modules["transform"]
        inner, tensors, kept = modules["quantizer"].books(), transform.tensors(), self._kept_parts.value
        parts: Parts
        if kept is not None and kept[0].inner is inner and kept[1].still(tensors):
            parts = kept[0]
            return parts
        watched = Watched(tensors)  # before the matrix is read
        with torch.no_grad():
            matrix = np.ascontiguousarray(transform.matrix().cpu().numpy())
            shift = None if transform.shift is None else transform.shift.cpu().numpy()
        if kept is not None and kept[0].hold(inner, matrix, shift):
            parts = kept[0]
        else:
            parts = Parts(inner, matrix.copy(), None if shift is None else shift.copy(), transform.orthogonal)
        self._kept_parts.value = parts, watched
        return parts

    # -- codes -----------------------------------------------------------------------------------------------------

    def decode_rows(self, codes: Codes) -> F32:
        return super().decode_rows(codes) if self._on_cpu else Quantizer.decode_rows(self, codes)

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        return self.quantizer._encode(self.transform(x))

    @torch.no_grad()
    def _traced_codes(self, rows: Tensor) -> Tensor:
        return self.quantizer._traced_codes(self.transform(rows))

    def _decode(self, codes: Tensor) -> Tensor:
        return self.transform.invert(self.quantizer._decode(codes))

    # -- norms -----------------------------------------------------------------------------------------------------

    def fit_norms(self, x: Array, *, seed: int = 0, codes: Array | None = None) -> Self:
        if self.needs_norm or not self.quantizer.sums:
            return super().fit_norms(x, seed=seed, codes=codes)
        self.require_fitted("fit_norms")
        sample, given = self._norm_sample(x, codes, NORM_FREE_ROWS, seed)
        with torch.no_grad():
            inner = self.transform(torch.from_numpy(sample).to(self.fitted.device)).cpu()
        self.quantizer.fit_norms(inner, seed=seed, codes=given)
        return self


@register("rotated-product")
class RotatedProductVQ(RotatedProductCoder, Transformed):
    """Product quantization after a learned rotation; as many bits and as fast a search as :class:`ProductVQ`.

    Ge, He, Ke and Sun, "Optimized Product Quantization", TPAMI 2014; here rotation and codebooks are also learned
    end to end (see :mod:`annvq.training.rotation`).

    Args:
        dim: d.
        M: codebooks, at most d.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, estimator: Estimator | None = None) -> None:
        Transformed.__init__(self, Rotation(dim), ProductVQ(dim, M, nbits), estimator=estimator)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)
