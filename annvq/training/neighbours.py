"""More vectors like those that there are, for what would learn too few by heart."""

import numpy as np

from annvq.training.learn.kmeans import cluster
from annvq.types import F32

CLUSTER_ROWS = 50  # rows of a cluster, on average
MOST_CLUSTERS = 4096  # k-means of more takes longer than learning; clusters of many rows are larger then
ITERATIONS = 8  # of k-means


def between_neighbours(x: F32, count: int, seed: int) -> F32:
    """``count`` vectors (count, d) made of rows of ``x`` (n, d) and others of their clusters.

    With m the mean of a cluster, and y and z two of its rows, a new vector is m + a·(y − m) + b·(z − m), a² + b² = 1:
    it has the mean and the covariances of the cluster. (Interpolation, a + b = 1, would make clusters narrower.)
    """
    rng = np.random.default_rng(seed)
    clusters = min(MOST_CLUSTERS, max(1, len(x) // CLUSTER_ROWS))
    centres = cluster(x, clusters, ITERATIONS, seed)
    nearest = _nearest(x, centres)
    order = np.argsort(nearest, kind="stable")
    counts = np.bincount(nearest, minlength=clusters)
    first = np.cumsum(counts) - counts
    sums = np.add.reduceat(x[order].astype(np.float64), first[counts > 0], axis=0)
    means = np.zeros((clusters, x.shape[1]), np.float32)
    means[counts > 0] = sums / counts[counts > 0, None]
    one = rng.integers(0, len(x), count)
    group = nearest[one]
    other = order[first[group] + (rng.random(count) * counts[group]).astype(np.int64)]
    angle = rng.uniform(0, np.pi / 2, count).astype(np.float32)[:, None]
    middle = means[group]
    made: F32 = middle + np.cos(angle) * (x[one] - middle) + np.sin(angle) * (x[other] - middle)
    return made


def _nearest(x: F32, centres: F32) -> np.ndarray:
    """The number of each row's nearest centre, (n,)."""
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(centres)
    found: np.ndarray = index.search(np.ascontiguousarray(x), 1)[1][:, 0]
    return found
