"""Whole runs: resuming, failing methods, limits, reports."""

import json
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from annvq.benchmarks import load_suite, run, webpage
from annvq.benchmarks import vectors as vectors_module
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.results import read_rows
from annvq.benchmarks.run import Observer

SUITE = """
title = "small"
bits = [16]
threads = 1
[limits]
learn = 400
queries = 30
[timing]
parts = 3
repeats = 2
[[methods]]
use = "faiss.pq"
label = "first"
options = { nbits = 4 }
[[methods]]
use = "faiss.pq"
label = "impossible"
options = { nbits = 5 }
[[methods]]
use = "faiss.rq"
options = { nbits = 4 }
"""
REQUIRED = {
    "dataset", "method", "bits_per_vector", "mse", "recall@1", "recall@10", "recall@100", "10-recall@10",
    "train_s", "encode_us", "wmops", "search_us", "error",
}  # fmt: skip


class Seen(Observer):
    def __init__(self, stop_before=None):
        self.measured, self.found, self.stop_before = [], [], stop_before

    def started(self, point):
        if point.identity["method"] == self.stop_before:
            raise KeyboardInterrupt

    def finished(self, point, row, *, measured):
        (self.measured if measured else self.found).append(row["method"])


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32))
    return str(path)


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return load_suite(path)


def test_a_run_measures_reports_and_resumes(tmp_path, vectors, suite):
    out = tmp_path / "out"
    rows = run(suite, out=out, dataset=vectors, observer=(first := Seen()))
    assert first.measured == ["first", "impossible", "faiss.rq"]
    assert read_rows(out / "results.jsonl") == rows
    for row in rows:
        assert set(row) >= REQUIRED
    good = [row for row in rows if row["error"] is None]
    assert [row["method"] for row in good] == ["first", "faiss.rq"]
    for row in good:
        assert row["bits_per_vector"] == 16
        assert 0 < row["recall@1"] <= row["recall@10"] <= row["recall@100"] <= 1
        assert row["n"] == 1800
        assert row["n_learn"] == 400
        assert row["nq"] == 30
        assert row["env"]["threads"] == 1
        assert len(row["encode_us_parts"]) == 3
        assert row["learn_source"] == "base sample"
    assert "cannot spend 16 bits" in rows[1]["error"]
    assert rows[1]["mse"] is None
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    report = (out / "report.md").read_text()
    assert "| first |" in report
    assert "failed: ValueError" in report

    again = run(suite, out=out, dataset=vectors, observer=(second := Seen()))
    assert second.measured == ["impossible"]  # what failed is tried again
    assert second.found == ["first", "faiss.rq"]
    assert [r["mse"] for r in again] == [r["mse"] for r in rows]
    assert len((out / "results.jsonl").read_text().splitlines()) == 3

    run(suite, out=out, dataset=vectors, fresh=True, observer=(third := Seen()))
    assert third.found == []
    run(suite, out=out, dataset=vectors, threads=2, observer=(fourth := Seen()))
    assert fourth.found == []  # other threads, other measurement


def test_one_row_is_measured_by_its_command(tmp_path, vectors, suite):
    rows = run(suite, out=tmp_path / "all", dataset=vectors, threads=1)
    assert rows[0]["command"] == f"annvq bench small --dataset {vectors} --threads 1"
    again = webpage.command(rows[2])
    assert again == f"{rows[0]['command']} --point {rows[2]['point'][:10]}"
    out = tmp_path / "one"
    got = run(suite, out=out, dataset=vectors, threads=1, only=[again.rsplit(" ", 1)[1]], observer=(seen := Seen()))
    assert seen.measured == ["faiss.rq"]
    assert [row["point"] for row in got] == [rows[2]["point"]]
    assert got[0]["hits"] == rows[2]["hits"]
    # Other rows stay where they are, in the reports too.
    everything = tmp_path / "all"
    only = [rows[2]["point"]]
    run(suite, out=everything, dataset=vectors, threads=1, only=only, observer=(seen := Seen()))
    assert (seen.measured, seen.found) == ([], ["faiss.rq"])
    run(suite, out=everything, dataset=vectors, threads=1, only=only, fresh=True, observer=(seen := Seen()))
    assert (seen.measured, seen.found) == (["faiss.rq"], [])
    kept = read_rows(everything / "results.jsonl")
    assert kept[:2] == rows[:2]
    assert [row["point"] for row in kept] == [row["point"] for row in rows]
    assert all(row["method"] in (everything / "report.md").read_text() for row in rows)
    with pytest.raises(ValueError, match="only: no point of suite 'small' begins with zz"):
        run(suite, out=out, dataset=vectors, threads=1, only=["zz"])


def test_an_interrupted_run_keeps_what_it_has(tmp_path, vectors, suite):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(suite, out=out, dataset=vectors, observer=Seen(stop_before="faiss.rq"))
    assert [row["method"] for row in read_rows(out / "results.jsonl")] == ["first", "impossible"]
    run(suite, out=out, dataset=vectors, observer=(rest := Seen()))
    assert rest.found == ["first"]
    assert rest.measured == ["impossible", "faiss.rq"]


def test_other_vectors_are_another_point(tmp_path, vectors, suite):
    out = tmp_path / "out"
    run(suite, out=out, dataset=vectors)
    x = np.load(vectors)
    np.save(vectors, x + 1)
    run(suite, out=out, dataset=vectors, observer=(seen := Seen()))
    assert seen.found == []
    assert len((out / "results.jsonl").read_text().splitlines()) == 6


def test_rows_are_reproducible_and_json(tmp_path, vectors, suite):
    rows = [run(suite, out=tmp_path / name, dataset=vectors) for name in ("a", "b")]
    for one, other in zip(*rows, strict=True):
        assert one["mse"] == other["mse"]
        assert one["recall@10"] == other["recall@10"]
        json.dumps(one, allow_nan=False)


def test_of_several_data_sets_one_may_be_missing(tmp_path, vectors):
    path = tmp_path / "two.toml"
    text = SUITE.replace("bits = [16]", f'bits = [16]\ndatasets = ["{tmp_path / "absent.npy"}", "{vectors}"]')
    path.write_text(text)
    rows = run(load_suite(path), out=tmp_path / "out")
    assert [row["method"] for row in rows] == ["load", "first", "impossible", "faiss.rq"]
    assert "absent" in rows[0]["error"]
    assert rows[1]["mse"] > 0
    assert "absent.npy: not measured" in (tmp_path / "out" / "report.md").read_text()
    assert len(kind("codes").tables(rows)) == 2


@pytest.mark.parametrize("name", ["ablation", "codes", "index", "scan"])
def test_a_data_set_is_loaded_when_its_first_point_is_due(tmp_path, monkeypatch, name):
    """And let go when the next one is."""
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    for seed in (1, 2):
        np.save(tmp_path / f"{seed}.npy", np.random.default_rng(seed).standard_normal((1200, 16)).astype(np.float32))
    sets = [str(tmp_path / f"{stem}.npy") for stem in ("1", "absent", "2")]
    text = (Path(__file__).parents[1] / "golden" / "rows" / f"{name}.toml").read_text()
    (tmp_path / "two.toml").write_text(f"datasets = {sets}\n{text}")
    log, held, prepare = [], [], vectors_module.prepare

    def prepared(data, limits):
        assert [before() for before in held] == [None] * len(held)
        made = prepare(data, limits)
        held.append(weakref.ref(made))
        return made

    class Log(Observer):
        def planned(self, total):
            log.append(total)

        def loading(self, name):
            log.append(f"loading {Path(name).stem}")

        def started(self, point):
            log.append(f"measuring {Path(point.identity['dataset']).stem}")

    def not_measured(point):
        return {**point.identity, **dict.fromkeys(point.columns), "error": "not measured", "date": ""}

    monkeypatch.setattr(vectors_module, "prepare", prepared)
    monkeypatch.setattr(sys.modules["annvq.benchmarks.run"], "measure_point", not_measured)
    rows = run(load_suite(tmp_path / "two.toml"), out=tmp_path / "out", threads=1, observer=Log())
    assert len(held) == 2
    assert [entry for entry in log if isinstance(entry, int)][-1] == len(rows)
    steps = [entry for entry in dict.fromkeys(log) if isinstance(entry, str) and "random" not in entry]
    expected = [f"{what} {which}" for which in ("1", "absent", "2") for what in ("loading", "measuring")]
    assert steps == expected
    assert "absent.npy" in (tmp_path / "out" / "report.md").read_text()
    kind(name).tables(rows)


def test_a_missing_data_set_is_an_error_of_the_run(tmp_path, suite):
    with pytest.raises((ValueError, OSError)):
        run(suite, out=tmp_path, dataset=str(tmp_path / "absent.npy"))
