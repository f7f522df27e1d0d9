"""Indexes whose codes lie in a code store: what the flat index and inverted lists have in common."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import LEAST, check_vectors, chunks, largest, positive_int, require_far_from_zero, rows_to_numpy
from annvq.forks import Lock
from annvq.indexes.coding import Coding, Encoded, joined
from annvq.indexes.files import store_from_stored, store_to_stored
from annvq.indexes.filters import Allowed, Filter, resolve_filter
from annvq.indexes.ids import END_OF_IDS, check_ids, following_ids, require_new
from annvq.indexes.learning import ComparedRows
from annvq.indexes.scanned import ScannedIndex
from annvq.kernels.pooling import near_labels
from annvq.kernels.store import CodeStore, Exported, Rows
from annvq.quantizers.coder import Coder
from annvq.types import I64, Array, Norm, Self


class StoreIndex(ScannedIndex):
    """An index over a :class:`~annvq.kernels.store.CodeStore`.

    Vectors may be added, replaced and removed while other threads search: a search sees the index before such a call or
    after it, never between. (Training is not among the things that may go on meanwhile.)

    Vectors are checked, and normalised under cosine, in ``add``, ``upsert`` and ``search`` and nowhere below.

    Args:
        quantizer, metric, norm, dim: as for :class:`~annvq.indexes.flat.FlatIndex`.
        coding: makes, of these three, what is stored of vectors.
    """

    mappable = frozenset({"codes", "ids", "norms"})

    def __init__(
        self,
        quantizer: Coder,
        metric: str,
        norm: Norm,
        coding: Callable[[Coder, str, Norm], Coding] = Coding,
        dim: int | None = None,
    ) -> None:
        super().__init__(quantizer, metric, dim=dim)
        self.coding = coding(self.coder, self.metric, norm)
        self.norm = self.coding.norm
        self._store = self._new_store()
        self._labelled = False  # the store's codes are in the order that scans like; it is set up for the first vectors
        self._next_id = 0
        self.changing = Lock()
        """Held from the choice of ids to their storing; who keeps something beside the codes holds it over both."""

    def _use(self, coder: Coder) -> None:
        super()._use(coder)
        self.coding.quantizer = coder

    def _new_store(self, *, labelled: bool = False) -> CodeStore:
        """An empty store for this index's codes; ``labelled`` once the codebooks are learned."""
        norm: Any = self.norm
        q = self.coder
        relabel = None
        if labelled and q.code_dtype == np.uint8 and max(q.sizes) == 256:
            relabel = near_labels(q.scan_view().books().split())
        return CodeStore(q.M, q.sizes, code_dtype=q.code_dtype, norm=norm, lists=self._lists, relabel=relabel)

    def _filled_store(self) -> CodeStore:
        """The store to put vectors in; call it while ``changing`` is held."""
        if not self._labelled:
            self._store, self._labelled = self._new_store(labelled=True), True
        return self._store

    # -- facts ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._store)

    @property
    def ram_bits_per_vector(self) -> int:
        """Bits a vector takes in memory (or mapped): code, norm and id, with what is reserved and the map of ids where
        there is one; nominal while empty."""
        if n := len(self._store):
            return -(-8 * (self._store.nbytes + self._store.id_nbytes) // n)
        norm = {None: 0, "uint8": self._store.code_dtype.itemsize, "float32": 5}[self.norm]
        return 8 * (self._store.code_dtype.itemsize * self.coder.M + norm + 4)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "id_bytes": self._store.id_nbytes}

    @property
    def residual(self) -> bool:
        """Whether codes are of what coarse centroids leave over."""
        return self.coding.residual

    def compared_rows(self, x: Array) -> Array:
        """Learn vectors ``x`` (n, d) as :meth:`compared` gives them, each made when it is read; ``x`` where it may."""
        same = self.metric != "cosine" and self.dim == self.dims
        return x if same else ComparedRows(x, self.dims, self.compared)

    @abstractmethod
    def learn_targets(self, x: Array, seed: int) -> Array:
        """What codes may learn from (m, d), of learn vectors ``x``, once what comes before the codes is trained."""

    # -- changes -------------------------------------------------------------------------------------------------

    def add(self, x: Array, ids: Array | None = None) -> Self:
        self.require_fitted("add")
        x = check_vectors(x, self.dim)
        n = int(x.shape[0])
        given = None if ids is None else check_ids(ids, n)
        if given is not None:
            self.require_new(given)
        if n:
            encoded = self.encoded(x, first=not len(self))
            with self.changing:
                self.store(encoded, self.next_ids(n) if given is None else given, known_new=given is None)
        return self

    def upsert(self, x: Array, ids: Array) -> Self:
        """Store ``x`` of shape (n, d) under ``ids`` (int64, each once), in place of what has these ids.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: bad vectors or ids; nothing has changed then.
        """
        self.require_fitted("upsert")
        x = check_vectors(x, self.dim)
        given = check_ids(ids, int(x.shape[0]))
        require_new(given, np.zeros(len(given), np.bool_))
        if len(given):
            self.store(self.encoded(x, first=not len(self)), given, replace=True)
        return self

    def encoded(self, x: Array, *, first: bool) -> Encoded:
        """What is stored of checked vectors ``x`` (n, d), at least one, read in chunks.

        Args:
            first: whether they are the first, whose scale is checked (see :meth:`require_scale`).
        """
        parts, most = [], 0.0
        for start, stop in chunks(int(x.shape[0]), self.dim):
            rows = rows_to_numpy(x, start, stop)
            most = max(most, largest(rows)) if first else most
            parts.append(self.coding.encode(self.compared(rows, "x", start)))
        if first:
            self.require_scale(most)
        return joined(parts)

    def require_scale(self, most: float, least: float = LEAST) -> None:
        """Raise ValueError where the first vectors, whose largest magnitude is ``most``, have distances that vanish."""
        if self.metric != "cosine" and not len(self):
            require_far_from_zero(most, least, "x")

    def next_ids(self, n: int) -> I64:
        """Ids for ``n`` vectors that come without; theirs as long as ``changing`` is held.

        Raises:
            ValueError: int64 has too few left.
        """
        return following_ids(self._next_id, n)

    def require_new(self, ids: I64) -> None:
        """Raise ValueError where ids repeat or are stored."""
        require_new(ids, self.contains(ids))

    def store(self, encoded: Encoded, ids: I64, *, replace: bool = False, known_new: bool = False) -> None:
        """Store what was encoded of vectors, at least one, under ids (n,).

        Args:
            replace: in place of what has these ids; else they must be new.
            known_new: they are known to be, since ``changing`` has been held; they are not looked up.

        Raises:
            ValueError: ids that repeat, or are stored unless ``replace``; nothing has changed then.
        """
        with self.changing:
            store = self._filled_store()
            if replace:
                store.replace(encoded.codes, encoded.norms, ids, encoded.lists)
            else:
                store.append(encoded.codes, encoded.norms, ids, encoded.lists, known_new=known_new)
            self._next_id = max(self._next_id, int(ids.max()) + 1)

    def remove(self, ids: Array) -> int:
        return self._store.remove(check_ids(ids, None))

    def reset(self) -> Self:
        with self.changing:
            self._store, self._labelled, self._next_id = self._new_store(), False, 0
        return self

    def take(self, other: Self) -> None:
        codes, norms, ids, sizes = other.export()
        with self.changing:
            self.require_new(ids)
            if len(ids):
                lists = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes) if len(sizes) > 1 else None
                self.store(Encoded(codes, norms, lists), ids, known_new=True)
            self._next_id = max(self._next_id, other._next_id)

    def fingerprint(self) -> tuple[Any, ...]:
        return *super().fingerprint(), self.coding.fingerprint()

    # -- look-ups ------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> I64:
        return np.sort(self._store.ids())

    def contains(self, ids: I64) -> npt.NDArray[np.bool_]:
        """Which of the ids (n,) are stored, bool (n,)."""
        return self._store.contains(ids)

    def require_stored(self, ids: I64) -> None:
        """Raise ValueError where one of the ids is not stored."""
        self._store.rows(ids)

    def reconstruct(self, ids: Array) -> Any:
        self.require_fitted("reconstruct")
        rows = self._store.rows(check_ids(ids, None))
        return self.filled_up(self.coding.decode(rows.codes, rows.lists))

    def rows_where_stored(self, ids: I64) -> tuple[Rows, I64]:
        """Rows of ids of any shape, any row where one is not stored, and the ids with −1 in its place.

        Rows may be removed meanwhile, so what a search has found need not be there any more.
        """
        flat = ids.reshape(-1)
        there = flat >= 0
        while True:
            try:
                if there.all():
                    return self._store.rows(flat), ids
                some = self._store.rows(flat[there])
                break
            except ValueError:
                there[there] = self.contains(flat[there])
        at = np.cumsum(there) - 1
        codes = some.codes[at] if len(some.codes) else np.zeros((len(flat), some.codes.shape[1]), some.codes.dtype)
        lists = some.lists[at] if len(some.lists) else np.zeros(len(flat), np.int32)
        rows = some._replace(codes=codes, lists=np.maximum(lists, 0))
        return rows, np.where(there, flat, -1).reshape(ids.shape)

    def export(self) -> Exported:
        """Copies of all rows, list after list."""
        return self._store.export()

    def allowed(self, filter: Filter) -> Allowed:
        return resolve_filter(filter, self._store.ids)

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        with self.changing:
            config, tensors = store_to_stored(self._store, self.coder.bits_per_codebook)
            return {**config, **self.coding.length_to_stored(), "next_id": self._next_id}, tensors

    def _restore(self, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool) -> None:
        """Take over the store of :meth:`_to_stored`; what it does not know is left in ``tensors``."""
        empty = self._new_store(labelled=config.get("layout") != "blocks")
        self._store = store_from_stored(config, tensors, empty, self.coder.bits_per_codebook, mapped=mapped)
        self._labelled = len(self._store) > 0 or self._store.relabel is not None
        low = 0 if mapped else int(self._store.ids().max(initial=-1)) + 1
        self._next_id = positive_int(config["next_id"], "next_id", low=low, high=END_OF_IDS)
        self.coding.restore_length(config, len(self))
        if len(self):
            self.require_fitted("load")
            self.coding.norm_levels()  # they are there
