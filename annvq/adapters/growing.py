"""An index that begins with no vectors and nothing learned, as those of document stores do."""

import os
from typing import Any

import numpy as np

from annvq import quantizers, storage
from annvq.arrays import normalized, positive_int, to_numpy
from annvq.errors import FormatError
from annvq.forks import Lock
from annvq.indexes import IVFIndex, RerankIndex
from annvq.indexes.contract import Index
from annvq.indexes.filters import Filter, allowed_among, resolve_filter
from annvq.indexes.ids import check_ids, require_new
from annvq.kernels import _native
from annvq.paths import check_path
from annvq.quantizers.tables import check_metric
from annvq.threads import get_num_threads
from annvq.types import F32, I64, Array, Self

FORMAT, VERSIONS = "annvq.growing", (1,)
LEARN_AT = 10_000
"""Vectors that are kept as they are before an index learns from them."""
_PAIRS = 1 << 22  # of queries and vectors that are compared at a time
_RECALL = 0.985  # of the lists that are probed, and of the shortlist: .95 in all, or more (benchmarks/stores.py)


def default_index(dim: int, metric: str) -> Index:
    """What is learned where nobody names an index: product codes of principal axes, a bit for each dimension, in lists,
    and results ordered by the vectors in a byte a dimension (in float16 unless under cosine).

    It aims at 95 % of the ten nearest. The shares that lie in the lists probed and that are then on the shortlist
    multiply, and rounding takes a little, so that each of the two aims at 98.5 %."""
    M = max(dim // 8, min(dim, 8))
    scanned = IVFIndex(quantizers.make("principal-product", dim=dim, M=M), metric=metric, recall_target=_RECALL)
    return RerankIndex(scanned, "int8" if metric == "cosine" else "float16", recall_target=_RECALL)


class GrowingIndex:
    """Vectors that come over time: few are kept as they are and compared one by one, exactly; once there are
    ``learn_at``, an index learns from them and takes them over, and later ones are coded as they come.

    The call that brings the vector that makes it ``learn_at`` takes as long as learning does, up to a minute or two.
    Where that must not happen by itself, give ``learn_at=None`` and call :meth:`learn`. What was learned stays: where
    later vectors are of another kind, build a new one.

    Methods may be called by several threads, and while the process forks.

    Args:
        index: what to learn and to put vectors into: an index with ``upsert``, empty. One that is fitted takes vectors
            from the first on. None: see :func:`default_index`.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``; that of ``index`` where one is given.
        learn_at: so many vectors are learned from, at least the entries of a codebook (256); None: none until
            :meth:`learn`.

    Raises:
        TypeError, ValueError: no such index, or one that holds vectors.
    """

    def __init__(
        self, index: Index | None = None, *, metric: str | None = None, learn_at: int | None = LEARN_AT
    ) -> None:
        if index is not None and not (isinstance(index, Index) and hasattr(index, "upsert")):
            raise TypeError(f"index must be an annvq index that has upsert, or None, got {type(index).__name__}")
        if index is not None and len(index):
            raise ValueError(f"index must be empty, got one of {len(index)} vectors")
        if index is not None and metric not in (None, index.metric):
            raise ValueError(f"metric must be {index.metric!r}, as index has, got {metric!r}")
        self.metric = index.metric if index is not None else check_metric(metric or "cosine")
        least = 256 if index is None else max(getattr(index.coder, "sizes", (1,)))
        self.learn_at = None if learn_at is None else positive_int(learn_at, "learn_at", low=least)
        self._index: Any = index
        self._first: _Unlearned | None = None if index is not None and index.coder.fitted else _Unlearned(self.metric)
        self._changing = Lock()

    @property
    def index(self) -> Index | None:
        """The index: given or, once there is something learned, made here."""
        return self._index

    @property
    def learned(self) -> bool:
        """Whether vectors are coded: an index has learned, or was given fitted."""
        return self._first is None

    @property
    def dim(self) -> int | None:
        """d of the vectors; None before the first."""
        if self._index is not None:
            return self._index.dim
        return None if self._first is None else self._first.dim

    def __len__(self) -> int:
        """Vectors that can be found."""
        first = self._first
        return len(self._index if first is None else first)

    def upsert(self, x: Array, ids: Array) -> None:
        """Keep ``x`` (n, d) under ``ids`` (int64, each once), in place of what has these ids.

        Raises:
            TypeError, ValueError: bad vectors or ids, or vectors that cannot be learned from; nothing has changed then.
        """
        rows = to_numpy(x, self.dim)
        given = check_ids(ids, len(rows))
        require_new(given, np.zeros(len(given), np.bool_))
        with self._changing:
            if self._first is None:
                self._index.upsert(rows, given)
                return
            first = self._first.checked(to_numpy(rows, self.dim))  # d again: another thread's may have been the first
            if self.learn_at is not None and first.count_with(given) >= self.learn_at:
                self._learn(first.copy().put(rows, given))
            else:
                first.put(rows, given)

    def learn(self) -> None:
        """Learn from the vectors that are there, and code them.

        Raises:
            ValueError: something was learned already, or there are too few vectors; nothing has changed then.
        """
        with self._changing:
            if self._first is None:
                raise ValueError("learn() must come once: the index has learned already")
            if not len(self._first):
                raise ValueError("learn() needs vectors to learn from, and there are none")
            self._learn(self._first)

    def _learn(self, first: "_Unlearned") -> None:
        rows, ids = first.arrays()
        index = self._index if self._index is not None else default_index(rows.shape[1], self.metric)
        try:
            index.fit(rows)
            index.add(rows, ids)
            index.search(rows[:1], 10)  # which measures how long shortlists must be: now, and not when somebody waits
        except BaseException:
            index.reset()  # the next upsert learns once more
            raise
        self._index = index
        self._first = None  # last: a search sees the one or the other

    def remove(self, ids: Array) -> None:
        """Forget the vectors of these ids.

        Raises:
            TypeError, ValueError: an id that is not there or comes twice; nothing has changed then.
        """
        given = check_ids(ids, None)
        with self._changing:
            if self._first is None:
                self._index.remove(given)
            else:
                self._first.remove(given)

    def reset(self) -> None:
        """Forget all vectors; what was learned stays."""
        with self._changing:
            if self._first is None:
                self._index.reset()
            else:
                self._first = _Unlearned(self.metric)

    def search(self, queries: Array, k: int, *, filter: Filter = None) -> tuple[F32, I64]:
        """The ``k`` nearest of each query, as :meth:`annvq.indexes.contract.Index.search` says; before anything was
        learned by exact distances."""
        first = self._first
        if first is None:
            found: tuple[F32, I64] = self._index.search(queries, k, filter=filter)
            return found
        return first.search(to_numpy(queries, self.dim, "queries", rows="nq"), positive_int(k, "k"), filter)

    def reconstruct(self, ids: Array) -> F32:
        """The vectors (n, d) of stored ids: as they came, or decoded once an index has learned.

        Raises:
            TypeError, ValueError: an id that is not there.
        """
        first = self._first
        if first is None:
            return self._index.reconstruct(ids)
        return first.rows_of(check_ids(ids, None))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, atomically. Once an index has learned it is that index's file, which
        :func:`annvq.load_index` reads, too."""
        check_path(path, "path")
        with self._changing:
            if self._first is None:
                self._index.save(path)
                return
            rows, ids = self._first.arrays()
            tensors: dict[str, Any] = {"vectors": rows, "ids": ids}
            if self._index is not None:
                tensors["index"] = np.frombuffer(self._index.to_bytes(), np.uint8)
            storage.write(path, FORMAT, VERSIONS[-1], {"metric": self.metric, "learn_at": self.learn_at}, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = False) -> Self:
        """Read what :meth:`save` wrote; ``mmap`` as :func:`annvq.load_index` has it.

        Raises:
            FileNotFoundError: no such file.
            FormatError: not such a file, truncated or corrupt.
        """
        check_path(path, "path")
        try:
            stored = storage.read(path, FORMAT, VERSIONS)
        except FormatError as error:
            if "annvq.index" not in str(error):
                raise
            made = cls.__new__(cls)
            made._index, made._first, made._changing = Index.load(path, mmap=mmap), None, Lock()
            made.metric, made.learn_at = made._index.metric, LEARN_AT
            return made
        try:
            index = Index.load(stored.tensors["index"].tobytes()) if "index" in stored.tensors else None
            made = cls(index, metric=stored.config["metric"], learn_at=stored.config["learn_at"])
            if len(stored.tensors["ids"]):
                rows = to_numpy(stored.tensors["vectors"], made.dim, "vectors")
                made._first = _Unlearned(made.metric).put(rows, check_ids(stored.tensors["ids"], len(rows)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{os.fspath(path)} holds vectors that do not fit together: {error!r}") from None
        return made


class _Unlearned:
    """Float vectors by id, compared one by one. Changes come one at a time; searches see them before or after one."""

    def __init__(self, metric: str, rows: dict[int, F32] | None = None) -> None:
        self._metric, self._rows = metric, rows or {}
        self._arrays: tuple[F32, I64] | None = None
        self._touching = Lock()

    @property
    def dim(self) -> int | None:
        """d; None without vectors."""
        with self._touching:
            return next((len(row) for row in self._rows.values()), None)

    def __len__(self) -> int:
        return len(self._rows)

    def checked(self, x: F32) -> Self:
        """This, once ``x`` is known to be what can be compared; ValueError naming a row otherwise."""
        if self._metric == "cosine":
            normalized(x)
        return self

    def count_with(self, ids: I64) -> int:
        """How many vectors there will be with those of these ids."""
        return len(self._rows) + sum(i not in self._rows for i in ids.tolist())

    def copy(self) -> "_Unlearned":
        return _Unlearned(self._metric, dict(self._rows))

    def put(self, x: F32, ids: I64) -> Self:
        with self._touching:
            self._rows.update(zip(ids.tolist(), x.copy(), strict=True))
            self._arrays = None
        return self

    def remove(self, ids: I64) -> None:
        gone = ids.tolist()
        if len(set(gone)) < len(gone) or not set(gone) <= self._rows.keys():
            raise ValueError(f"ids must be stored, and each come once, got {gone[:5]}")
        with self._touching:
            for number in gone:
                del self._rows[number]
            self._arrays = None

    def arrays(self) -> tuple[F32, I64]:
        """Vectors (n, d) and ids (n,), in the order of ids, made when they are first asked for after a change."""
        with self._touching:
            if self._arrays is None:
                ids = np.array(sorted(self._rows), np.int64)
                rows = np.stack([self._rows[i] for i in ids.tolist()]) if len(ids) else np.empty((0, 1), np.float32)
                self._arrays = rows, ids
            return self._arrays

    def rows_of(self, ids: I64) -> F32:
        rows, held = self.arrays()
        places = np.searchsorted(held, ids)
        known = places < len(held)
        known[known] = held[places[known]] == ids[known]
        if not known.all():
            raise ValueError(f"ids must be stored, got {ids[~known][:5].tolist()}")
        return rows[places]

    def search(self, queries: F32, k: int, filter: Filter) -> tuple[F32, I64]:
        rows, ids = self.arrays()
        if self._metric == "cosine":
            queries = normalized(queries, "queries")
        wanted = np.flatnonzero(np.isin(ids, allowed_among(resolve_filter(filter, lambda: ids), ids)))
        distances = np.full((len(queries), k), np.inf, np.float32)
        found = np.full((len(queries), k), -1, np.int64)
        step = max(1, _PAIRS // max(1, len(wanted)))
        for a in range(0, len(queries) if len(wanted) else 0, step):
            some = queries[a : a + step]
            candidates = np.ascontiguousarray(np.broadcast_to(wanted, (len(some), len(wanted))))
            near, at = _native.rerank_array(
                rows, "float32", some, candidates, min(k, len(wanted)), self._metric, get_num_threads()
            )
            distances[a : a + step, : near.shape[1]] = near
            found[a : a + step, : near.shape[1]] = np.where(at < 0, -1, ids[at])
        return distances, found
