"""Exact neighbours against a float64 brute force written here, with ties, large offsets and every metric."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq.datasets import exact_neighbors, groundtruth


def reference(base, queries, k, metric):
    """All distances in float64, one query at a time, ordered by (distance, id)."""
    base, queries = base.astype(np.float64), queries.astype(np.float64)
    ids, distances = [], []
    for q in queries:
        if metric == "l2":
            row = np.array([np.sum((x - q) ** 2) for x in base])
        elif metric == "ip":
            row = np.array([-np.sum(x * q) for x in base])
        else:
            norms = [np.sqrt(np.sum(x * x)) * np.sqrt(np.sum(q * q)) for x in base]
            row = np.array([1 - np.sum(x * q) / norm for x, norm in zip(base, norms, strict=True)])
        order = np.lexsort((np.arange(len(row)), row))[:k]
        ids.append(order)
        distances.append(row[order])
    return np.array(ids), np.array(distances)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_agrees_with_brute_force(metric, k, monkeypatch):
    monkeypatch.setattr(groundtruth, "_BASE_BLOCK", 128)
    monkeypatch.setattr(groundtruth, "_QUERY_BLOCK", 7)
    rng = np.random.default_rng(k)
    base = rng.standard_normal((500, 9)).astype(np.float32)
    queries = rng.standard_normal((30, 9)).astype(np.float32)
    ids, distances = exact_neighbors(base, queries, k, metric)
    expected_ids, expected = reference(base, queries, k, metric)
    assert ids.dtype == np.int64
    assert distances.dtype == np.float32
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ties_go_to_the_smaller_id(data):
    """Small integers make ties by the dozen; every order is then decided by ids."""
    n, d = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 5))
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.float16, np.float32]))
    metric = data.draw(st.sampled_from(["l2", "ip"]))
    base, queries = rng.integers(0, 3, (n, d)).astype(dtype), rng.integers(0, 3, (4, d)).astype(dtype)
    ids, distances = exact_neighbors(base, queries, k, metric)
    expected_ids, expected = reference(base, queries, k, metric)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(distances, expected.astype(np.float32))


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-3, 1e3), (1e19, 0), (1e-22, 0), (1e-6, 1)], ids=["far", "huge", "tiny", "near"]
)
def test_float32_rounding_decides_nothing(metric, scale, offset, caplog):
    """Values whose float32 scores overflow, vanish or drown in rounding; the float64 pass must step in."""
    caplog.set_level(logging.INFO, "annvq.datasets")
    rng = np.random.default_rng(5)
    base = (rng.standard_normal((2000, 16)) * scale + offset).astype(np.float32)
    queries = (rng.standard_normal((40, 16)) * scale + offset).astype(np.float32)
    ids, _ = exact_neighbors(base, queries, 20, metric)
    expected_ids, _ = reference(base, queries, 20, metric)
    np.testing.assert_array_equal(ids, expected_ids)
    if metric == "l2":
        assert "need float64" in caplog.text


def test_all_rows_equal():
    base = np.full((3000, 4), 7, np.uint8)
    ids, distances = exact_neighbors(base, base[:3] + 1, 100)
    np.testing.assert_array_equal(ids, np.tile(np.arange(100), (3, 1)))
    assert (distances == 4).all()


def test_does_not_change_its_input():
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((2, 200, 8)).astype(np.float32)
    before = base.copy(), queries.copy()
    for metric in ("l2", "ip", "cosine"):
        exact_neighbors(base, queries, 5, metric)
    np.testing.assert_array_equal(base, before[0])
    np.testing.assert_array_equal(queries, before[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 11}, "k=11 exceeds the 10 base vectors"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"metric": "hamming"}, "metric must be one of l2, ip, cosine, got 'hamming'"),
        ({"queries": np.zeros((2, 3), np.float32)}, "base has dimension 4, queries have 3"),
        ({"queries": np.zeros((0, 4), np.float32)}, r"queries is empty: shape \(0, 4\)"),
        ({"queries": np.zeros(4, np.float32)}, r"queries must be two-dimensional .* got shape \(4,\)"),
        ({"queries": np.full((2, 4), np.nan, np.float32)}, "queries row 0 holds values that are not finite"),
        (
            {"base": np.diag([1, 2, np.inf, 4, 5, 6, 7, 8, 9, 10])[:, :4].astype(np.float32)},
            "base row 2 holds",
        ),
        ({"base": np.zeros((10, 4), np.int32)}, "base must hold uint8, .* got int32"),
        ({"metric": "cosine", "base": np.eye(10, 4, dtype=np.float32)}, "base row 4 is a zero vector"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "base": np.ones((10, 4), np.float32),
        "queries": np.ones((2, 4), np.float32),
        "k": 3,
        "metric": "l2",
        **change,
    }
    with pytest.raises(ValueError, match=message):
        exact_neighbors(**arguments)


def _vectors(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 100, 6)).astype(np.float32)


def test_cached_answers_come_from_disk(monkeypatch, data_dir):
    base, queries = _vectors()
    first = groundtruth.cached_neighbors(base, queries, 5, "l2")
    monkeypatch.setattr(groundtruth, "exact_neighbors", lambda *a, **k: pytest.fail("computed again"))
    second = groundtruth.cached_neighbors(base.copy(), queries, 5, "l2")
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert len(list((data_dir / "groundtruth").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("change", ["base", "queries", "k", "metric", "dtype"])
def test_the_cache_tells_questions_apart(change, data_dir):
    base, queries = _vectors()
    k, metric = 5, "l2"
    groundtruth.cached_neighbors(base, queries, k, metric)
    if change == "base":
        base = base + np.float32(1)
    elif change == "queries":
        queries = queries[::-1]
    elif change == "dtype":
        base = base.astype(np.float16)
    else:
        k, metric = (6, "l2") if change == "k" else (5, "ip")
    got = groundtruth.cached_neighbors(base, queries, k, metric)
    np.testing.assert_array_equal(got[0], reference(base, queries, k, metric)[0])
    assert len(list((data_dir / "groundtruth").glob("*.safetensors"))) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "cut"])
def test_a_damaged_cache_is_computed_again(damage, data_dir):
    base, queries = _vectors()
    first = groundtruth.cached_neighbors(base, queries, 5, "l2")
    (path,) = (data_dir / "groundtruth").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-8] if damage is None else damage)
    again = groundtruth.cached_neighbors(base, queries, 5, "l2")
    np.testing.assert_array_equal(first[0], again[0])


def test_an_unwritable_cache_folder_only_costs_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "file" / "folder"))
    base, queries = _vectors()
    ids, _ = groundtruth.cached_neighbors(base, queries, 5, "l2")
    np.testing.assert_array_equal(ids, reference(base, queries, 5, "l2")[0])
    assert "set ANNVQ_DATA to a writable folder" in caplog.text
