"""Rows of any kinds of suites as one page: ``report.html``, which :func:`annvq.benchmarks.run` writes too."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annvq.benchmarks import metrics
from annvq.benchmarks.plan import ABSENT
from annvq.benchmarks.report import measured, number, seeds_note
from annvq.benchmarks.results import Row, read_rows
from annvq.benchmarks.statistics import SAME, SAME_TEXT, Figure, figure_of, same_as_best, told_apart
from annvq.pages import Chart, Column, Line, Page, Section, Value, write
from annvq.paths import check_path


@dataclass(frozen=True)
class _Shown:
    """How a column of rows is shown: as a column of the page, in this format."""

    column: Column
    format: str


def _shown(name: str) -> _Shown:
    of = metrics.COLUMNS[name]
    return _Shown(Column(of.title, of.unit, of.better, recall=name in metrics.RECALLS), of.format)


def _more(title: str, help: str, better: str | None, format: str) -> _Shown:
    return _Shown(Column(title, help, better), format)


# Every column that a kind of suite may have, in the order of tables.
_COLUMNS: dict[str, _Shown] = {
    **{name: _shown(name) for name in metrics.COLUMNS},
    "qps": _more("queries/s", "queries a second", "higher", ",.0f"),
    "rival_qps": _more("rival's queries/s", "queries a second", None, ",.0f"),
    "ratio": _more("ratio", "annvq's queries a second over the rival's: the median of pairs", "higher", ".2f"),
    "ns_per_vector": _more("ns/vector", "nanoseconds a vector scanned, with all that a query costs", "lower", ".3g"),
    "lookups_per_ns": _more("look-ups/ns", "codes looked up a nanosecond", "higher", ".1f"),
    "same_ids": _more("same ids", "share of results in which both agree", None, ".3f"),
    "ram_bits_per_vector": _more("RAM bits", "bits of memory per vector, ids included", "lower", ".0f"),
    "file_bytes_per_vector": _more("file bytes", "bytes of the saved index per vector", "lower", ".0f"),
    "first_add_ms": _more("first add ms", "the first vector added after opening", "lower", ".3g"),
    "add_1_ms": _more("add ms", "one vector now and then", "lower", ".3g"),
    "add_64_ms": _more("add 64 ms", "64 vectors at once, now and then", "lower", ".3g"),
    "adds_per_s": _more("adds/s", "one vector after another", "higher", ",.0f"),
    "upsert_1_ms": _more("upsert ms", "one vector replaced now and then", "lower", ".3g"),
    "upsert_64_ms": _more("upsert 64 ms", "64 vectors replaced at once, now and then", "lower", ".3g"),
    "upserts_per_s": _more("upserts/s", "one vector replaced after another", "higher", ",.0f"),
    "steps": _more("steps", "steps of learning in the time there was", None, ",.0f"),
    "dead": _more("dead", "share of codebook entries that no vector has", "lower", ".1%"),
}
_COMMON = (
    Chart("{y} against bits per vector", "bits_per_vector", "bits per vector, code and norm"),
    Chart("{y} against the counted cost of encoding", "wmops", "WMOPS per vector", log_x=True),
    Chart("{y} against the measured cost of encoding", "encode_us", "µs per vector", log_x=True),
    Chart("{y} against queries a second", "qps", "queries a second", log_x=True),
)
# What is told apart: a title, a sentence, a field that only such rows have, and charts.
_KINDS: tuple[tuple[str, str, str, tuple[Chart, ...]], ...] = (
    ("Adding to indexes", "What adding and replacing vectors costs.", "stream", ()),
    (
        "Scans side by side",
        f"Queries a second of annvq and of another's scan of the same codes, asked in turn. {SAME}: the pairs do not "
        "tell the ratio from 1.",
        "ratio",
        (Chart("Ratio against vectors", "n", "vectors", y="ratio", log_x=True, log_y=True, joined=False),),
    ),
    ("Indexes", "Queries a second against recall of whole indexes.", "qps", (_COMMON[3], _COMMON[0])),
    ("What learns codebooks", SAME_TEXT, "dead", ()),
    ("Codes at equal bits", f"Every stored bit is counted. {SAME_TEXT}", "search_us", _COMMON),
    (
        "Recall of the paper's codes",
        f"Codes of 64 bits as in the paper, whose norms are kept beside them and not counted there. {SAME_TEXT}",
        "recall_curve",
        _COMMON[:3],
    ),
    (
        "Counted cost of encoding",
        "Operations counted, weighted and in millions: nothing is timed.",
        "wmops_published",
        (Chart("Counted cost against bits per vector", "bits_per_vector", "bits per vector", y="wmops", log_y=True),),
    ),
    (
        "Learning distributions",
        f"Error against bits. {SAME_TEXT}",
        "data",
        (Chart("Error against bits per vector", "bits_per_vector", "bits per vector", y="mse", log_y=True),),
    ),
)
_OTHER = ("Other rows", "", "", _COMMON)
# What a page's selectors choose by, and what rows are compared within.
_FACETS = {
    "dataset": "data set", "group": "group", "queries": "queries", "threads": "threads", "setting": "setting",
    "start": "start", "kind": "code",
}  # fmt: skip
_BLOCK = ("dataset", "dataset_digest", "bits", "threads", "setting", "start", "kind")
_BEST = "best"
_Figures = Mapping[str, Figure | None]  # of a line, by column
# What tells the lines of a method from each other; rows that agree in all of these differ in their seed alone.
_DETAILS = ("bits", "settings", "n", "M", "k", "filter", "simd", "spec", "options")


def page(rows: Sequence[Row], title: str = "annvq bench") -> Page:
    """The page of ``rows``, which may be of several kinds of suites and of several runs.

    A row may have ``from``, which run it is of: methods that occur in several are told apart by it.
    """
    present = [_with_threads(row) for row in rows if row["method"] != ABSENT]
    environments = list(dict.fromkeys(_environment(row) for row in present))
    sections = []
    for name, text, field, charts in (*_KINDS, _OTHER):
        of_kind = [row for row in present if _kind_of(row) == field]
        if of_kind:
            sections.append(_section(name, text, charts, of_kind, environments))
    dates = sorted(row["date"][:10] for row in present if row.get("date"))
    span = f"{dates[0]} to {dates[-1]}" if dates and dates[0] != dates[-1] else "".join(dates[:1])
    lead = f"{len(present):,} measurements, {span}." if dates else ""
    missing = [f"Not measured: {row['dataset']}: {row['error']}" for row in rows if row["method"] == ABSENT]
    notes = [*missing, "How each figure is measured, and what the intervals are: docs/benchmarks.md of annvq."]
    return Page(
        title,
        sections,
        lead,
        [json.loads(e) for e in environments],
        notes,
        [_plain(row) for row in rows if row["method"] != ABSENT],
    )


def report(rows: Sequence[Row], path: str | os.PathLike[str], title: str = "annvq bench") -> int:
    """Write the page of ``rows``; returns its size in bytes."""
    return write(page(rows, title), path)


def read_results(paths: Iterable[str | os.PathLike[str]]) -> list[Row]:
    """Rows of several results: files of JSON lines, or folders that hold ``results.jsonl``.

    Of more than one, rows say in ``from`` which they are of.

    Raises:
        ValueError: no such file or folder, a file that is none of results, or no rows at all.
    """
    files = []
    for path in paths:
        given = Path(check_path(path, "paths"))
        file = given / "results.jsonl" if given.is_dir() else given
        if not file.is_file():
            raise ValueError(f"no results in {given}: expected a folder with results.jsonl, or such a file")
        files.append((given.name if given.is_dir() else file.parent.name, file))
    rows = []
    for name, file in files:
        for row in read_rows(file):
            if "method" not in row or "error" not in row:
                raise ValueError(f"{file} holds no results of annvq bench: a row without method and error")
            rows.append({**row, "from": name} if len(files) > 1 else row)
    if not rows:
        raise ValueError(f"no rows in {', '.join(str(file) for _, file in files)}")
    return rows


def _with_threads(row: Row) -> Row:
    """A row that says its threads, which those of codes have in their environment alone."""
    return {"threads": (row.get("env") or {}).get("threads"), **row}


def _kind_of(row: Row) -> str:
    """The field by which a row's kind is known; "" of a kind that is not known here."""
    return next((field for _, _, field, _ in _KINDS if field in row), "")


def environment_shown(env: Mapping[str, Any]) -> dict[str, str]:
    """What :func:`annvq.benchmarks.environment.facts` says, as pages show it."""
    facts = {
        "processor": env.get("cpu"), "SIMD level": env.get("simd"), "cores": env.get("cores"),
        "threads": env.get("threads"), "system": env.get("platform"), "commit": env.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in (env.get("versions") or {}).items()),
    }  # fmt: skip
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _environment(row: Row) -> str:
    """Where a row was measured, as JSON."""
    return json.dumps(environment_shown(row.get("env") or {}))


def _plain(row: Row) -> Row:
    """A row for the downloads: what each query found stays in the results file."""
    return {name: value for name, value in row.items() if name not in ("hits", "mse_blocks")}


def _section(title: str, text: str, charts: tuple[Chart, ...], rows: Sequence[Row], environments: list[str]) -> Section:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        identity = [row["method"], row.get("from"), *(row.get(name) for name in (*_BLOCK, *_FACETS, *_DETAILS))]
        groups.setdefault(json.dumps(identity, sort_keys=True, default=str), []).append(row)
    held = list(groups.values())
    figures = [{name: _figure(group, name) for name in (*_COLUMNS, "n")} for group in held]
    names = [name for name in _COLUMNS if any(of_line[name] is not None for of_line in figures)]
    marked = _marks(held, figures, names)
    shows_n = any(chart.x == "n" for chart in charts)
    by_recall = any(chart.y is None for chart in charts)
    columns = {
        "detail": Column("measured", "what tells a method's lines from each other", text=True),
        **{name: replace(c, recall=c.recall and by_recall) for name in names for c in (_COLUMNS[name].column,)},
        **({"n": Column("vectors", "how many were searched")} if shows_n else {}),
    }
    runs: dict[str, set[str]] = {}
    for row in rows:
        runs.setdefault(_method(row), set()).add(row.get("from", ""))
    lines = []
    for at, group in enumerate(held):
        name = _method(group[0])
        if len(runs[name]) > 1:
            name += f" · {group[0]['from']}"
        lines.append(_line(name, group, columns, figures[at], marked.get(at, {}), environments))
    return Section(title, text, columns, lines, charts)


def _figure(rows: Sequence[Row], name: str) -> Figure | None:
    """A column over seeds; of codes queries a second follow from the time of a query."""
    if name == "qps" and rows[0].get("qps") is None:
        us = figure_of(measured(rows), "search_us")
        if us is None:
            return None
        if not us.low or us.high is None:  # of few seeds the interval may begin at no time at all
            return Figure(1e6 / us.value)
        return Figure(1e6 / us.value, 1e6 / us.high, 1e6 / us.low, ranged=True)
    return figure_of(measured(rows), name)


def _marks(
    groups: Sequence[Sequence[Row]], figures: Sequence[_Figures], names: Sequence[str]
) -> dict[int, dict[str, str]]:
    """For lines that are compared with others: the best of its block, and what cannot be told from it, by line and
    column."""
    out: dict[int, dict[str, str]] = {}
    blocks: dict[str, list[int]] = {}
    for at, rows in enumerate(groups):
        if "ratio" in rows[0]:
            ratio = figures[at]["ratio"]
            if ratio is not None and not told_apart(ratio, Figure(1.0)):
                out[at] = {"ratio": SAME}
        elif "settings" not in rows[0] and "stream" not in rows[0]:
            block = json.dumps([rows[0].get(name) for name in _BLOCK], default=str)
            blocks.setdefault(block, []).append(at)
    for block_lines in blocks.values():
        for name in names:
            better = None if name == "bits_per_vector" else _COLUMNS[name].column.better
            if better:
                best, same = same_as_best({str(at): figures[at][name] for at in block_lines}, better)
                for text in same:
                    out.setdefault(int(text), {})[name] = SAME
                if best is not None and len(block_lines) > 1:
                    out.setdefault(int(best), {})[name] = _BEST
    return out


def _line(
    method: str,
    rows: Sequence[Row],
    columns: Mapping[str, Column],
    figures: _Figures,
    marks: Mapping[str, str],
    environments: list[str],
) -> Line:
    row, good = rows[0], measured(rows)
    values: dict[str, Value] = {}
    for name in columns:
        figure = figures.get(name)
        if figure is not None:
            shown = number(figure, _COLUMNS[name].format if name in _COLUMNS else ",.0f")
            mark = marks.get(name, "")
            best = mark == _BEST
            values[name] = Value(figure.value, shown, figure.low, figure.high, "" if best else mark, best)
    detail = _detail(row) + seeds_note(good)
    values["detail"] = Value(None, detail)
    return Line(
        method,
        detail,
        values,
        {shown: str(row[name]) for name, shown in _FACETS.items() if row.get(name) not in (None, "")},
        command(row),
        "" if good else f"failed: {str(row['error']).splitlines()[0]}",
        environments.index(_environment(row)),
    )


def _method(row: Row) -> str:
    """What charts colour by: of a comparison what is compared, not on how many vectors."""
    return f"{row['code']} {row['M']}x8 · {row['rival']}" if "ratio" in row else str(row["method"])


def _detail(row: Row) -> str:
    """What tells a method's rows from each other, in a few words."""
    parts = [f"{name} {value}" for name, value in (row.get("settings") or {}).items()]
    if "ratio" in row:
        parts.append(f"n {row['n']:,}, k {row['k']}" + (f", {row['filter']:.0%} filter" if row["filter"] else ""))
        parts += ["AVX2"] if row["simd"] == "avx2" else []
    elif row.get("bits") is not None and not parts:
        parts.append(f"{row['bits']} bits")
    if row.get("queries"):
        parts.append(row["queries"])
    return ", ".join(parts) or "–"


def command(row: Row) -> str:
    """The command that measures a row again; of rows that do not say which, the one that they are probably of."""
    env: dict[str, Any] = row.get("env") or {}
    base = row.get("command") or f"annvq bench {row.get('suite', '')} --threads {env.get('threads', 1)}"
    return f"{base} --point {row['point'][:10]}" if row.get("point") else base
