"""Suites of kind scan: the same codes on both sides, both sides asked, reports."""

import json
from pathlib import Path

import numpy as np
import pytest

from annvq.benchmarks import load_suite, rivals, run
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.kinds.scan import codes, settings
from annvq.benchmarks.kinds.scan.pairs import Effort, Scanner, Side, compare
from annvq.benchmarks.processes import EndedError
from annvq.benchmarks.run import Observer

SUITE = """
kind = "scan"
title = "small"
random = 0
effort = { pairs = 2, budget_s = 0.2, call_s = 0.002 }
[[grids]]
code = ["product"]
M = [4]
n = [500, 900, 1_000_000]
k = [5]
rivals = ["IndexPQ", "IndexPQFastScan"]
[[grids]]
code = ["residual"]
M = [3]
n = [900]
queries = ["single"]
rivals = ["IndexResidualQuantizer", "IndexLocalSearchQuantizer"]
[[grids]]
M = [4]
n = [900]
filter = [0.1]
rivals = ["annvq unfiltered", "annvq one thread"]
[[grids]]
M = [3, 16]
n = [900]
rivals = ["IndexPQFastScan"]
"""


def suite_of(tmp_path, text):
    path = tmp_path / "small.toml"
    path.write_text(text)
    return load_suite(path)


@pytest.fixture
def folder(tmp_path):
    """Random codes of 900 vectors, product and residual."""
    source = codes.random_source(16, 900, seed=3)
    for code in ("product", "residual"):
        codes.make(source, code, 4, [300, 900], tmp_path / code, seed=3)
    return tmp_path


def test_a_run_compares_and_reports(tmp_path, vectors):
    suite, out = suite_of(tmp_path, SUITE), tmp_path / "out"
    rows = run(suite, out=out, dataset=vectors, threads=1)
    # 1,000,000 vectors are more than there are, 3 sub-quantizers do not divide 16 dimensions: left out. FastScan
    # would need 32 of them.
    assert len(rows) == 9
    good = [row for row in rows if row["error"] is None]
    assert [row["M"] for row in rows if row["error"] is not None] == [16]
    for row in good:
        assert row["qps"] > 0
        assert row["rival_qps"] > 0
        assert len(row["ratio_all"]) == 2
        assert row["ratio"] == pytest.approx(np.median(np.divide(row["qps_all"], row["rival_qps_all"])))
        assert row["ns_per_vector"] == pytest.approx(1e9 / row["qps"] / row["n"])
    same = [row for row in good if row["rival"] == "IndexPQ"]
    assert same
    for row in same:
        assert row["same_ids"] > 0.99
        assert row["recall@1"] == row["rival_recall@1"] > 0
    report = (out / "report.md").read_text()
    assert report.count("| IndexPQFastScan |") == 3  # with the one that failed
    assert "failed: " in report
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sum(table.row_count for table in kind("scan").tables(rows)) == 9

    class Seen(Observer):
        def __init__(self):
            self.measured = []

        def finished(self, point, row, *, measured):
            self.measured += [row["M"]] * measured

    run(suite, out=out, dataset=vectors, threads=1, observer=(seen := Seen()))
    assert seen.measured == [16]


@pytest.mark.parametrize(("code", "index"), [("product", "IndexPQ"), ("residual", "IndexResidualQuantizer")])
def test_both_sides_scan_the_same_codes(folder, code, index):
    found = []
    for engine in ("annvq", "faiss"):
        worker = rivals.pool("scan", Scanner).worker(engine)
        side = Side(worker, folder / code, index, 300, k=5, single=True, threads=1)
        side.search(200, ids=folder / "found.npy")
        found.append(np.load(folder / "found.npy"))
        worker.close()
    assert found[0].shape == (200, 5)
    assert found[0].max() < 300
    # One byte holds the norm, in either engine's way.
    assert (found[0] == found[1]).mean() > (0.99 if code == "product" else 0.6)


class Asked:
    """A worker that answers what it takes; one that takes no time at all has ended."""

    def __init__(self, level, seconds, log):
        self.level, self.seconds, self.log = level, seconds, log

    def open(self, folder, index, n):
        if not self.seconds:
            raise EndedError(f"{self.level} ended")

    def ask(self, **request):
        self.log.append(self.level)
        seconds = self.seconds * request["nq"] * request["calls"]
        return {"seconds": seconds, "cpu_seconds": seconds / (2 if self.level == "ours" else 1)}


def sides_of(log, **seconds):
    return [Side(Asked(name, s, log), Path(), "", 1, k=1, single=False, threads=1) for name, s in seconds.items()]


def test_sides_are_asked_in_turn():
    log = []
    ours, *theirs = sides_of(log, ours=1e-4, slow=1e-2, gone=0, fast=1e-3)
    row = compare(ours, theirs, 200, 1, Effort(pairs=4, budget_s=60, call_s=0.1))
    assert log[-8:] == ["ours", "fast"] * 4
    assert (row["ratio"], row["cpu_ratio"]) == (pytest.approx(10), pytest.approx(20))
    assert (row["qps"], row["rival_qps"]) == (pytest.approx(1e4), pytest.approx(1e3))
    assert (row["own_simd"], row["rival_simd"]) == ("ours", "fast")
    assert row["rival_simd_s"] == {"slow": pytest.approx(1e-2), "gone": "gone ended", "fast": pytest.approx(1e-3)}
    with pytest.raises(EndedError, match="gone ended"):
        compare(ours, sides_of(log, gone=0), 200, 1, Effort())


def test_what_goes_wrong_is_said(folder):
    worker = rivals.pool("scan", Scanner).worker("faiss")
    with pytest.raises(RuntimeError, match="faiss: FileNotFoundError"):
        worker.open(folder / "absent", "IndexPQ", 3)
    worker.open(folder / "product", "IndexPQ", 300)  # and it goes on
    worker.close()
    command = ("annvq.benchmarks.worker", "annvq", "scan")
    with pytest.raises(EndedError, match=r"the annvq process .*exit code 1; its last words: ValueError: .*such lev"):
        Scanner("annvq", "no such level", command=command, variables=["ANNVQ_SIMD"])


def test_a_process_that_is_killed_takes_no_row_along(tmp_path, vectors, killer):
    text = '[[grids]]\nM = [4]\nn = [900]\nk = [1, 2, 3]\nrivals = ["IndexPQ"]\n'
    suite = suite_of(tmp_path, f'kind = "scan"\nrandom = 0\neffort = {{ pairs = 2, budget_s = 0.1 }}\n{text}')
    rows = run(suite, out=tmp_path / "out", dataset=vectors, threads=1, observer=killer)
    assert [row["error"] for row in rows] == [None] * 3
    assert len(killer.workers) >= 3 * 2
    assert {worker.ended.split(": ", 1)[1] for worker in killer.workers} == {"SIGKILL (Killed); it said nothing"}


def test_levels_are_those_that_the_environment_allows(tmp_path, vectors, monkeypatch):
    """As on a processor that has no more than what is forced here."""
    monkeypatch.setenv("ANNVQ_SIMD", "generic")
    monkeypatch.setenv("FAISS_SIMD_LEVEL", "NONE")
    monkeypatch.setenv("FAISS_OPT_LEVEL", "generic")
    text = '[[grids]]\nM = [4]\nn = [900]\nsimd = ["best", "avx2"]\nrivals = ["IndexPQ"]\n'
    suite = suite_of(tmp_path, f'kind = "scan"\nrandom = 0\neffort = {{ pairs = 2, budget_s = 0.1 }}\n{text}')
    best, avx2 = run(suite, out=tmp_path / "out", dataset=vectors, threads=1)
    assert best["error"] is None
    assert best["own_simd"] == "generic"
    assert list(best["rival_simd_s"]) == [best["rival_simd"]]
    assert best["rival_simd"] in ("NONE", "generic")
    assert "has no simd level avx2 on this machine" in avx2["error"].lower()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("code = ['products']\nrivals = ['IndexPQ']", "code must be among product, residual; got 'products'"),
        ("rivals = ['IndexRefine']", "rivals must be among"),
        ("rivals = ['IndexResidualQuantizer']", "rivals must be among IndexPQ"),
        ("rivals = []", "rivals must be a list of str, at least one"),
        ("rivals = ['IndexPQ']\nM = [0]", "M must be at least 1"),
        ("rivals = ['IndexPQ']\nM = [true]", "M must be a list of int"),
        ("rivals = ['IndexPQ']\nqueries = ['some']", "queries must be among batch, single"),
        ("rivals = ['annvq unfiltered']\nfilter = [1.5]", "filter is the share"),
        ("rivals = ['IndexPQ']\nfilter = [0.1]", "IndexPQ takes no filter"),
        ("rivals = ['IndexPQ']\nbeam = [1]", "a grid has code, M, n"),
    ],
)  # fmt: skip
def test_suites_are_checked(tmp_path, grid, message):
    with pytest.raises(ValueError, match=message):
        kind("scan").plan(suite_of(tmp_path, f'kind = "scan"\n[[grids]]\n{grid}\n'), None)


def test_the_shipped_suite_is_one():
    for quick in (False, True):
        suite = load_suite("scan", quick=quick)
        grids = settings.checked(suite)["grids"]
        assert len(grids) >= 4
        json.dumps(grids)
