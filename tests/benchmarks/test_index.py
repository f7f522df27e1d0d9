"""Suites of kind index: what is built, what is charged, what is reported."""

import pytest

from annvq.benchmarks import load_suite, roles, run
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.kinds.index import reporting, settings

SUITE = """
kind = "index"
title = "small"
threads = 1
limits = { learn = 700, queries = 40 }
effort = { repeats = 2, budget_s = 0.2 }
[[systems]]
group = "vectors kept"
use = "annvq"
label = "re-ranked"
spec = { quantizer = "residual", bits = 20, nbits = 4, nlist = 8, refine = "float32" }
sweep = { nprobe = [1, 8], shortlist = [1100] }
[[systems]]
group = "vectors kept"
use = "faiss"
spec = { factory = "IVF8,PQ4x4,RFlat" }
sweep = { nprobe = [8], k_factor = [110] }
[[systems]]
use = "hnswlib"
sweep = { ef = [50] }
"""


def suite_of(tmp_path, text):
    path = tmp_path / "small.toml"
    path.write_text(text)
    return load_suite(path)


def test_a_run(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(roles.Rival, "installed", lambda self: self.package != "hnswlib")
    rows = run(suite_of(tmp_path, SUITE), out=tmp_path / "out", dataset=vectors)
    by = {(row["method"], row["settings"].get("nprobe")): row for row in rows}
    assert len(rows) == 4
    for row in rows:
        if row["method"] == "hnswlib":
            assert "pip install hnswlib" in row["error"]
            continue
        assert row["error"] is None
        assert row["qps"] > 0
        assert row["simd"]
        assert 0 < row["10-recall@10"] <= 1
    # 3x4 bits and a norm byte; two bytes from FAISS; and the vectors, 16 floats.
    assert by["re-ranked", 1]["bits_per_vector"] == 20 + 16 * 32
    assert by["faiss", 8]["bits_per_vector"] == 16 + 16 * 32
    assert by["re-ranked", 8]["10-recall@10"] > by["re-ranked", 1]["10-recall@10"]
    # A shortlist of everything, by the vectors themselves, finds everything.
    assert by["re-ranked", 8]["10-recall@10"] == by["faiss", 8]["10-recall@10"] == 1
    assert by["re-ranked", 8]["file_bytes_per_vector"] > 66
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("| re-ranked |") == 3
    assert "failed: ModuleNotFoundError" in text
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sum(table.row_count for table in kind("index").tables(rows)) == 3


def test_queries_a_second_at_a_recall():
    rows = [{"qps": q, "recall@1": r} for q, r in ((100, 0.5), (50, 0.8), (70, 0.7), (10, None))]
    assert reporting.best_at(rows, "recall@1", 0.4) == 100
    assert reporting.best_at(rows, "recall@1", 0.6) == 70
    assert reporting.best_at(rows, "recall@1", 0.8) == 50
    assert reporting.best_at(rows, "recall@1", 0.9) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a system has use and sweep"),
        ('[[systems]]\nuse = "faisss"\nsweep = { nprobe = [1] }', "unknown system 'faisss'"),
        ('[[systems]]\nuse = "faiss"\nsweep = { ef = [1] }', "faiss sweep: unknown option 'ef'"),
        ('[[systems]]\nuse = "faiss"\nspec = { M = 3 }\nsweep = { nprobe = [1] }', "faiss spec: unknown option 'M'"),
        ('[[systems]]\nuse = "faiss"\nsweep = { nprobe = [0] }', "nprobe must be a list of positive integers"),
        ('queries = ["some"]\n[[systems]]\nuse = "faiss"\nsweep = { nprobe = [1] }', "queries must be among"),
        ('effort = { calls = 1 }\n[[systems]]\nuse = "faiss"\nsweep = { nprobe = [1] }', "effort holds"),
        ('[[systems]]\nuse = "faiss"\nsweep = { nprobe = [1] }\n' * 2, "two systems are called 'faiss'"),
    ],
)  # fmt: skip
def test_suites_are_checked(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        kind("index").plan(suite_of(tmp_path, f'kind = "index"\n{text}\n'), None)


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_suite_is_one(quick):
    its = settings.checked(load_suite("index", quick=quick))
    assert {entry["use"] for entry in its["systems"]} >= {"annvq", "faiss", "usearch"}
