"""Codes behind a learned change of coordinates, as product codes behind a rotation (Ge, He, Ke and Sun, "Optimized
Product Quantization", TPAMI 2014)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks, positive_int
from annvq.codebooks import Codebooks, RowProducts, row_products
from annvq.complexity import OperationCounts, linear_map
from annvq.forks import made_once
from annvq.kernels import LazyTables
from annvq.norms import Length
from annvq.quantizers.additive import AdditiveCoder
from annvq.quantizers.coder import Coder, Shapes
from annvq.quantizers.nested import Nested
from annvq.quantizers.product import ProductCoder
from annvq.quantizers.product_additive import ProductAdditiveCoder
from annvq.quantizers.residual import ResidualCoder
from annvq.quantizers.sums import SumCoder
from annvq.quantizers.tables import TableCoder
from annvq.types import F32, Codes, Self

MAPS = {"rotation": "matrix", "linear": "weight"}
"""Kinds of maps, and what files call their matrix."""

_INNER = {coder.kind: coder for coder in (ProductCoder, ResidualCoder, AdditiveCoder, ProductAdditiveCoder)}


def map_kind(config: str | Mapping[str, Any], dim: int) -> tuple[str, dict[str, Any]]:
    """The kind of a map and its further arguments, from its name or its config; ValueError for an unknown kind."""
    arguments = {"kind": config, "dim": dim} if isinstance(config, str) else dict(config)
    kind = arguments.pop("kind", None)
    if kind not in MAPS:
        raise ValueError(f"transform must be one of {', '.join(MAPS)}, got {kind!r}")
    return kind, arguments


class StoredMap:
    """An invertible affine map of vectors, ``y = A (x − shift)``, as files hold it.

    Args:
        kind: ``"rotation"`` or ``"linear"``.
        dim: d of the vectors.
        shift: whether there is one.
    """

    matrix: F32  # A, (d, d)
    shift: F32 | None = None  # (d,)

    def __init__(self, kind: str, dim: int, shift: bool = False) -> None:
        self.kind, self.dim, self.shifts = kind, positive_int(dim, "dim", high=1 << 20), bool(shift)
        self.orthogonal = kind == "rotation"

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON holds them."""
        return {"kind": self.kind, "dim": self.dim, "shift": self.shifts}

    def shapes(self) -> Shapes:
        """What :meth:`fill` takes."""
        shapes: Shapes = {MAPS[self.kind]: ("float32", (self.dim, self.dim))}
        return shapes | ({"shift": ("float32", (self.dim,))} if self.shifts else {})

    def fill(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take arrays of these :meth:`shapes`."""
        self.matrix, self.shift = arrays[MAPS[self.kind]], arrays.get("shift")

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays."""
        return {MAPS[self.kind]: self.matrix} | ({} if self.shift is None else {"shift": self.shift})


class TransformedCoder(Nested, TableCoder):
    """A coder behind a map of vectors: see :class:`~annvq.Transformed`.

    Args:
        transform: the map, of the coder's dimension.
        quantizer: the coder of transformed vectors: product, residual or additive.
    """

    kind = "transformed"
    part_names = ("transform", "quantizer")
    sums = True
    needs_norm = True

    transform: Any
    quantizer: Any

    def __init__(self, transform: Any, quantizer: Any) -> None:
        if transform.dim != quantizer.dim:
            raise ValueError(f"transform must have the quantizer's dim={quantizer.dim}, got dim={transform.dim}")
        if isinstance(quantizer, SumCoder) and quantizer.norm_free and not transform.orthogonal:
            raise ValueError("quantizer must not be norm_free behind a transform that changes norms; use a Rotation")
        self._begin(quantizer.dim, quantizer.M, list(quantizer.bits_per_codebook))
        self.transform, self.quantizer = transform, quantizer
        self.width, self.widths = self.dim, (self.dim,) * quantizer.M
        self.offsets, self.starts = quantizer.offsets, (0,) * quantizer.M
        self.needs_norm = quantizer.needs_norm or not transform.orthogonal
        self._register_term()

    def _begin(self, dim: int, M: int, nbits: Sequence[int]) -> None:
        """The constructor of a coder without codebooks of its own: they are the inner one's."""
        Coder.__init__(self, dim, M, nbits)

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
        quantizer = cls._inner(str(kind), {**inner_config, **rest})
        return cls(cls._map(*map_kind(transform, quantizer.dim)), quantizer)

    @classmethod
    def _inner(cls, kind: str, config: Mapping[str, Any]) -> Any:
        if kind not in _INNER:
            raise ValueError(f"quantizer must be one of {', '.join(_INNER)}, got {kind!r}")
        return _INNER[kind].from_config(config)

    @classmethod
    def _map(cls, kind: str, arguments: Mapping[str, Any]) -> Any:
        return StoredMap(kind, **arguments)

    def costs(self) -> OperationCounts:
        shift = OperationCounts(additions=self.dim if self.transform.config["shift"] else 0)
        return self.quantizer.costs() + linear_map(self.dim, self.dim) + shift

    # -- codebooks ---------------------------------------------------------------------------------------------------

    def codebooks_copy(self) -> F32:
        return self.books().entries.copy()

    def books(self) -> Codebooks:
        return self._parts().books

    def books_where_short(self) -> tuple[Codebooks, Callable[[F32], F32] | None]:
        parts = self._parts()
        if not parts.orthogonal or parts.shift is not None:
            return parts.books, None
        return parts.inner, parts.mapped

    def _now(self) -> "Parts":
        return self._parts()

    def _parts(self) -> "Parts":
        """What follows from map and codebooks as they are now."""
        return self._made_parts

    @made_once
    def _made_parts(self) -> "Parts":
        own = self.transform
        return Parts(self.quantizer.books(), np.ascontiguousarray(own.matrix), own.shift, own.orthogonal)

    # -- codes -------------------------------------------------------------------------------------------------------

    def require_encodes(self, what: str) -> None:
        super().require_encodes(what)
        self.quantizer.require_encodes(what)

    def decode_rows(self, codes: Codes) -> F32:
        return self._parts().decode(codes)

    def _own_codes(self, x: F32) -> Codes:
        if not self._on_cpu:
            return self._encode_in_torch(x)
        own: Codes = self.quantizer.encode_rows(self._parts().mapped(x))
        return own

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        parts = self._parts()
        if not parts.orthogonal or parts.shift is not None or not self._on_cpu:
            return super()._codes_of_length(x, length, centres)
        about = None if centres is None else parts.mapped(centres)  # lengths are the same on both sides
        codes: Codes = self.quantizer.encode_rows(parts.mapped(x), length, about)
        return codes

    # -- tables ------------------------------------------------------------------------------------------------------

    def squares(self) -> F32 | None:
        return self._parts().squares

    def lazy_tables(self, queries: F32, metric: str) -> tuple[LazyTables, F32]:
        return self._tables_of(self._parts(), queries, metric)

    def tables_and_squares(self, queries: F32, metric: str) -> tuple[tuple[LazyTables, F32], F32 | None]:
        parts = self._parts()
        return self._tables_of(parts, queries, metric), parts.squares

    def _tables_of(self, parts: "Parts", queries: F32, metric: str) -> tuple[LazyTables, F32]:
        if metric == "l2" and not self.needs_norm:
            inner: tuple[LazyTables, F32] = self.quantizer.lazy_tables(parts.mapped(queries), "l2")
            return inner
        shift, centred = parts.shift, metric == "l2" and self.about_origin
        scale = -2.0 if metric == "l2" else -1.0
        if shift is None and metric != "l2":
            bias = (np.ones if metric == "cosine" else np.zeros)(len(queries), np.float32)
            return parts.inner.tables(parts.mapped_queries(queries), squared=False, scale=scale), bias
        constant = np.full(len(queries), 1.0 if metric == "cosine" else 0.0)
        if metric == "l2":
            queries = queries - parts.centre if centred else queries
            constant += np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
        # ⟨q, x̂⟩ = ⟨A⁻ᵀ q, ŷ⟩ + ⟨q, shift⟩; the shift is part of the origin.
        if shift is not None and not centred:
            constant -= (2 if metric == "l2" else 1) * (queries.astype(np.float64) @ shift)
        books = parts.inner.centred if centred else parts.inner
        luts = books.tables(parts.mapped_queries(queries), squared=False, scale=scale)
        return luts, constant.astype(np.float32)


class Parts:
    """A map and codebooks behind it, as they were at one time, and what is made of them once.

    Args:
        inner: the codebooks.
        matrix: A (d, d).
        shift: (d,), or None.
        orthogonal: whether the inverse of A is its transpose.
    """

    def __init__(self, inner: Codebooks, matrix: F32, shift: F32 | None, orthogonal: bool) -> None:
        self.inner, self.matrix, self.shift, self.orthogonal = inner, matrix, shift, orthogonal
        self._map = RowProducts(matrix)

    def hold(self, inner: Codebooks, matrix: F32, shift: F32 | None) -> bool:
        """Whether they are still what they were, bit for bit."""
        same = shift is None or (self.shift is not None and np.array_equal(shift, self.shift))
        return inner is self.inner and same and self._map.holds(matrix)

    def mapped(self, x: F32) -> F32:
        """Rows (n, d) in transformed coordinates."""
        return self._map(x if self.shift is None else x - self.shift)

    def mapped_queries(self, q: F32) -> F32:
        """A⁻ᵀ q of rows (n, d): their inner products with transformed vectors are those of q with the vectors."""
        return self._query_map(q)

    @made_once
    def _query_map(self) -> RowProducts:
        return self._map if self.orthogonal else RowProducts(self.back.T)  # A⁻ᵀ, which is A of a rotation

    @made_once
    def _inverse(self) -> RowProducts:
        return RowProducts(self.back)

    @made_once
    def back(self) -> F32:
        """The inverse map (d, d)."""
        if self.orthogonal:
            return np.ascontiguousarray(self.matrix.T)
        return np.linalg.inv(self.matrix.astype(np.float64)).astype(np.float32)

    @made_once
    def books(self) -> Codebooks:
        """Codebooks in the vectors' own coordinates, whose sums are x̂."""
        parts = []
        for book, start in zip(self.inner.split(), self.inner.starts, strict=True):
            parts.append(row_products(book, self.back[:, start : start + self.inner.width]))
        if self.shift is not None:
            parts[0] = parts[0] + self.shift
        return self._whole(np.concatenate(parts))

    def about(self, origin: bool) -> Codebooks:
        """As :meth:`~annvq.codebooks.Codebooks.about`."""
        return self._centred if origin else self.books

    @made_once
    def _centred(self) -> Codebooks:
        return self._whole(self._inverse(self.inner.centred.whole.entries))

    @made_once
    def squares(self) -> F32 | None:
        """(ΣK,): what each entry adds to ‖x̂‖², or None: see :attr:`Codebooks.squares
        <annvq.codebooks.Codebooks.squares>`."""
        if not self.orthogonal:  # x̂ is as long as what is mapped back, the shift mapped with it
            return None
        return self.inner.squares if self.shift is None else self.inner.squares_after(self._map(self.shift[None])[0])

    def decode(self, codes: Codes) -> F32:
        """Vectors (n, d) of codes (n, M)."""
        out = np.empty((len(codes), self.inner.dim), np.float32)
        for start, stop in chunks(len(codes), self.inner.dim * (len(self.inner.sizes) + 1)):
            out[start:stop] = self._back(self.inner.decode(codes[start:stop]))
        return out

    @made_once
    def centre(self) -> F32:
        """The sum of the codebooks' centres, (d,)."""
        return self._back(self.inner.centre[None])[0]

    def _back(self, y: F32) -> F32:
        """Rows (n, d) in the vectors' own coordinates."""
        x = self._inverse(y)
        return x if self.shift is None else x + self.shift

    def _whole(self, entries: F32) -> Codebooks:
        sizes = self.inner.sizes
        return Codebooks(np.ascontiguousarray(entries), sizes, (0,) * len(sizes), self.inner.dim)


class RotatedProductCoder(TransformedCoder):
    """Product codes behind a rotation: see :class:`~annvq.RotatedProductVQ`."""

    kind: ClassVar[str] = "rotated-product"
    needs_norm = False

    @property
    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "M": self.M, "nbits": self.quantizer.config["nbits"]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        inner = ProductCoder.from_config(config)
        return cls(StoredMap("rotation", inner.dim), inner)
