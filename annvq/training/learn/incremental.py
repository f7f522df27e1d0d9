"""K-means for many rows and many centroids: centroids move several times in each pass over the rows.

Every row counts once, in the cluster that it was last found nearest to, so sums are brought up to date part by part
instead of pass by pass, as in nested mini-batches (Newling and Fleuret, NIPS 2016) and MacQueen's k-means. Centroids
are moved beyond the mean of their rows until the last passes (over-relaxation), which takes them there in fewer steps.
The nearest centroid is found by :meth:`CoarseSearch.assign`, exactly. No row is passed over and none left out.
"""

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.kernels._native import CoarseSearch
from annvq.threads import get_num_threads
from annvq.training.learn.least_squares import indicator
from annvq.training.learn.lloyd import split_clusters
from annvq.types import F32, F64, I32, I64

PASSES = 14
"""Passes over the rows: as good as 25 iterations of Lloyd's algorithm."""

PARTS = 8  # of a pass, after each of which centroids move
BEYOND, SETTLING = 1.7, 2  # how far they move, in distances to the mean; in so many last passes just to it


def cluster_incrementally(x: F32, count: int, seed: int, passes: int = PASSES) -> F32:
    """``count`` centroids (count, d) of ``x`` (n, d), n ≥ count. The same on any number of threads and at every SIMD
    level."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    clusters = _Clusters(x, x[order[:count]])
    parts = [np.sort(part) for part in np.array_split(order, PARTS)]
    for number in range(passes):
        for part in parts:
            clusters.take(part)
            clusters.move(BEYOND if number < passes - SETTLING else 1.0)
        split_clusters(clusters.centroids, clusters.counts.copy(), rng)
    return clusters.centroids


class _Clusters:
    """Which rows of ``x`` (n, d) belong to which centroid, and what these add up to."""

    def __init__(self, x: F32, centroids: F32) -> None:
        self.x, self.centroids = x, centroids
        self.own = np.full(len(x), -1, np.int32)
        self.sums: F64 = np.zeros(centroids.shape)
        self.counts = np.zeros(len(centroids), np.int64)

    def take(self, rows: I64) -> None:
        """Let ``rows`` (m,), which differ, belong to the centroids that are nearest now."""
        search, threads = CoarseSearch(self.centroids), get_num_threads()
        for start, stop in chunks(len(rows), self.x.shape[1]):
            these = rows[start:stop]
            values = self.x[these]
            nearest, before = search.assign(values, threads), self.own[these]
            self.own[these] = nearest
            came, left = nearest != before, (nearest != before) & (before >= 0)
            self._add(values[came], nearest[came], 1)
            self._add(values[left], before[left], -1)

    def _add(self, values: F32, own: I32, sign: int) -> None:
        members = indicator(own[:, None], [len(self.centroids)]).T
        self.sums += sign * (members @ values)
        self.counts += sign * np.bincount(own, minlength=len(self.counts))

    def move(self, share: float) -> None:
        """Bring centroids ``share`` of the way to the mean of their rows; those without rows stay."""
        used: npt.NDArray[np.bool_] = self.counts > 0
        means = self.sums[used] / self.counts[used, None]
        self.centroids[used] += np.float32(share) * (means.astype(np.float32) - self.centroids[used])
