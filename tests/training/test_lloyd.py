"""K-means over processes, against Lloyd's algorithm in plain NumPy."""

import numpy as np
import pytest

from annvq.training import Processes
from annvq.training.learn.kmeans import cluster, cluster_progressively


@pytest.fixture
def processes():
    with Processes.started() as one:
        yield one


def reference(x, centroids, iterations):
    """Lloyd's algorithm in float64, of clusters that keep rows."""
    centroids = centroids.astype(np.float64)
    for _ in range(iterations):
        nearest = np.square(x[:, None] - centroids[None].astype(np.float32)).sum(2).argmin(1)
        centroids = np.stack([x[nearest == k].mean(0, dtype=np.float64) for k in range(len(centroids))])
    return centroids


def test_means_are_those_of_the_reference(processes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 5)).astype(np.float32)
    start = x[np.random.default_rng(4).choice(700, 12, replace=False)]  # rows that the seed draws
    found = cluster(x, 12, 7, 4, processes)
    np.testing.assert_allclose(found, reference(x, start, 7), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learn", [cluster, cluster_progressively])
def test_errors_are_those_of_faiss(learn, processes):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(2000, 16)) * np.linspace(3, 0.3, 16)).astype(np.float32)
    mine, its = (
        np.square(x[:, None] - found[None]).sum(2).min(1).mean()
        for found in (learn(x, 32, 10, 0, processes), learn(x, 32, 10, 0))
    )
    assert mine < 1.05 * its


def test_clusters_without_rows_take_half_of_others(processes):
    """Where half of the rows are equal, about half of the first centroids are, and all but one of these useless."""
    rest = np.linspace(1, 2, 300, dtype=np.float32)
    x = np.concatenate([np.zeros(300, np.float32), rest])[:, None]
    found = np.sort(cluster(x, 8, 40, 0, processes)[:, 0])
    assert found[0] == 0
    assert np.abs(rest[:, None] - found[1:]).min(1).max() < 0.13  # the best seven have at most 1/14


def test_fewer_different_rows_than_centroids(processes):
    assert np.isfinite(cluster(np.ones((5, 2), np.float32), 5, 3, 0, processes)).all()


def test_progressively_of_fewer_rows_than_dimensions(processes):
    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    found = cluster_progressively(x, 6, 3, 0, processes)
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(x, axis=0))
