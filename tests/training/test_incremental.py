"""K-means in parts of passes, against Lloyd's algorithm in float64."""

import numpy as np
import pytest

import annvq
from annvq import kernels
from annvq.indexes.ivf import coarse
from annvq.training.learn import incremental
from annvq.training.learn.incremental import cluster_incrementally


def groups(n, d, count, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, d))
    return (means[rng.integers(0, count, n)] + 0.7 * rng.normal(size=(n, d))).astype(np.float32)


def distances(x, centroids):
    return np.square(x[:, None].astype(np.float64) - centroids[None]).sum(2)


def lloyd(x, count, iterations):
    centroids = x[np.random.default_rng(5).choice(len(x), count, replace=False)].astype(np.float64)
    for _ in range(iterations):
        own = distances(x, centroids).argmin(1)
        centroids = np.stack([x[own == c].mean(0) if (own == c).any() else centroids[c] for c in range(count)])
    return centroids


def test_it_is_as_good_as_25_iterations():
    x = groups(6000, 8, 200)
    error = distances(x, cluster_incrementally(x, 60, 0)).min(1).mean()
    assert error < 1.005 * distances(x, lloyd(x, 60, 25)).min(1).mean()


def test_centroids_are_means_of_their_rows():
    x = groups(4000, 5, 40)
    centroids = cluster_incrementally(x, 40, 3, passes=40)
    own = distances(x, centroids).argmin(1)
    assert len(np.unique(own)) == 40
    means = np.stack([x[own == c].mean(0, dtype=np.float64) for c in range(40)])
    np.testing.assert_allclose(centroids, means, atol=0.02)


@pytest.mark.parametrize("dim", [5, 40])
def test_the_same_at_every_level_and_on_any_threads(dim):
    x, before, threads = groups(3000, dim, 300), kernels.simd_level(), annvq.get_num_threads()
    try:
        annvq.set_num_threads(1)
        expected = cluster_incrementally(x, 200, 1, passes=3)
        annvq.set_num_threads(2)
        for level in kernels.available_levels():
            kernels.set_simd_level(level)
            np.testing.assert_array_equal(cluster_incrementally(x, 200, 1, passes=3), expected)
    finally:
        kernels.set_simd_level(before)
        annvq.set_num_threads(threads)


def test_rows_that_repeat():
    x = np.repeat(groups(30, 4, 30), 20, axis=0)
    centroids = cluster_incrementally(x, 40, 0)
    assert np.isfinite(centroids).all()
    assert distances(x, centroids).min(1).mean() < 0.05 * x.var(0).sum()


def test_where_lists_are_learned_so(monkeypatch):
    x = groups(2000, 6, 30)
    usual = coarse.train_centroids(x, 30, 4)
    assert not np.array_equal(usual, cluster_incrementally(x, 30, 4))
    monkeypatch.setattr(coarse, "LARGE", 2000 * 6 * 30)
    np.testing.assert_array_equal(coarse.train_centroids(x, 30, 4), cluster_incrementally(x, 30, 4))
    monkeypatch.setattr(coarse, "LARGE", 2000 * 6 * 30 + 1)
    np.testing.assert_array_equal(coarse.train_centroids(x, 30, 4), usual)


def test_rows_are_given_back_as_they_were():
    x = groups(500, 3, 10)
    before = x.copy()
    cluster_incrementally(x, 10, 0, passes=incremental.SETTLING)
    np.testing.assert_array_equal(x, before)
