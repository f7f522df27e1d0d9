"""The coarse part of an inverted file: centroids, the list of each vector, the lists nearest to each query.

Up to :data:`EXACT_LISTS` centroids are compared one by one, in one fixed order of summation, so that assignment and
probing never depend on batch, threads or SIMD level. More are searched by an HNSW graph (faiss; Malkov and Yashunin,
TPAMI 2018), whose candidates are compared again in that order; only full probing is independent of the graph then.
Where faiss is not installed, they are compared one by one too, which takes longer.
"""

from functools import cache
from typing import Any

import numpy as np

from annvq.forks import Lock
from annvq.kernels._native import CoarseSearch
from annvq.threads import get_num_threads
from annvq.training.learn.incremental import cluster_incrementally
from annvq.training.learn.kmeans import cluster
from annvq.types import F32, I32, I64

EXACT_LISTS = 1 << 14
"""From this many lists on, centroids are searched by HNSW."""

MAX_LISTS = 1 << 24
ROWS_PER_LIST = 256
"""At most so many rows per list train the centroids, a seeded sample."""

LARGE = 1 << 38
"""Multiplications in an iteration of k-means, rows × lists × dimensions, from which on centroids are learned by
:func:`~annvq.training.learn.incremental.cluster_incrementally`: FAISS' k-means, by which fewer are, as they were in
earlier versions, would take more than a minute and a half of one core."""

_HELD_OUT = 1_000
_LEARN_ROWS = 1 << 18
_FEW_QUERIES = 32
_ALIKE, _PARTS = 8, 4096  # centroids whose order is left as it is; where they are many, at most about so many parts
_LINKS, _EF_CONSTRUCTION, _SPARE = 32, 80, 16


def default_nlist(n: int) -> int:
    """4·√n lists, but no more than one for every 32 vectors: 312 for 10k, 1,264 for 100k, 4,000 for 1M."""
    return max(1, min(int(4 * n**0.5), n // 32))


def learn_split(n: int, nlist: int | None, seed: int) -> tuple[I64, I64]:
    """Of ``n`` learn vectors, the numbers of those to learn from and of those held out of them to ask with."""
    limit = max(_LEARN_ROWS, ROWS_PER_LIST // 4 * (nlist or 0))
    order = np.random.default_rng(seed).permutation(n)[:limit]
    held = min(_HELD_OUT, len(order) // 20)
    return np.sort(order[held:]), np.sort(order[:held])


def train_centroids(x: F32, nlist: int, seed: int) -> F32:
    """``nlist`` centroids (nlist, d) of ``x`` (n, d) by k-means; the distinct rows themselves where they are fewer."""
    if len(x) > ROWS_PER_LIST * nlist:
        x = x[np.sort(np.random.default_rng(seed).choice(len(x), ROWS_PER_LIST * nlist, replace=False))]
    if len(x) < 8 * nlist:  # k-means needs distinct rows to start from
        distinct = np.unique(x, axis=0)
        if len(distinct) <= nlist:
            return distinct
    if x.size * nlist >= LARGE:
        return cluster_incrementally(x, nlist, seed)
    return cluster(x, nlist, iterations=20 if nlist <= EXACT_LISTS else 10, seed=seed)


def near_ranks(x: F32) -> I64:
    """A number for each row of ``x`` (n, d), 0 … n−1, such that rows with near numbers lie near one another.

    Rows are halved, again and again, by how they lie along the line between two that are far apart, down to a few.
    """
    ranks = np.empty(len(x), np.int64)
    alike = max(_ALIKE, len(x) // _PARTS)
    parts = [(np.arange(len(x)), 0)]
    while parts:
        rows, start = parts.pop()
        if len(rows) <= alike:
            ranks[rows] = np.arange(start, start + len(rows))
            continue
        own = x[rows]
        one = own[np.argmax(np.square(own - own.mean(0)).sum(1))]
        other = own[np.argmax(np.square(own - one).sum(1))]
        rows = rows[np.argsort(own @ (other - one), kind="stable")]
        half = len(rows) // 2
        parts += [(rows[:half], start), (rows[half:], start + half)]
    return ranks


class Coarse:
    """Centroids that vectors are assigned to and queries probe.

    Vectors belong to the centroid nearest in Euclidean distance, the first one where several are. Lists are probed in
    the order of ‖q − C‖² for l2, of −⟨q, C⟩ otherwise, the lower list first where two are equal.

    Args:
        centroids: (nlist, d) finite.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
    """

    def __init__(self, centroids: F32, metric: str) -> None:
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        self.squared = metric == "l2"
        self._graphs: dict[bool, Any] = {}
        self._search = CoarseSearch(self.centroids)
        self._ranks: I64 | None = None
        self._lock = Lock()

    @property
    def nlist(self) -> int:
        return len(self.centroids)

    def assign(self, x: F32) -> I32:
        """The list of each row, (n,) int32."""
        if self._has_graph:
            return self._by_graph(x, 1, squared=True)[0][:, 0]
        lists: I32 = self._search.assign(x, get_num_threads())
        return lists

    def probe(self, queries: F32, nprobe: int) -> tuple[I32, F32]:
        """The ``nprobe`` nearest lists of each query and their scores, nearest first, (nq, nprobe) each."""
        count = min(nprobe, self.nlist)
        if count <= self.nlist // 8 and self._has_graph:
            return self._by_graph(queries, count, self.squared)
        return _nearest(self._search, queries, count, self.squared)

    def order(self, lists: I32) -> I64 | None:
        """Queries in an order in which neighbours probe much the same lists, or None where they are too few to matter.

        Args:
            lists: (nq, nprobe), as :meth:`probe` gave them.
        """
        if len(lists) < _FEW_QUERIES or self.nlist < 2:
            return None
        with self._lock:
            if self._ranks is None:
                self._ranks = near_ranks(self.centroids)
        first = self._ranks[lists[:, 0]]
        second = self._ranks[lists[:, min(1, lists.shape[1] - 1)]]
        return np.argsort(first * np.int64(self.nlist) + second, kind="stable")

    # -- many lists ----------------------------------------------------------------------------------------------

    @property
    def _has_graph(self) -> bool:
        """Whether there are so many that a graph finds them, and a library that builds it."""
        return self.nlist > EXACT_LISTS and _graphs_can_be_built()

    def _graph(self, squared: bool) -> Any:
        """The graph over the centroids, built by one thread when first needed: same centroids, same graph."""
        import faiss
        from threadpoolctl import threadpool_limits

        with self._lock:
            if squared not in self._graphs:
                kind = faiss.METRIC_L2 if squared else faiss.METRIC_INNER_PRODUCT
                graph = faiss.IndexHNSWFlat(self.centroids.shape[1], _LINKS, kind)
                graph.hnsw.efConstruction = _EF_CONSTRUCTION
                with threadpool_limits(1):
                    graph.add(self.centroids)
                self._graphs[squared] = graph
            return self._graphs[squared]

    def _by_graph(self, x: F32, count: int, squared: bool) -> tuple[I32, F32]:
        import faiss

        wanted = min(self.nlist, count + _SPARE)
        search = faiss.SearchParametersHNSW(efSearch=max(64, 2 * wanted))  # type: ignore[attr-defined]
        found = self._graph(squared).search(x, wanted, params=search)[1]
        lists, scores = np.empty((len(x), count), np.int32), np.empty((len(x), count), np.float32)
        for i, row in enumerate(found):
            candidates = np.unique(row[row >= 0]).astype(np.int32)
            if len(candidates) < count:  # a graph may leave centroids unreachable
                candidates = np.arange(self.nlist, dtype=np.int32)
            best, values = _nearest(CoarseSearch(self.centroids[candidates]), x[i : i + 1], count, squared)
            lists[i], scores[i] = candidates[best[0]], values[0]
        return lists, scores


@cache
def _graphs_can_be_built() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def _nearest(search: CoarseSearch, queries: F32, count: int, squared: bool) -> tuple[I32, F32]:
    return search.probe(queries, count, squared, get_num_threads())
