"""Coarse search against sums in dimension order and a full sort, on every SIMD level."""

import numpy as np
import pytest

from annvq.kernels._native import CoarseSearch


def brute_force(centroids, queries, nprobe, squared):
    scores = np.zeros((len(queries), len(centroids)), np.float32)
    for j in range(centroids.shape[1]):
        q, c = queries[:, None, j], centroids[None, :, j]
        scores = scores + ((q - c) * (q - c) if squared else q * c)
    scores = scores if squared else -scores
    lists = np.broadcast_to(np.arange(len(centroids)), scores.shape)
    order = np.lexsort((lists, scores), axis=1)[:, :nprobe]
    return order, np.take_along_axis(scores, order, 1)


# Even, with ties, far from the origin, far and close together, and of very different lengths.
KINDS = {
    "even": lambda x, rng: x,
    "ties": lambda x, rng: np.round(x),
    "far": lambda x, rng: x + 1000,
    "close": lambda x, rng: 100 + x / 1000,
    "long": lambda x, rng: x * rng.lognormal(0, 4, size=(len(x), 1)),
    "huge": lambda x, rng: x * 1e17,
    "tiny": lambda x, rng: x * 1e-21,  # squares underflow
    "equal": lambda x, rng: np.ones_like(x),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("nlist", "dim", "nprobe"),
    [(1024, 128, 32), (1024, 19, 1), (1024, 40, 120), (130, 7, 3), (700, 33, 300), (64, 5, 64)],
)
def test_the_nearest_lists_in_order(level, kind, nlist, dim, nprobe):
    rng = np.random.default_rng(nlist + dim)
    centroids, queries = (KINDS[kind](rng.normal(size=(n, dim)), rng).astype(np.float32) for n in (nlist, 30))
    queries[0] = centroids[3]
    queries[1] = centroids.mean(0)
    for squared in (True, False):
        lists, scores = CoarseSearch(centroids).probe(queries, nprobe, squared, 2)
        expected, expected_scores = brute_force(centroids, queries, nprobe, squared)
        np.testing.assert_array_equal(scores, expected_scores)
        np.testing.assert_array_equal(lists, expected)
    assigned = CoarseSearch(centroids).assign(queries, 2)
    np.testing.assert_array_equal(assigned, brute_force(centroids, queries, 1, True)[0][:, 0])


def test_rows_too_far_for_float32_are_assigned_to_some_list(level):
    assigned = CoarseSearch(np.eye(200, 4, dtype=np.float32)).assign(np.full((50, 4), 3e38, np.float32), 1)
    assert ((assigned >= 0) & (assigned < 200)).all()
