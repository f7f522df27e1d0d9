"""K-means of rows that several processes hold, each a share of them."""

import numpy as np

from annvq.codebooks import row_products
from annvq.kernels._native import CoarseSearch
from annvq.threads import get_num_threads
from annvq.training.learn.axes import principal_axes
from annvq.training.learn.least_squares import entry_sums
from annvq.training.learn.shares import Alone
from annvq.types import F32, I64

NUDGE = 1 / 1024  # by which the two halves of a cluster that is split differ, as in FAISS
STEPS = 10  # numbers of components, as in FAISS


def shared_cluster(x: F32, count: int, iterations: int, seed: int, processes: Alone) -> F32:
    """``count`` centroids (count, d) of the rows x (n, d) of all processes, n ≥ count in all: Lloyd's algorithm from
    rows drawn at random. A cluster without rows takes half of one that has many."""
    rng = np.random.default_rng(seed)
    first, total = processes.span(len(x))
    start = processes.picked(x, rng.choice(total, count, replace=False), first)
    return _lloyd(x, start, iterations, rng, processes)


def shared_cluster_progressively(x: F32, count: int, iterations: int, seed: int, processes: Alone) -> F32:
    """The same on ever more principal components, each time from the centroids before."""
    d, rng = x.shape[1], np.random.default_rng(seed)
    first, total = processes.span(len(x))
    if total <= d:  # too few for principal components
        return shared_cluster(x, count, iterations, seed, processes)
    axes = np.ascontiguousarray(principal_axes(x, processes)[1][:, ::-1].T, dtype=np.float32)
    turned = row_products(x, axes)
    stages = [int(d ** (step / STEPS) + 1e-9) for step in range(1, STEPS + 1)]
    centroids = processes.picked(turned, rng.choice(total, count, replace=False), first)
    centroids[:, stages[0] :] = 0  # in components that none has been found in yet
    for dims in stages:
        part, start = (np.ascontiguousarray(a[:, :dims]) for a in (turned, centroids))
        centroids[:, :dims] = _lloyd(part, start, iterations, rng, processes)
    return row_products(centroids, np.ascontiguousarray(axes.T))


def _lloyd(x: F32, centroids: F32, iterations: int, rng: np.random.Generator, processes: Alone) -> F32:
    sizes, (rows, *rest) = [len(centroids)], processes.summable(x)
    counted = [np.pad(rows, ((0, 0), (0, 1)), constant_values=1), *(np.pad(part, ((0, 0), (0, 1))) for part in rest)]
    for _ in range(iterations):
        codes = CoarseSearch(centroids).assign(x, get_num_threads())[:, None]
        sums = entry_sums(counted, codes, sizes, processes)
        counts = sums[:, -1]
        used = counts > 0
        moved = centroids.copy()
        moved[used] = sums[used, :-1] / counts[used, None]
        split_clusters(moved, counts.astype(np.int64), rng)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def split_clusters(centroids: F32, counts: I64, rng: np.random.Generator) -> None:
    """Give every centroid without rows half of a cluster, drawn by its rows; in place."""
    nudge = np.where(np.arange(centroids.shape[1]) % 2, -NUDGE, NUDGE).astype(np.float32)
    for empty in np.flatnonzero(counts == 0):
        weights = np.maximum(counts - 1, 0)
        if not weights.any():  # fewer different rows than centroids
            return
        full = rng.choice(len(counts), p=weights / weights.sum())
        centroids[empty] = centroids[full] * (1 + nudge)
        centroids[full] *= 1 - nudge
        counts[empty] = counts[full] // 2
        counts[full] -= counts[empty]
