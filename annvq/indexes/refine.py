"""What re-ranking computes exact distances from: raw vectors in memory or on disk, or a finer code."""

import os
from abc import ABC, abstractmethod
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import dtype_name
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native
from annvq.quantizers.contract import Quantizer
from annvq.quantizers.tables import TableQuantizer
from annvq.threads import get_num_threads
from annvq.types import F32, I64, Array

RAW_DTYPES = ("float32", "float16", "uint8", "int8")
Found: TypeAlias = tuple[F32, I64]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Refines: TypeAlias = Literal["vectors", "rest", "stages"]


class Refinement(ABC):
    """Rows under ids, and the distances of queries to them.

    Distances are float32 sums of sixteen partial sums, lane l over the dimensions l, l + 16, …, folded in halves
    (lane l with l + 8, then + 4, + 2, + 1): the same on every machine.
    """

    bits: int
    """Bits stored per vector."""

    @abstractmethod
    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        """The k nearest of ``ids`` (nq, s; −1 for none) to each checked query, by (distance, id)."""

    @abstractmethod
    def vectors(self, index: StoreIndex, ids: I64) -> F32:
        """The vectors (n, d) that distances are computed from."""

    def put(self, ids: I64, rows: Bytes) -> None:
        """Keep rows of :meth:`rows_of`, in place of what has these ids."""
        self.store.append(ids, rows, True)

    def remove(self, ids: I64) -> None:
        self.store.remove(ids)

    store: Any

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.store.nbytes

    @abstractmethod
    def to_facts(self) -> dict[str, Any]:
        """What it is, as JSON holds it."""

    @abstractmethod
    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors of a file."""


def _restored(store: Any, tensors: dict[str, npt.NDArray[Any]], row_bytes: int) -> None:
    ids, rows = tensors.pop("refine.ids"), tensors.pop("refine.rows")
    if ids.dtype != np.int64 or rows.dtype != np.uint8 or rows.shape != (len(ids), row_bytes):
        raise ValueError(f"its rows to re-rank are {rows.dtype} {rows.shape} for {ids.dtype} {ids.shape} ids")
    store.adopt(ids, rows)


def _rows_to_stored(store: Any) -> dict[str, npt.NDArray[Any]]:
    ids, rows = store.export()
    return {"refine.ids": ids, "refine.rows": rows}


class RawVectors(Refinement):
    """The vectors themselves, kept in memory as ``dtype``.

    uint8 and int8 take only vectors that they hold exactly; float16 rounds.
    """

    def __init__(self, dim: int, dtype: str) -> None:
        if dtype not in RAW_DTYPES:
            raise ValueError(f"refine must be one of {', '.join(RAW_DTYPES)}, a quantizer or an array, got {dtype!r}")
        self.dim, self.dtype = dim, np.dtype(dtype)
        self.bits = 8 * self.dtype.itemsize * dim
        self.store = _native.RowStore(self.dtype.itemsize * dim)

    def rows_of(self, x: F32, first: int) -> Bytes:
        """Checked vectors as they are kept; ValueError, naming a row counted from ``first``, where they do not fit."""
        with np.errstate(over="ignore", invalid="ignore"):
            kept = x.astype(self.dtype)
        if self.dtype.kind in "iu":
            wrong = (kept != x).any(axis=1)
            what = f"whole numbers that {self.dtype} holds"
        else:
            wrong = ~np.isfinite(kept).all(axis=1)
            what = f"finite in {self.dtype}"
        if wrong.any():
            raise ValueError(f"x must be {what} to be re-ranked from; row {first + int(np.argmax(wrong))} is not")
        return np.ascontiguousarray(kept).view(np.uint8)

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        return _native.rerank_rows(self.store, str(self.dtype), queries, ids, k, index.metric, get_num_threads())

    def vectors(self, index: StoreIndex, ids: I64) -> F32:
        return self.store.get(ids).view(self.dtype).reshape(len(ids), self.dim).astype(np.float32)

    def to_facts(self) -> dict[str, Any]:
        return {"refined_by": f"vectors in {self.dtype}", "refine_bits_per_vector": self.bits}

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        return {"kind": "raw", "dtype": str(self.dtype)}, _rows_to_stored(self.store)


class OutsideVectors(Refinement):
    """Vectors that lie elsewhere, ``vectors[id]``: an array or a memory map, read where needed and never copied."""

    store = None

    def __init__(self, dim: int, dtype: str, vectors: Array | None, path: str | None = None) -> None:
        self.dim, self.dtype, self.path = dim, dtype, path
        self.bits = 8 * np.dtype(dtype).itemsize * dim
        self.array: npt.NDArray[Any] | None = None if vectors is None else self._checked(vectors)

    @classmethod
    def of(cls, dim: int, vectors: Array) -> "OutsideVectors":
        if not isinstance(vectors, np.ndarray):
            raise TypeError(f"refine must be a NumPy array or memory map, got {type(vectors).__name__}")
        path = getattr(vectors, "filename", None)
        return cls(dim, dtype_name(vectors), vectors, None if path is None else os.fspath(path))

    def _checked(self, vectors: Array) -> npt.NDArray[Any]:
        wanted = f"{self.dtype} of shape (n, {self.dim}), the dimensions of a row side by side"
        if self.dtype not in RAW_DTYPES:
            raise TypeError(f"refine must hold {', '.join(RAW_DTYPES)}, got {self.dtype}")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or str(vectors.dtype) != self.dtype:
            raise ValueError(f"refine must be {wanted}, got {vectors.dtype} {vectors.shape}")
        if vectors.strides[1] != vectors.itemsize or vectors.strides[0] < 0 or vectors.strides[0] % vectors.itemsize:
            raise ValueError(f"refine must be {wanted}, got strides {vectors.strides}")
        return vectors

    def require(self) -> npt.NDArray[Any]:
        """The array; where it is missing after loading, its file is opened again."""
        if self.array is None:
            from annvq.datasets import load_vectors

            where = "call attach(vectors) on the index"
            if self.path is None or not os.path.isfile(self.path):
                raise ValueError(f"the vectors to re-rank from lie outside the file, at {self.path}: {where}")
            try:
                self.array = self._checked(load_vectors(self.path))
            except (TypeError, ValueError) as e:
                raise ValueError(f"{self.path} does not hold the vectors to re-rank from ({e}): {where}") from None
        return self.array

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        rows = self.require()
        return _native.rerank_array(rows, self.dtype, queries, ids, k, index.metric, get_num_threads())

    def vectors(self, index: StoreIndex, ids: I64) -> F32:
        return np.asarray(self.require()[ids], dtype=np.float32)

    def put(self, ids: I64, rows: Bytes) -> None:
        pass

    def remove(self, ids: I64) -> None:
        pass

    @property
    def nbytes(self) -> int:
        return 0

    def to_facts(self) -> dict[str, Any]:
        return {"refined_by": f"vectors in {self.dtype} at {self.path}", "refine_bits_per_vector": self.bits}

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        return {"kind": "outside", "dtype": self.dtype, "path": self.path}, {}


class FinerCode(Refinement):
    """A second code: of the vectors, of what the scanned code leaves over, or the scanned code's further stages.

    Args:
        quantizer: of the second code; for ``"stages"`` of both codes together.
        refines: ``"vectors"``, ``"rest"`` or ``"stages"``.
        scanned: codebooks of the scanned code that are the first ones of ``quantizer``.
    """

    def __init__(self, quantizer: TableQuantizer, refines: Refines, scanned: int) -> None:
        self.quantizer, self.refines = quantizer, refines
        self.first = scanned if refines == "stages" else 0
        self.bits = sum(quantizer.bits_per_codebook[self.first :])
        self.M = quantizer.M - self.first
        self.store = _native.RowStore(self.M * quantizer.code_dtype.itemsize)
        self._books: tuple[Any, Any] | None = None

    def rows_of_codes(self, codes: npt.NDArray[Any]) -> Bytes:
        kept = np.ascontiguousarray(codes[:, self.first :])
        return kept.view(np.uint8).reshape(len(kept), -1)

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        metric = "unit" if index.metric == "cosine" else index.metric
        scanned, fine = self._prepared(index)
        codes, lists, centroids = np.empty((0, 1), np.uint8), np.empty(0, np.int32), np.empty((0, 1), np.float32)
        if scanned is not None:
            stored, ids = _rows_where_stored(index, ids)
            codes = np.ascontiguousarray(stored.codes).view(np.uint8).reshape(ids.size, -1)
            if isinstance(index, IVFIndex) and index.residual:
                lists, centroids = stored.lists, index.coarse_centroids()
        return _native.rerank_codes(
            self.store, fine, queries, ids, k, metric, scanned, codes, centroids, lists, get_num_threads()
        )

    def _prepared(self, index: StoreIndex) -> tuple[Any, Any]:
        """Codebooks as the native code wants them: those of the scanned code where it counts, and the second code's."""
        if self._books is None:
            scanned = None if self.refines == "vectors" else _sum_books(index.quantizer, 0)
            self._books = scanned, _sum_books(self.quantizer, self.first)
        return self._books

    def vectors(self, index: StoreIndex, ids: I64) -> F32:
        dtype = self.quantizer.code_dtype
        codes = self.store.get(ids).view(dtype).reshape(len(ids), self.M)
        x = np.zeros((len(ids), self.quantizer.dim), np.float32)
        books = self.quantizer.codebooks[self.first :]
        for m, (book, start) in enumerate(zip(books, self.quantizer.starts[self.first :], strict=True)):
            x[:, start : start + self.quantizer.width] += book.detach().cpu().numpy()[codes[:, m]]
        return x if self.refines == "vectors" else index.reconstruct(ids) + x

    def to_facts(self) -> dict[str, Any]:
        what = f"{self.quantizer.kind} codes of {self.refines}"
        return {"refined_by": what, "refine_bits_per_vector": self.bits}

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        config, tensors = self.quantizer.to_stored()
        named = {f"refine.quantizer.{name}": tensor for name, tensor in tensors.items()}
        return {"kind": "code", "refines": self.refines, "quantizer": config}, named | _rows_to_stored(self.store)


def _sum_books(quantizer: Quantizer, first: int) -> Any:
    view = quantizer.scan_view()
    entries = np.ascontiguousarray(view.codebooks_copy()[view.offsets[first] :])
    sizes, starts = (np.asarray(a[first:], np.int32) for a in (view.sizes, view.starts))
    return _native.SumBooks(entries, sizes, starts, view.dim, view.code_dtype == np.uint16)


def _rows_where_stored(index: StoreIndex, ids: I64) -> tuple[Any, I64]:
    """Rows of all ids, any row where there is none, and the ids with −1 there: rows may be removed meanwhile."""
    flat = ids.reshape(-1)
    there = flat >= 0
    while True:
        try:
            if there.all():
                return index._store.rows(flat), ids
            some = index._store.rows(flat[there])
            break
        except ValueError:
            there[there] = index._store.contains(flat[there])
    at = np.cumsum(there) - 1
    codes = some.codes[at] if len(some.codes) else np.zeros((len(flat), some.codes.shape[1]), some.codes.dtype)
    lists = some.lists[at] if len(some.lists) else np.zeros(len(flat), np.int32)
    return some._replace(codes=codes, lists=np.maximum(lists, 0)), np.where(there, flat, -1).reshape(ids.shape)


def restored(
    config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex
) -> "RawVectors | OutsideVectors | FinerCode":
    """The inverse of ``to_stored``; takes its tensors out of ``tensors``."""
    from annvq.quantizers.files import from_stored

    if config["kind"] == "raw":
        raw = RawVectors(index.dim, config["dtype"])
        _restored(raw.store, tensors, raw.store.row_bytes)
        return raw
    if config["kind"] == "outside":
        if config["dtype"] not in RAW_DTYPES or not isinstance(config["path"], str | None):
            raise ValueError(f"its vectors to re-rank from are {config['dtype']!r} at {config['path']!r}")
        return OutsideVectors(index.dim, config["dtype"], None, config["path"])
    if config["kind"] != "code":
        raise ValueError(f"it re-ranks from {config['kind']!r}, expected 'raw', 'outside' or 'code'")
    prefix = "refine.quantizer."
    own = {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
    quantizer = from_stored(config["quantizer"], own)
    code = FinerCode(table_quantizer(quantizer), config["refines"], index.quantizer.M)
    _restored(code.store, tensors, code.store.row_bytes)
    return code


def table_quantizer(quantizer: Quantizer) -> TableQuantizer:
    """``quantizer`` itself if its vectors are sums of its codebooks' entries, else TypeError."""
    if not isinstance(quantizer, TableQuantizer) or quantizer.scan_view() is not quantizer:
        raise TypeError(
            f"re-ranking decodes product, residual and additive codes, got {type(quantizer).__name__}; "
            "keep raw vectors instead"
        )
    return quantizer
