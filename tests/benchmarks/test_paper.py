"""Suites of kind paper: what they measure, and how ours is set beside a copy of the published figures."""

import json
import math
import re

import numpy as np
import pytest

from annvq import complexity
from annvq.benchmarks import load_suite, metrics, run
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.kinds.paper import published, reporting
from annvq.benchmarks.statistics import Figure

SUITE = """
kind = "paper"
title = "small"
threads = 1
sets = [{ data = "correlated", d = 8 }, { data = "uncorrelated", d = 8 }]
bits = [8]
steps = 30
n_learn = 600
n_test = 300
beam = 4
recall = { M = 2, nbits = 4, beam = 4, steps = 30 }
datasets = ["absent.npy"]
"""
BITS = ["8 bits", "12 bits"]
METHODS = ("AVQ", "RVQ", "PVQ")


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return load_suite(path)


@pytest.fixture
def copy(tmp_path):
    """A folder of figures in the authors' form, with values of our own."""
    folder = tmp_path / "published"
    (folder / "Figure 4").mkdir(parents=True)

    def write(name, **data):
        (folder / name).write_text(json.dumps(data))

    def means(**values):
        return {f"Mean ({m})": v for m, v in values.items()}

    errors = means(AVQ=[20.0, 10.0], RVQ=[30.0, 15.0], PVQ=[40.0, 20.0])
    write("correlated_dataset_Fig2-a.json", Metric="MSE", Data="Correlated", **{"VQ Bitrate": BITS}, **errors)
    write("Data_Dimension_8.json", Metric="MSE", **{"Data Dimension": "8", "VQ Bitrate": BITS}, **errors)
    curves = {f"Mean ({m} proposed)": [0.2, 0.4] for m in METHODS}
    quantiles = {f"Quantile {end} (AVQ proposed)": [0.1, 0.3] for end in ("Low", "High")}
    write("Recall.json", Metric="Recall @ T", T=["1", "8"], **curves, **quantiles, **{"AVQ baseline": [0.3, 0.5]})
    counts = {
        m: [math.log10(complexity.wmops(k, dim=64, M=4, nbits=n, convention="published")) for n in (2, 3)]
        for m, k in (("AVQ", "additive"), ("RVQ", "residual"))
    }
    wrong = {"PVQ": [0.0, 1.0]}
    name = "Figure 4/Complexity_Fig4-c.json"
    write(name, Metric="Complexity (log10 WMOPS)", **{"VQ Bitrate": BITS}, **counts, **wrong)
    write("other.json", Metric="PESQ")
    return folder


def test_published_figures_are_read(copy):
    found = published.read(copy)
    assert set(found.errors) == {("correlated", 64), ("uncorrelated", 8)}
    assert found.errors["uncorrelated", 8]["RVQ"].mean == {8: 30.0, 12: 15.0}
    assert set(found.recall) == {"5"}
    assert found.recall["5"]["AVQ"].mean == {1: 0.2, 8: 0.4}
    assert found.recall["5"]["AVQ"].low == {1: 0.1, 8: 0.3}
    assert found.recall["5"]["PVQ"].low == {}
    assert found.recall["5"]["AVQ baseline"].mean == {1: 0.3, 8: 0.5}
    assert found.wmops["4c"]["PVQ"].mean == {8: 1.0, 12: 10.0}


def test_a_folder_without_figures_is_refused(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"published: no published figures in .*empty"):
        published.read(tmp_path / "empty")
    (copy / "bad_Fig2-a.json").write_text('{"Metric": "MSE", "VQ Bitrate": ["8 bits"], "Mean (AVQ)": [1, 2]}')
    with pytest.raises(ValueError, match=r"bad_Fig2-a\.json is not a published figure"):
        published.read(copy)


def test_a_run_beside_the_published_figures(suite, copy, vectors, tmp_path):
    suite.settings["published"] = str(copy)
    rows = run(suite, out=tmp_path / "out", dataset=vectors, threads=1)
    assert [row["error"] for row in rows] == [None] * len(rows)
    recall = [row for row in rows if "recall_curve" in row]
    assert [row["method"] for row in recall] == ["PVQ", "RVQ", "AVQ"]
    for row in recall:
        # The norm of sums is kept exactly, beside 8 bits.
        assert row["bits_per_vector"] == (8 if row["method"] == "PVQ" else 40)
        curve = dict(row["recall_curve"])
        assert [curve[1], curve[10], curve[100]] == [row[f"recall@{T}"] for T in (1, 10, 100)]
        assert 0 < curve[1] <= curve[8] <= curve[512] <= curve[1000] <= 1
    errors = {(row["dataset"], row["method"]): row["mse"] for row in rows if "data" in row}
    assert len(errors) == 6
    assert all(error < 8 for error in errors.values())  # less than the variance
    assert errors["correlated-8", "AVQ"] < errors["correlated-8", "PVQ"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Counts: 2 of 3 are the published ones to nine digits." in text
    ratio = errors["uncorrelated-8", "RVQ"] / errors["uncorrelated-8", "AVQ"]
    assert f"{ratio:.3f} (1.500)" in text
    assert "| AVQ, published |" in text
    assert re.search(r"mine: recall@1 is \w+ [>≈] \w+ [>≈] \w+, which contradicts", text)
    assert "| 8 | " in text
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data-line=") == len(rows)
    assert "Counted cost of encoding" in page
    assert len(kind("paper").tables(rows)) == 3

    again = run(suite, out=tmp_path / "again", dataset=vectors, threads=1, only=[recall[2]["point"]])
    assert again[0]["recall_curve"] == recall[2]["recall_curve"]


def test_without_data_or_a_copy_the_rest_is_measured(suite, tmp_path):
    suite.settings["learning"] = ["fit"]
    suite.settings["sets"] = [{"data": "uniform", "d": 8}]
    rows = run(suite, out=tmp_path / "out", threads=1)
    assert rows[0]["method"] == "load"
    assert [row["method"] for row in rows if "data" in row] == ["PVQ, fit", "RVQ, fit", "AVQ, fit"]
    assert [row["error"] for row in rows[1:]] == [None] * (len(rows) - 1)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Not measured: absent.npy" in text
    assert "are the published ones" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning": ["kmeans"]}, "learning holds nsvq and fit, got 'kmeans'"),
        ({"recall": {"m": 2}}, "recall holds M, nbits, beam, steps, got"),
        ({"bits": [10], "M": 4}, "bits must be multiples of M=4, got 10"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"published": "nowhere"}, "no published figures in nowhere"),
    ],
)
def test_wrong_settings_are_named(suite, settings, message):
    suite.settings.update(settings)
    with pytest.raises(ValueError, match=message):
        kind("paper").plan(suite, None)


def test_orders_are_contradicted_only_where_methods_can_be_told_apart():
    figures = {"AVQ": Figure(2.0, 1.9, 2.1), "RVQ": Figure(1.0, 0.9, 1.1), "PVQ": Figure(1.05, 0.9, 1.2)}
    assert reporting.contradicted(figures, ("AVQ", "PVQ", "RVQ")) == ["PVQ before AVQ", "RVQ before AVQ"]
    assert reporting.contradicted(figures, ("AVQ", "RVQ"), better="higher") == []
    assert reporting.contradicted({"AVQ": figures["AVQ"], "RVQ": None}, ("AVQ", "RVQ")) == []


def test_first_ranks_are_those_of_the_nearest():
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((50, 4)), rng.standard_normal((9, 4))
    ids = np.array([rng.permutation(50)[:20] for _ in queries])
    distances = ((queries[:, None] - base) ** 2).sum(2)
    nearest = distances.argmin(1)
    base[ids[0, 3]] = base[nearest[0]]  # as near, under another id
    expected = [int(np.flatnonzero(row == n)[0]) if n in row else 20 for row, n in zip(ids, nearest, strict=True)]
    expected[0] = min(3, expected[0])
    got = metrics.first_ranks(ids, base, queries, nearest[:, None], "l2")
    assert got.tolist() == expected
