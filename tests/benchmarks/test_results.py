"""Rows on disk: what an interruption leaves, and what is measured again."""

import json

import numpy as np
import pytest

from annvq.benchmarks.results import Results, digest, read_rows


def row(point, key, **more):
    return {"point": point, "key": key, "error": None, **more}


def test_rows_are_lines_and_values_are_json(tmp_path):
    results = Results(tmp_path / "new" / "folder")
    results.append(row("a", "1", x=np.float32(0.5), y=[np.int64(3)], z=float("nan")))
    lines = results.path.read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["x"] == 0.5
    assert json.loads(lines[0])["y"] == [3]
    assert json.loads(lines[0])["z"] is None


def test_a_line_cut_short_is_left_out_and_measured_again(tmp_path):
    results = Results(tmp_path)
    results.append(row("a", "1"))
    with results.path.open("a") as file:
        file.write('{"point": "b", "ke')
    again = Results(tmp_path)
    again.drop_stale({"a": "1", "b": "2"})
    assert again.find("1") is not None
    assert again.find("2") is None
    again.append(row("b", "2"))
    assert [r["point"] for r in read_rows(again.path)] == ["a", "b"]


def test_failed_rows_and_other_versions_are_measured_again(tmp_path):
    results = Results(tmp_path)
    results.append(row("good", "1"))
    results.append({**row("bad", "2"), "error": "it broke"})
    results.append(row("old", "3"))
    results.append(row("elsewhere", "4"))
    again = Results(tmp_path)
    again.drop_stale({"good": "1", "bad": "2", "old": "new key"})
    assert [r["point"] for r in read_rows(again.path)] == ["good", "elsewhere"]


def test_fresh_forgets(tmp_path):
    Results(tmp_path).append(row("a", "1"))
    assert Results(tmp_path, fresh=True).rows == []


@pytest.mark.parametrize("line", ["not json", "[1]"])
def test_a_broken_line_is_named(tmp_path, line):
    (tmp_path / "results.jsonl").write_text('{"point": "a"}\n' + line + "\n{}\n")
    with pytest.raises(ValueError, match="line 2"):
        Results(tmp_path)


def test_digest_goes_by_content():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
