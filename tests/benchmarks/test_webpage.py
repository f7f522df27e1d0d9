"""Rows of results as a page: what its lines say, which marks they bear, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from annvq.benchmarks import webpage
from annvq.benchmarks.statistics import hits_to_text
from annvq.cli import cli

ROWS = Path(__file__).parents[1] / "golden" / "rows"
KINDS = {
    "ablation": "What learns codebooks", "codes": "Codes at equal bits", "index": "Indexes",
    "scan": "Scans side by side", "toy": "Learning distributions",
}  # fmt: skip


def code_row(method, counts, bits=64, seed=0, search=(9.0, 10.0, 12.0), **more):
    return {
        "dataset": "mine", "method": method, "bits": bits, "seed": seed, "nq": len(counts), "error": None,
        "bits_per_vector": bits, "10-recall@10": float(counts.mean() / 10), "search_us": float(np.median(search)),
        "search_us_repeats": list(search), "wmops": 1.0, "hits": hits_to_text({"10-recall@10": counts}),
        "env": {"cpu": "a <processor>", "threads": 2, "versions": {"annvq": "1"}}, "suite": "codes",
        "point": "0123456789ab", "date": "2026-01-02T03:04:05+00:00", **more,
    }  # fmt: skip


def test_every_kind_has_its_section():
    for kind, title in KINDS.items():
        rows = webpage.read_results([ROWS / f"{kind}.jsonl"])
        page = webpage.page(rows)
        assert title in [section.title for section in page.sections]
        seeds = len({row["seed"] for row in rows})
        assert seeds * sum(len(section.lines) for section in page.sections) == len(rows)
        assert len(page.data) == len(rows)
    scan = webpage.page(webpage.read_results([ROWS / "scan.jsonl"])).sections[0]
    assert not any(column.recall for column in scan.columns.values())  # there is nothing to bound


def test_lines_have_figures_intervals_and_marks():
    rng = np.random.default_rng(0)
    hard = rng.integers(0, 9, 500)
    rows = [code_row("best", hard + 1), code_row("near", hard + (rng.random(500) < 0.995)), code_row("far", hard)]
    rows.append({"dataset": "mine", "method": "bad", "bits": 64, "error": "ValueError: no\nmore", "search_us": None})
    section = webpage.page(rows).sections[0]
    best, near, far, bad = section.lines
    value = best.values["10-recall@10"]
    assert value.low < value.number == rows[0]["10-recall@10"] < value.high
    assert [line.values["10-recall@10"].mark for line in (best, near, far)] == ["", "≈", ""]
    assert [line.values["10-recall@10"].best for line in (best, near, far)] == [True, False, False]
    # Queries a second follow from the time of one, their interval from its own.
    qps = best.values["qps"]
    assert (qps.number, qps.low, qps.high) == pytest.approx((1e5, 1e6 / 12, 1e6 / 9))
    assert bad.error == "failed: ValueError: no"
    assert best.command == "annvq bench codes --threads 2 --point 0123456789"


def test_seeds_are_one_line_and_runs_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    rows = [code_row("m", rng.integers(0, 11, 50), seed=seed) for seed in range(3)]
    (line,) = webpage.page(rows).sections[0].lines
    assert line.detail == "64 bits, 3 seeds"
    assert line.values["10-recall@10"].number == pytest.approx(np.mean([row["10-recall@10"] for row in rows]))
    for run in ("old", "new"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "results.jsonl").write_text(json.dumps(rows[0]) + "\n")
    both = webpage.page(webpage.read_results([tmp_path / "old", tmp_path / "new" / "results.jsonl"]))
    assert [line.method for line in both.sections[0].lines] == ["m · old", "m · new"]
    # They are compared with each other, query by query: here the same rows.
    assert [line.values["10-recall@10"].best for line in both.sections[0].lines] == [True, False]
    assert both.sections[0].lines[1].values["10-recall@10"].mark == "≈"


def test_numbers_of_threads_are_no_seeds():
    counts = np.random.default_rng(0).integers(0, 11, 50)
    rows = [code_row("m", counts, env={"cpu": "one", "threads": threads, "versions": {}}) for threads in (1, 2)]
    lines = webpage.page(rows).sections[0].lines
    assert [(line.detail, line.facets["threads"]) for line in lines] == [("64 bits", "1"), ("64 bits", "2")]


def test_two_seeds_that_differ_much_give_no_negative_times():
    counts = np.random.default_rng(0).integers(0, 11, 50)
    rows = [code_row("m", counts, seed=seed, search=(us,)) for seed, us in enumerate((100.0, 130.0))]
    values = webpage.page(rows).sections[0].lines[0].values
    assert (values["search_us"].number, values["search_us"].low) == (115.0, 0.0)
    assert (values["qps"].number, values["qps"].low, values["qps"].high) == (pytest.approx(1e6 / 115), None, None)


def test_data_sets_that_could_not_be_had_are_notes():
    row = {"dataset": "gone", "method": "load", "error": "OSError: no network"}
    assert webpage.page([row]).notes[0] == "Not measured: gone: OSError: no network"


def test_report_from_the_command_line(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(ROWS / "codes.jsonl", folder / "results.jsonl")
    out = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["report", str(folder), str(ROWS / "index.jsonl"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    text = out.read_text()
    assert "Codes at equal bits" in text
    assert ">Indexes<" in text
    assert f"{out.stat().st_size:,} bytes" in done.output


def test_what_are_no_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no results in .*nothing: expected a folder with results.jsonl"):
        webpage.read_results([tmp_path / "nothing"])
    other = tmp_path / "other.jsonl"
    other.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match=r"other.jsonl holds no results of annvq bench"):
        webpage.read_results([other])
    other.write_text("")
    with pytest.raises(ValueError, match="no rows in"):
        webpage.read_results([other])
