"""Coarse centroids: which list a vector belongs to, and which lists are nearest to a query."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq.indexes.ivf.coarse import Coarse, default_nlist, near_ranks, train_centroids


def vectors(n, dim=12, seed=0, clusters=20):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dim)) * 3
    return (centers[rng.integers(clusters, size=n)] + rng.normal(size=(n, dim))).astype(np.float32)


def test_neighbours_in_the_order_of_queries_probe_near_lists():
    centroids = vectors(300)
    ranks = near_ranks(centroids)
    np.testing.assert_array_equal(np.sort(ranks), np.arange(300))
    chain = centroids[np.argsort(ranks)]
    steps, at_random = np.square(np.diff(chain, axis=0)).sum(1), np.square(np.diff(centroids, axis=0)).sum(1)
    assert steps.mean() < at_random.mean() / 2
    np.testing.assert_array_equal(np.sort(near_ranks(np.ones((9, 2), np.float32))), np.arange(9))
    coarse = Coarse(centroids, "l2")
    queries = vectors(200, seed=1)
    lists = coarse.probe(queries, 3)[0]
    order = coarse.order(lists)
    np.testing.assert_array_equal(np.sort(order), np.arange(200))
    assert (np.diff(ranks[lists[order, 0]]) >= 0).all()
    assert coarse.order(lists[:5]) is None


def test_default_nlist():
    assert [default_nlist(n) for n in (1, 10_000, 100_000, 1_000_000)] == [1, 312, 1264, 4000]


def test_many_lists_go_through_a_graph(monkeypatch):
    x = vectors(4000, seed=3, clusters=500)
    centroids = train_centroids(x, 300, 0)
    exact = {metric: Coarse(centroids, metric) for metric in ("l2", "ip")}
    expected = {metric: c.probe(x[:200], 20) for metric, c in exact.items()}
    lists = exact["l2"].assign(x)
    monkeypatch.setattr("annvq.indexes.ivf.coarse.EXACT_LISTS", 100)
    for metric in ("l2", "ip"):
        coarse = Coarse(centroids, metric)
        found, scores = coarse.probe(x[:200], 20)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(found, expected[metric][0], strict=True)]) > 19
        assert (np.diff(scores, axis=1) >= 0).all()
        for a, b in zip(Coarse(centroids, metric).probe(x[:200], 20), (found, scores), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (coarse.assign(x) == lists).mean() > 0.98
        assert (np.sort(coarse.probe(x[:3], 300)[0]) == np.arange(300)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 4), st.integers(0, 10**6))
def test_the_nearest_lists_in_order_ties_by_the_lower(nlist, nprobe, dim, seed):
    rng = np.random.default_rng(seed)
    centroids = rng.integers(-3, 4, size=(nlist, dim)).astype(np.float32)  # many ties
    queries = rng.integers(-3, 4, size=(30, dim)).astype(np.float32)
    for metric, scores in (
        ("l2", ((queries[:, None] - centroids) ** 2).sum(2)),
        ("ip", -(queries @ centroids.T)),
    ):
        found, values = Coarse(centroids, metric).probe(queries, nprobe)
        expected = np.argsort(scores, axis=1, kind="stable")[:, :nprobe]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, 1))
