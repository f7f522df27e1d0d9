"""Searching inverted lists: how many are scanned for each query, and what is found in them."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from annvq.arrays import chunks, positive_int
from annvq.indexes.filters import Allowed, most_allowed
from annvq.indexes.ivf.coarse import Coarse
from annvq.indexes.ivf.coding import ListCoding
from annvq.indexes.ivf.probing import Probing, widened
from annvq.kernels.store import CodeStore
from annvq.types import F32, I64

Scan: TypeAlias = Callable[[F32, int], tuple[F32, I64]]
"""For queries (nq, d) and how many lists to scan for each: distances and ids (nq, k)."""


class ListSearch(NamedTuple):
    """A search of lists of codes: the store that holds them, what scores them, centroids, and how many are probed."""

    store: CodeStore
    coding: ListCoding
    coarse: Coarse
    probing: Probing

    def find(self, queries: F32, k: int, allowed: Allowed, nprobe: int | None, wanted: int | None) -> tuple[F32, I64]:
        """Distances and ids (nq, k), see :meth:`StoreIndex.find <annvq.indexes.stored.StoreIndex.find>`."""
        n = len(self.store)
        return in_lists(
            lambda rows, probes: self._scan_chunks(rows, k, probes, allowed),
            self.probing,
            self.coarse.nlist,
            queries,
            k if wanted is None else wanted,
            most_allowed(allowed, n),
            n,
            nprobe,
        )

    def _scan_chunks(self, queries: F32, k: int, probes: int, allowed: Allowed) -> tuple[F32, I64]:
        coder = self.coding.quantizer
        distances, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for start, stop in chunks(len(queries), coder.M * max(coder.sizes)):
            found = self._scan(queries[start:stop], k, probes, allowed)
            distances[start:stop], ids[start:stop] = found
        return distances, ids

    def _scan(self, queries: F32, k: int, probes: int, allowed: Allowed) -> tuple[F32, I64]:
        lists, scores = self.coarse.probe(queries, probes)
        luts, bias, levels = self.coding.tables(queries)
        return self.store.search(
            luts,
            bias,
            k,
            norm_levels=levels,
            probes=lists,
            probe_bias=bias[:, None] + self.coding.per_length(scores) if self.coding.residual else None,
            order=self.coarse.order(lists),
            allowed=allowed,
        )


def in_lists(
    scan: Scan, probing: Probing, nlist: int, queries: F32, wanted: int, there: int, n: int, nprobe: int | None
) -> tuple[F32, I64]:
    """What scanning as many of ``nlist`` lists finds as a search of ``n`` vectors, of which a filter allows ``there``,
    takes for ``wanted`` results.

    Args:
        scan: scans them.
        probing: says how many.
        nprobe: how many, where that is given.
    """
    if nprobe is None:
        probes = widened(probing.for_neighbors(wanted, nlist, n), nlist, there, n)
    else:
        probes = positive_int(nprobe, "nprobe", high=nlist)
    distances, ids = scan(queries, probes)
    if nprobe is None and probing.given is None:
        _scan_on(scan, nlist, queries, min(wanted, there), probes, distances, ids)
    return distances, ids


def _scan_on(scan: Scan, nlist: int, queries: F32, wanted: int, probes: int, distances: F32, ids: I64) -> None:
    """Go on, for queries that found fewer than ``wanted`` in ``probes`` lists, with twice as many, again and again.

    What they find is put in place of their ``distances`` and ``ids`` (nq, k).
    """
    missing = np.flatnonzero(ids[:, wanted - 1] < 0) if wanted else np.empty(0, np.int64)
    while len(missing) and probes < nlist:
        probes = min(nlist, 2 * probes)
        distances[missing], ids[missing] = scan(queries[missing], probes)
        missing = missing[ids[missing, wanted - 1] < 0]
