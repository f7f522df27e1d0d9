"""Indexes whose codes lie in a code store: what the flat index and inverted lists have in common."""

import threading
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from annvq.arrays import check_vectors, chunks, positive_int, rows_to_numpy
from annvq.indexes.contract import Index
from annvq.indexes.files import store_from_stored, store_to_stored
from annvq.indexes.ids import END_OF_IDS, check_ids, require_new
from annvq.kernels import LazyTables
from annvq.kernels.pooling import near_labels
from annvq.kernels.store import CodeStore, Rows
from annvq.quantizers.base import Quantizer, TableQuantizer
from annvq.types import F32, I32, I64, Array, Norm


class Encoded(NamedTuple):
    """What an index stores of vectors: codes (n, M), norms (n,) of the index's kind or None, lists (n,) or None."""

    codes: npt.NDArray[Any]
    norms: npt.NDArray[Any] | None
    lists: I32 | None = None


class StoreIndex(Index):
    """An index over a :class:`~annvq.kernels.store.CodeStore`.

    Vectors may be added, replaced and removed while other threads search: a search sees the index before such a call or
    after it, never between. (Training is not among the things that may go on meanwhile.)
    """

    mappable = frozenset({"codes", "ids", "norms"})
    residual: bool = False
    """Whether codes are of what coarse centroids leave over."""

    def __init__(self, quantizer: Quantizer, metric: str, norm: Norm) -> None:
        super().__init__(quantizer, metric)
        self.norm = resolve_norm(norm, quantizer.scan_view(), self.metric, residual=self.residual)
        self._store = self._new_store()
        self._labelled = False  # the store's codes are in the order that scans like; it is set up for the first vectors
        self._next_id = 0
        self._changing = threading.Lock()  # held from the choice of ids to their storing

    def _new_store(self, *, labelled: bool = False) -> CodeStore:
        """An empty store for this index's codes; ``labelled`` once the codebooks are learned."""
        norm: Any = self.norm
        q = self.quantizer
        relabel = None
        if labelled and q.code_dtype == np.uint8 and max(q.sizes) == 256:
            relabel = near_labels([book.detach().cpu().numpy() for book in q.scan_view().codebooks])
        return CodeStore(q.M, q.sizes, code_dtype=q.code_dtype, norm=norm, lists=self._lists, relabel=relabel)

    def _filled_store(self) -> CodeStore:
        """The store to put vectors in; call it while ``_changing`` is held."""
        if not self._labelled:
            self._store, self._labelled = self._new_store(labelled=True), True
        return self._store

    @property
    def _lists(self) -> int:
        return 1

    # -- facts ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._store)

    @property
    def ram_bits_per_vector(self) -> int:
        """Bits a vector takes in memory (or mapped), code and norm, with what is reserved; nominal while empty."""
        if n := len(self._store):
            return -(-8 * self._store.nbytes // n)
        norm = {None: 0, "uint8": self._store.code_dtype.itemsize, "float32": 5}[self.norm]
        return 8 * (self._store.code_dtype.itemsize * self.quantizer.M + norm)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "id_bytes": self._store.id_nbytes}

    # -- vectors -------------------------------------------------------------------------------------------------

    @abstractmethod
    def _encode_rows(self, rows: F32) -> Encoded:
        """Codes, norms and lists of checked vectors."""

    def _decode_rows(self, rows: Rows) -> F32:
        """Vectors (n, d) of stored rows."""
        return self.quantizer.decode(rows.codes)

    def _encoded(self, x: Array) -> Encoded:
        """Codes, norms and lists of ``x``, read in chunks."""
        parts = [
            self._encode_rows(self.prepared(x[a:b], "x") if self.metric == "cosine" else rows_to_numpy(x, a, b))
            for a, b in chunks(int(x.shape[0]), self.dim)
        ]
        codes, norms, lists = (None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True))
        assert codes is not None
        return Encoded(codes, norms, lists)

    def _norms_of(self, rows: F32, codes: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """What is stored of the norms of checked vectors with these codes, or None."""
        if self.norm is None:
            return None
        view = self.quantizer.scan_view()
        norms = view.norms(codes)
        if self.norm != "uint8":
            return norms
        return view.norm_byte.encode_vectors(codes, norms, view.squared_errors(rows, codes))

    def add(self, x: Array, ids: Array | None = None) -> Self:
        self.require_fitted("add")
        check_vectors(x, self.dim)
        n = int(x.shape[0])
        given = None if ids is None else check_ids(ids, n)
        if given is not None:
            require_new(given, self._store.contains(given))
        if n == 0:
            return self
        encoded = self._encoded(x)
        with self._changing:
            new_ids = self._next_ids(n) if given is None else given
            self._filled_store().append(encoded.codes, encoded.norms, new_ids, encoded.lists, known_new=given is None)
            self._next_id = max(self._next_id, int(new_ids.max()) + 1)
        return self

    def _next_ids(self, n: int) -> I64:
        """Ids for n vectors that come without; ValueError where int64 has none left."""
        if self._next_id + n > END_OF_IDS:
            raise ValueError(f"ids must be given: {self._next_id} is next, and fewer than {n} are left in int64")
        return np.arange(self._next_id, self._next_id + n, dtype=np.uint64).astype(np.int64)

    def upsert(self, x: Array, ids: Array) -> Self:
        """Store ``x`` of shape (n, d) under ``ids`` (int64, each once), in place of what has these ids.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: bad vectors or ids; nothing has changed then.
        """
        self.require_fitted("upsert")
        check_vectors(x, self.dim)
        given = check_ids(ids, int(x.shape[0]))
        require_new(given, np.zeros(len(given), np.bool_))
        if len(given) == 0:
            return self
        encoded = self._encoded(x)
        with self._changing:
            self._filled_store().replace(encoded.codes, encoded.norms, given, encoded.lists)
            self._next_id = max(self._next_id, int(given.max()) + 1)
        return self

    def remove(self, ids: Array) -> int:
        return self._store.remove(check_ids(ids, None))

    def reconstruct(self, ids: Array) -> Any:
        self.require_fitted("reconstruct")
        return self._decode_rows(self._store.rows(check_ids(ids, None)))

    @property
    def ids(self) -> I64:
        """A copy of the stored ids, ascending."""
        return np.sort(self._store.ids())

    def _tables(self, queries: F32) -> tuple[LazyTables, F32]:
        """Tables and biases of checked queries, as the store's norms want them."""
        view = self.quantizer.scan_view()
        luts, bias = view.lazy_tables(queries, self.metric)
        if self.norm == "uint8":
            luts = luts.plus(view.norm_byte.table_offsets(max(view.sizes)))
        return luts, bias

    def _norm_levels(self) -> F32 | None:
        """The values that stored uint8 norms stand for, or None."""
        return self.quantizer.scan_view().norm_byte.levels if self.norm == "uint8" else None

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        with self._changing:
            config, tensors = store_to_stored(self._store, self.quantizer.bits_per_codebook)
            return {**config, "next_id": self._next_id}, tensors

    def _restore(self, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool) -> None:
        """Take over the store of :meth:`_to_stored`; what it does not know is left in ``tensors``."""
        empty = self._new_store(labelled=config.get("layout") != "blocks")
        self._store = store_from_stored(config, tensors, empty, self.quantizer.bits_per_codebook, mapped=mapped)
        self._labelled = True
        low = 0 if mapped else int(self._store.ids().max(initial=-1)) + 1
        self._next_id = positive_int(config["next_id"], "next_id", low=low, high=END_OF_IDS)


def resolve_norm(norm: Norm, quantizer: TableQuantizer, metric: str, *, residual: bool = False) -> Norm:
    """The norm that is stored: ``"uint8"``, ``"float32"`` or None.

    ``"auto"`` stores none where none is needed (product and norm-free codes, ip, cosine) and one byte otherwise. Codes
    of ``residual``s, what coarse centroids leave over, need one under l2 whatever they are.

    Raises:
        ValueError: an unknown norm; None for L2 on codes that need one; a norm where none is used.
    """
    if norm not in ("auto", "uint8", "float32", None):
        raise ValueError(f"norm must be 'auto', 'uint8', 'float32' or None, got {norm!r}")
    needed = (quantizer.needs_norm or residual) and metric == "l2"
    if norm == "auto":
        return "uint8" if needed else None
    if needed and norm is None:
        raise ValueError(
            f"norm must not be None for metric 'l2' on {type(quantizer).__name__} codes: "
            f"squared distance needs ‖x̂‖² ('uint8' stores it in one byte; codes of a quantizer made with "
            f"norm_free=True need none)"
        )
    if not needed and norm is not None:
        raise ValueError(
            f"norm={norm!r} would never be read: metric {metric!r} on {type(quantizer).__name__} codes needs none"
        )
    return norm
