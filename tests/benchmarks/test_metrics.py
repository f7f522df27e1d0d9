"""Recall and error against definitions written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq.benchmarks import metrics


def brute(base, queries, metric):
    q, b = queries.astype(np.float64), base.astype(np.float64)
    if metric == "cosine":
        q, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, b))
    return ((q[:, None] - b[None]) ** 2).sum(-1) if metric == "l2" else 1 - q @ b.T if metric == "cosine" else -q @ b.T


def recalls(ids, base, queries, neighbors, metric):
    return metrics.recalls(metrics.hits(ids, base, queries, neighbors, metric))


@given(seed=st.integers(0, 1000), levels=st.integers(2, 4), metric=st.sampled_from(["l2", "ip"]))
@settings(max_examples=40, deadline=None)
def test_any_choice_among_ties_has_full_recall(seed, levels, metric):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, levels, (200, 3)).astype(np.float32)  # many duplicates
    queries = rng.integers(0, levels, (7, 3)).astype(np.float32)
    distances = brute(base, queries, metric)
    order = np.argsort(distances, axis=1, kind="stable")
    # The same distances, ties in another order.
    shuffled = np.stack([np.lexsort((rng.random(200), row)) for row in distances])
    got = recalls(shuffled[:, :100], base, queries, order[:, :100], metric)
    assert got == {"recall@1": 1.0, "recall@10": 1.0, "recall@100": 1.0, "10-recall@10": 1.0}


def test_recall_counts_what_it_says():
    base = np.arange(300, dtype=np.float32)[:, None]
    queries = np.zeros((4, 1), dtype=np.float32)
    truth = np.tile(np.arange(100), (4, 1))
    ids = np.tile(np.arange(200, 300), (4, 1))
    ids[0, 0] = 0  # first
    ids[1, 9] = 0  # tenth
    ids[2, 99] = 0  # hundredth
    ids[3, :5] = [1, 2, 3, 4, 5]
    got = recalls(ids, base, queries, truth, "l2")
    assert got == {
        "recall@1": 0.25,
        "recall@10": 0.5,
        "recall@100": 0.75,
        "10-recall@10": (1 + 1 + 0 + 5) / 40,
    }


def test_missing_and_repeated_results_do_not_count():
    base = np.arange(30, dtype=np.float32)[:, None]
    queries = np.zeros((1, 1), dtype=np.float32)
    truth = np.arange(10)[None]
    ids = np.full((1, 10), -1)
    assert recalls(ids, base, queries, truth, "l2")["10-recall@10"] == 0
    ids[:] = 3
    assert recalls(ids, base, queries, truth, "l2")["10-recall@10"] == 0.1


def test_recall_is_null_where_there_is_too_little():
    base = np.arange(5, dtype=np.float32)[:, None]
    order = np.arange(5)[None]
    got = recalls(order, base, np.zeros((1, 1), np.float32), order, "l2")
    assert got == {"recall@1": 1.0, "recall@10": None, "recall@100": None, "10-recall@10": None}


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_exact_distances(metric, dtype, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_VALUES", 100)
    rng = np.random.default_rng(0)
    base, queries = (rng.integers(1, 200, (n, 6)).astype(dtype) for n in (50, 9))
    ids = rng.integers(0, 50, (9, 4))
    ids[0, 0] = -1
    got = metrics.exact_distances(base, queries, ids, metric)
    expected = np.take_along_axis(brute(base, queries, metric), np.maximum(ids, 0), axis=1)
    expected[0, 0] = np.inf
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_errors_and_their_parts():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 103, 5)).astype(np.float32)
    expected = ((x.astype(np.float64) - y) ** 2).sum(1)
    got = metrics.squared_errors(x, lambda a, b: y[a:b], step=10)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    row = metrics.mean_error(got)
    assert row["mse"] == pytest.approx(expected.mean(), rel=1e-12)
    parts = np.array_split(expected, 32)
    np.testing.assert_allclose(row["mse_blocks"], [p.mean() for p in parts], rtol=1e-12)
    assert metrics.mean_error(metrics.squared_errors(x, lambda a, b: None)) == {"mse": None}


def test_hits_are_of_each_query():
    base = np.arange(300, dtype=np.float32)[:, None]
    truth = np.tile(np.arange(100), (2, 1))
    ids = np.tile(np.arange(200, 300), (2, 1))
    ids[0, :3] = [3, 4, 0]
    got = metrics.hits(ids, base, np.zeros((2, 1), np.float32), truth, "l2")
    assert {name: list(c) for name, c in got.items()} == {
        "recall@1": [0, 0],
        "recall@10": [1, 0],
        "recall@100": [1, 0],
        "10-recall@10": [3, 0],
    }
