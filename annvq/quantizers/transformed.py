"""A learned change of coordinates before a quantizer.

Optimized product quantization (Ge, He, Ke and Sun, TPAMI 2014) is ``Transformed(Rotation(d), ProductVQ(d, M))``, or
:class:`RotatedProductVQ` for short.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from annvq.codebooks import Codebooks, row_products
from annvq.complexity import OperationCounts, linear_map
from annvq.forks import made_once
from annvq.kernels import LazyTables
from annvq.quantizers.contract import Quantizer
from annvq.quantizers.maps import Rotation, Transform, make_transform
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.registry import make, register
from annvq.quantizers.sums import NORM_FREE_ROWS, SumQuantizer
from annvq.quantizers.tables import TableQuantizer
from annvq.training.estimators import Estimator
from annvq.training.maps import Inside, LearnLinearMap, LearnRotation
from annvq.training.recipe import Recipe
from annvq.types import F32, Array, Codes


@register("transformed")
class Transformed(TableQuantizer):
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

    sums = True
    needs_norm = True

    def __init__(self, transform: Transform, quantizer: TableQuantizer, *, estimator: Estimator | None = None) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform must be a Rotation or a LinearMap, got {type(transform).__name__}")
        if not isinstance(quantizer, TableQuantizer) or isinstance(quantizer, Transformed):
            raise TypeError(
                f"quantizer must be a product, residual or additive quantizer, got {type(quantizer).__name__}"
            )
        if transform.dim != quantizer.dim:
            raise ValueError(f"transform must have the quantizer's dim={quantizer.dim}, got dim={transform.dim}")
        if isinstance(quantizer, SumQuantizer) and quantizer.norm_free and not transform.orthogonal:
            raise ValueError("quantizer must not be norm_free behind a transform that changes norms; use a Rotation")
        # Not TableQuantizer's own: the codebooks are the inner quantizer's.
        Quantizer.__init__(self, quantizer.dim, quantizer.M, list(quantizer.bits_per_codebook), estimator)
        self.transform, self.quantizer = transform, quantizer
        self.width, self.offsets, self.starts = self.dim, quantizer.offsets, (0,) * quantizer.M
        self.needs_norm = quantizer.needs_norm or not transform.orthogonal
        self._kept_parts = _KeptParts()
        self._register_term()
        if not quantizer.fitted.is_meta and bool(quantizer.fitted):
            self.mark_fitted()

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]
        """The inner quantizer's entries, (ΣK, its width), in transformed coordinates."""
        return self.quantizer.weight

    @property
    def config(self) -> dict[str, Any]:
        return {
            "transform": self.transform.config,
            "quantizer": {"kind": self.quantizer.kind, **self.quantizer.config},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From :attr:`config`; or from the kinds of transform (default ``"linear"``) and quantizer (default
        ``"product"``) and the quantizer's arguments."""
        rest = dict(config)
        transform, inner = rest.pop("transform", "linear"), rest.pop("quantizer", "product")
        inner_config = {"kind": inner} if isinstance(inner, str) else dict(inner)
        kind = inner_config.pop("kind", None)
        if kind in ("transformed", "rotated-product"):
            raise ValueError(f"quantizer must not be transformed itself, got {kind!r}")
        quantizer = make(str(kind), **inner_config, **rest)
        return cls(make_transform(transform, quantizer.dim), cast(TableQuantizer, quantizer))

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
            return Recipe((LearnRotation() if isinstance(self.transform, Rotation) else LearnLinearMap(),))
        inner = self.quantizer.default_recipe()
        return replace(inner, parts=[Inside(part) for part in inner.parts])

    def rotated(self) -> "Transformed":
        """The same inner quantizer behind a rotation, the identity at first."""
        return Transformed(Rotation(self.dim), self.quantizer)

    def costs(self) -> OperationCounts:
        shift = OperationCounts(additions=self.dim if self.transform.shift is not None else 0)
        return self.quantizer.costs() + linear_map(self.dim, self.dim) + shift

    # -- codebooks -----------------------------------------------------------------------------------------------

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """M codebooks (K_m, d) in the vectors' own coordinates, whose entries add up to x̂; computed, not views."""
        back, books = self.transform.inverse(), []
        for book, start in zip(self.quantizer.codebooks, self.quantizer.starts, strict=True):
            books.append(book @ back[:, start : start + self.quantizer.width].T)
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

    def codebooks_copy(self) -> F32:
        return self.books().entries.copy()

    def books(self) -> Codebooks:
        return self._parts().books

    def decode_rows(self, codes: Codes) -> F32:
        return Quantizer.decode_rows(self, codes)

    def _now(self) -> "_Parts":
        return self._parts()

    def _parts(self) -> "_Parts":
        """What follows from transform and codebooks as they are now."""
        with torch.no_grad():
            matrix = np.ascontiguousarray(self.transform.matrix().cpu().numpy())
            shift = None if self.transform.shift is None else self.transform.shift.cpu().numpy()
        inner, parts = self.quantizer.books(), self._kept_parts.parts
        if parts is None or not parts.hold(inner, matrix, shift):
            self._kept_parts.parts = parts = _Parts(self, inner, matrix.copy(), None if shift is None else shift.copy())
        return parts

    # -- codes -----------------------------------------------------------------------------------------------------

    def require_encodes(self, what: str) -> None:
        super().require_encodes(what)
        self.quantizer.require_encodes(what)

    def _own_codes(self, x: F32) -> Codes:
        if not self._on_cpu:
            return self._encode_in_torch(x)
        return self.quantizer.encode_rows(self._parts().mapped(x))

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

    # -- tables ----------------------------------------------------------------------------------------------------

    def lazy_tables(self, queries: F32, metric: str) -> tuple[LazyTables, F32]:
        parts = self._parts()
        if metric == "l2" and not self.needs_norm:
            return self.quantizer.lazy_tables(parts.mapped(queries), "l2")
        shift, centred = parts.shift, metric == "l2" and self.about_origin
        constant = np.full(len(queries), 1.0 if metric == "cosine" else 0.0)
        if metric == "l2":
            queries = queries - parts.centre if centred else queries
            constant += np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
        # ⟨q, x̂⟩ = ⟨A⁻ᵀ q, ŷ⟩ + ⟨q, shift⟩; the shift is part of the origin.
        if shift is not None and not centred:
            constant -= (2 if metric == "l2" else 1) * (queries.astype(np.float64) @ shift)
        scale = -2.0 if metric == "l2" else -1.0
        inner = parts.inner.centred if centred else parts.inner
        luts = inner.tables(row_products(queries, parts.back.T), squared=False, scale=scale)
        return luts, constant.astype(np.float32)


class _Parts:
    """A transform and codebooks behind it, as they were at one time, and what is made of them once."""

    def __init__(self, owner: Transformed, inner: Codebooks, matrix: F32, shift: F32 | None) -> None:
        self.owner, self.inner, self.shift = owner, inner, shift
        self._map = Codebooks(matrix, (len(matrix),), (0,), len(matrix))

    def hold(self, inner: Codebooks, matrix: F32, shift: F32 | None) -> bool:
        """Whether they are still what they were, bit for bit."""
        same = shift is None or (self.shift is not None and np.array_equal(shift, self.shift))
        return inner is self.inner and same and self._map.table_builder.holds(matrix)

    def mapped(self, x: F32) -> F32:
        """Rows (n, d) in transformed coordinates."""
        moved = x if self.shift is None else x - self.shift
        return self._map.tables(moved, squared=False).build()[:, 0]

    @made_once
    def back(self) -> F32:
        """The inverse map (d, d)."""
        with torch.no_grad():
            return self.owner.transform.inverse().cpu().numpy().copy()

    @made_once
    def books(self) -> Codebooks:
        """Codebooks in the vectors' own coordinates, whose sums are x̂."""
        with torch.no_grad():
            entries = torch.cat(self.owner.codebooks).cpu().numpy()
        return self._whole(entries)

    def about(self, origin: bool) -> Codebooks:
        """As :meth:`~annvq.codebooks.Codebooks.about`."""
        return self._centred if origin else self.books

    @made_once
    def _centred(self) -> Codebooks:
        return self._whole(row_products(self.inner.centred.whole.entries, self.back))

    def decode(self, codes: Codes) -> F32:
        """Vectors (n, d) of codes (n, M)."""
        return self.owner.decode_rows(codes)

    @made_once
    def centre(self) -> F32:
        """The sum of the codebooks' centres, (d,)."""
        with torch.no_grad():
            centre = torch.from_numpy(self.inner.centre).to(self.owner.fitted.device)
            return self.owner.transform.invert(centre[None])[0].cpu().numpy()

    def _whole(self, entries: F32) -> Codebooks:
        sizes = self.inner.sizes
        return Codebooks(np.ascontiguousarray(entries), sizes, (0,) * len(sizes), self.inner.dim)


class _KeptParts:
    """Holds parts from one call to the next; a copy (or unpickling) of one starts empty."""

    parts: _Parts | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _KeptParts, ()


@register("rotated-product")
class RotatedProductVQ(Transformed):
    """Product quantization after a learned rotation; as many bits and as fast a search as :class:`ProductVQ`.

    Ge, He, Ke and Sun, "Optimized Product Quantization", TPAMI 2014; here rotation and codebooks are also learned
    end to end (see :mod:`annvq.training.rotation`).

    Args:
        dim: d, divisible by M.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    needs_norm = False

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, estimator: Estimator | None = None) -> None:
        super().__init__(Rotation(dim), ProductVQ(dim, M, nbits), estimator=estimator)

    @property
    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "M": self.M, "nbits": self.quantizer.config["nbits"]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)
