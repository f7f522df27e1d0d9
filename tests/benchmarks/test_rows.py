"""Rows that earlier versions measured are recognised: who they were made for has not changed.

``tests/golden/rows`` holds a suite of every kind and the rows that the first version of the harness measured for it, on
the vectors below.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from annvq.benchmarks import environment, load_suite, run
from annvq.benchmarks.run import Observer

ROWS = Path(__file__).parents[1] / "golden" / "rows"


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    i, j = np.arange(1200)[:, None], np.arange(16)[None]
    x = (i * i * 31 + j * j * 17 + i * j * 7919) % 251
    np.save(tmp_path / "mine.npy", x.astype(np.float32) / 16)
    return str(tmp_path / "mine.npy")


class Seen(Observer):
    def __init__(self):
        self.measured = 0

    def finished(self, point, row, *, measured):
        self.measured += measured


@pytest.mark.parametrize("kind", ["ablation", "codes", "index", "paper", "scan", "toy"])
def test_rows_of_the_first_version_are_not_measured_again(tmp_path, vectors, monkeypatch, kind):
    stored = [json.loads(line) for line in (ROWS / f"{kind}.jsonl").read_text().splitlines()]
    # With the versions of then; they are part of what a row is known by.
    monkeypatch.setattr(environment, "facts", lambda threads: stored[0]["env"])
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(ROWS / f"{kind}.jsonl", out / "results.jsonl")
    suite = load_suite(ROWS / f"{kind}.toml")
    rows = run(suite, out=out, dataset=None if kind == "toy" else vectors, threads=1, observer=(seen := Seen()))
    assert seen.measured == 0
    assert rows == stored
    assert "![](report.png)" in (out / "report.md").read_text()
    assert (out / "report.html").read_text().count("data-line=") * len(suite.seeds) == len(rows)
