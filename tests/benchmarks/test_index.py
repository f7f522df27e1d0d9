"""Suites of kind index: what is built, what is charged, what is reported."""

import numpy as np
import pytest

from annvq.benchmarks import load_suite, roles, run, worker
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.kinds.index import reporting, settings, streams

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


def test_an_index_outlives_its_processes(tmp_path, vectors, killer):
    """It was saved, so it is not built again."""
    rows = run(suite_of(tmp_path, SUITE), out=tmp_path / "out", dataset=vectors, observer=killer)
    good = [row for row in rows if row["use"] != "hnswlib"]
    assert [row["error"] for row in good] == [None] * 3
    assert good[0]["train_s"] == good[1]["train_s"]
    assert [worker.engine for worker in killer.workers if worker.engine == "annvq"] == ["annvq"] * 2


def test_what_cannot_be_built_is_tried_once(tmp_path, vectors, killer):
    entry = 'use = "annvq"\nspec = { quantizer = "product", bits = 16, index = "tree" }\nsweep = { nprobe = [1, 2, 3] }'
    rows = run(suite_of(tmp_path, f'kind = "index"\n[[systems]]\n{entry}'), out=tmp_path / "out", dataset=vectors)
    reason = "annvq: ValueError: index must be 'flat' or 'ivf', got 'tree'"
    assert [row["error"] for row in rows] == [f"RuntimeError: {reason}", *[f"RuntimeError: not built: {reason}"] * 2]
    assert len(killer.workers) == 1


def test_queries_a_second_at_a_recall():
    rows = [{"qps": q, "recall@1": r} for q, r in ((100, 0.5), (50, 0.8), (70, 0.7), (10, None))]
    assert reporting.best_at(rows, "recall@1", 0.4)["qps"] == 100
    assert reporting.best_at(rows, "recall@1", 0.6)["qps"] == 70
    assert reporting.best_at(rows, "recall@1", 0.8)["qps"] == 50
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
        ('[[streams]]\nuse = "faiss"\nsweep = { nprobe = [1] }', "a stream has use, and may have"),
        ('[[streams]]\nuse = "scann"', "an index of scann cannot be added to"),
        ('stream = { m = 1 }\n[[streams]]\nuse = "faiss"', "stream holds positive n, learn, repeats, budget_s"),
    ],
)  # fmt: skip
def test_suites_are_checked(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        kind("index").plan(suite_of(tmp_path, f'kind = "index"\n{text}\n'), None)


@pytest.mark.parametrize("quick", [False, True])
def test_the_shipped_suite_is_one(quick):
    its = settings.checked(load_suite("index", quick=quick))
    assert {entry["use"] for entry in its["systems"]} >= {"annvq", "faiss", "usearch"}
    kinds = {(e["spec"].get("index", "ivf"), e["spec"]["quantizer"]) for e in its["streams"] if e["use"] == "annvq"}
    assert kinds == {(index, kind) for index in ("flat", "ivf") for kind in ("product", "residual", "additive")}


STREAMS = """
kind = "index"
threads = 1
limits = { queries = 40 }
stream = { n = 700, learn = 400, repeats = 3, budget_s = 0.5 }
streams = [
    { use = "annvq", label = "flat", spec = { index = "flat", quantizer = "product", bits = 16, nbits = 4 } },
    { use = "annvq", label = "lists", spec = { quantizer = "residual", bits = 20, nbits = 4, nlist = 4 } },
    { use = "annvq", label = "re-ranked", spec = { quantizer = "product", bits = 16, nbits = 4, refine = "float16" } },
    { use = "faiss", spec = { factory = "PQ4x4" } },
    { use = "faiss", label = "faiss lists", spec = { factory = "IVF4,PQ4x4,RFlat" } },
]
"""


def test_what_adding_costs(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(streams, "_CALL_S", 0.01)
    rows = run(suite_of(tmp_path, STREAMS), out=tmp_path / "out", dataset=vectors)
    assert [row["bits_per_vector"] for row in rows] == [16, 20, 16 + 16 * 16, 16, 16 + 16 * 32]
    for row in rows:
        assert row["error"] is None
        assert (row["n"], row["n_learn"]) == (700, 400)
        assert row["first_add_ms"] > 0
        calls = ("add", "upsert") if row["use"] == "annvq" else ("add",)
        for call in calls:
            for size in (1, 64):
                assert len(row[f"{call}_{size}_ms_all"]) == 3
                assert row[f"{call}_{size}_ms"] == pytest.approx(np.median(row[f"{call}_{size}_ms_all"]))
            assert row[f"{call}s_per_s"] == pytest.approx(np.median(row[f"{call}s_per_s_all"]))
        assert (row["upsert_1_ms"] is None) == (row["use"] == "faiss")
        assert row["simd_add_1_ms"][row["simd"]] == row["add_1_ms"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Adding to 700 vectors of mine, d = 16, 1 thread" in text
    assert text.count("| – | – | – |") == 2  # FAISS replaces nothing
    assert [table.row_count for table in kind("index").tables(rows)] == [5]


class Recorded(roles.Index):
    """Remembers what it is given; takes no time by the clock of this test."""

    upserts = True

    def __init__(self):
        self.calls = []

    def add(self, x):
        self.calls.append(("add", x.copy()))

    def upsert(self, x, ids):
        self.calls.append(("upsert", x.copy(), ids))

    def nothing(self, *arguments):
        """What a stream has no use for."""

    bits_per_vector = configure = open = save = search = set_threads = train = nothing


def test_streams_are_of_queries_and_cold_where_asked(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(worker, "perf_counter", lambda: float(next(ticks)))  # every call takes a second
    chilled = []
    monkeypatch.setattr(worker, "chill", lambda: chilled.append(len(held.index.calls)))
    held = worker.IndexHolder(Recorded())
    held.queries, held.n = np.arange(10, dtype=np.float32)[:, None], 50

    def seconds(call, size, calls, cold, budget_s=100):
        asked = {"call": call, "size": size, "calls": calls, "cold": cold, "budget_s": budget_s}
        return held.answer({"do": "stream", "threads": 1, **asked})["seconds"]

    assert seconds("add", 1, calls=3, cold=True) == [1] * 3
    assert chilled == [0, 1, 2]
    assert seconds("add", 4, calls=9, cold=False, budget_s=2) == [1] * 2
    assert seconds("upsert", 20, calls=1, cold=False, budget_s=0) == [1]
    assert len(chilled) == 3
    added = np.concatenate([call[1] for call in held.index.calls]).ravel()
    np.testing.assert_array_equal(added, np.arange(len(added)) % 10)
    ids = held.index.calls[-1][2]
    assert len(set(ids)) == 20
    assert 0 <= min(ids) <= max(ids) < 50
    held.index.upserts = False
    assert seconds("upsert", 1, calls=1, cold=False) is None


def test_caches_are_filled_with_more_than_they_hold():
    worker.chill()
    assert worker._ballast().nbytes >= 1 << 20
