"""A choice as a page: the recommendation, charts of recall against what it costs, and every code."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from annvq.benchmarks.environment import facts
from annvq.benchmarks.report import number
from annvq.benchmarks.statistics import SAME, Figure, told_apart
from annvq.benchmarks.webpage import environment_shown
from annvq.choosing.choice import LATE, Choice, at_n
from annvq.choosing.grid import Candidate
from annvq.choosing.recommending import takes_too_long
from annvq.pages import Chart, Column, Line, Page, Section, Value, write

_PREDICTED = "predicted"
_Shown = tuple[Column, Callable[[Candidate], float | None], str]
_COLUMNS: dict[str, _Shown] = {
    "recall@1": (Column("recall@1", "share of queries", "higher", recall=True), lambda c: c.recall_at_1, ".3f"),
    "mse": (Column("MSE", "mean of ‖x − x̂‖²", "lower"), lambda c: c.mse, ".4g"),
    "bits_per_vector": (Column("bits", "bits per vector, code and norm", "lower"), lambda c: c.bits_per_vector, ".0f"),
    "train_s": (Column("train s", "seconds of short training", "lower"), lambda c: c.train_s, ".1f"),
    "learning_s": (Column("train s at n", "", "lower"), lambda c: c.train_s_at_n, ",.0f"),
    "encode_us": (Column("encode µs", "µs per vector", "lower"), lambda c: c.encode_us, ".2f"),
    "search_us": (Column("search µs", "µs per query, in a batch", "lower"), lambda c: c.search_us, ".0f"),
    "query_us": (Column("query µs at n", "about, µs per query", "lower"), lambda c: c.search_us_at_n, ".0f"),
    "wmops": (Column("WMOPS", "counted cost of encoding a vector", "lower"), lambda c: c.wmops, ".3g"),
}
_SEARCH = Chart("{y} against search time", "search_us", "µs per query", log_x=True, joined=False)
_SEARCH_AT_N = Chart("{y} against search time at n", "query_us", "µs per query, about", log_x=True, joined=False)
_CHARTS = (
    Chart("{y} against encoding time", "encode_us", "µs per vector", log_x=True, joined=False),
    Chart("{y} against the counted cost of encoding", "wmops", "WMOPS per vector", log_x=True, joined=False),
    Chart("{y} against learning time at n", "learning_s", "seconds, about", log_x=True, joined=False),
)
_TEXT = (
    f"±: half of the 95 % interval, with queries as the sample. {SAME}: these queries do not tell it from the highest. "
    "Codes of the last stage are compared with each other; others were measured on fewer vectors. Predicted recall, "
    "with its 95 % interval, is for as many vectors as the column says; the time of a query there is an estimate. "
)


def report(choice: Choice, path: str | os.PathLike[str], command: str = "annvq choose") -> int:
    """Write the page of a choice; returns its size in bytes.

    Args:
        path: of the HTML file.
        command: that made the choice.
    """
    return write(page(choice, command), path)


def _columns(choice: Choice) -> dict[str, _Shown]:
    """The table's columns; those that say what k and n are come first."""
    criterion, there = choice.asked.criterion, at_n(choice.for_n)
    found = {
        criterion: (Column(criterion, "share of neighbours", "higher", recall=True), lambda c: c.recall, ".3f"),
        _PREDICTED: (
            Column(f"{criterion} {there} (predicted)", "from samples of several sizes", "higher"),
            lambda c: c.predicted[criterion].value if c.predicted else None,
            ".3f",
        ),
    }
    later = {
        "learning_s": Column(
            f"train s {there} (predicted)", "seconds of learning by fit, from what the sample took", "lower"
        ),
        "query_us": replace(_COLUMNS["query_us"][0], title=f"query µs {there}"),
    }
    return found | {
        name: (later.get(name, column), get, shown)
        for name, (column, get, shown) in _COLUMNS.items()
        if name not in found
    }


def page(choice: Choice, command: str = "annvq choose") -> Page:
    """The page of a choice."""
    best = choice.recommended
    text = f"{_TEXT}{choice.effort()}"
    more = [] if choice.beyond is None else [choice.beyond]
    shown, criterion = _columns(choice), choice.asked.criterion
    lines = [_line(c, choice, shown, command) for c in [*choice.candidates, *more]]
    lines.sort(key=lambda line: -(line.values[criterion].number or 0) if criterion in line.values else 1)
    section = Section(
        f"{choice.bits} bits per vector: {choice.n:,} vectors, {choice.nq:,} held-out queries",
        text,
        {
            "stage": Column("stage", "how closely it was measured", text=True),
            **{name: column for name, (column, _, _) in shown.items()},
        },
        lines,
        (_SEARCH if best.search_us_at_n is None else _SEARCH_AT_N, *_CHARTS),
    )
    environment = environment_shown(facts(choice.threads)) | {"command": command}
    lead = "\n".join(choice.said())
    notes = [f"In Python: {best.code_line()}"]
    rows = [c.to_dict() for c in choice.candidates]
    headline = f"Recommended: {best.label}"
    return Page("annvq choose", [section], lead, [environment], notes, rows, headline)


def _line(c: Candidate, choice: Choice, columns: dict[str, _Shown], command: str) -> Line:
    if c.recall is None:
        why = f"failed: {c.error}" if c.error else f"not measured: {c.skipped}"
        return Line(c.label, "", {}, {}, command, error=why, failed=c.error is not None)
    last, top = choice.recommended.stage, choice.front[0]
    compared = c.stage == last and c.bits_per_vector == top.bits_per_vector
    values, criterion = {}, choice.asked.criterion
    for name, (_, get, shown) in columns.items():
        value = get(c)
        if value is None:
            continue
        figure = c.recall_figure if name == criterion else Figure(value)
        if name == _PREDICTED and c.predicted:
            figure = c.predicted[criterion]
        same = name == criterion and compared and c is not top and not told_apart(c.recall_figure, top.recall_figure)
        best = name == criterion and c is top
        values[name] = Value(value, number(figure, shown), figure.low, figure.high, SAME if same else "", best)
    marks: dict[str, Any] = {"recommended": c is choice.recommended, "on the front": c in choice.front}
    marks |= {f"{LATE} too long to learn": takes_too_long(c, choice.asked)}
    stage = ", ".join([c.stage, *(name for name, holds in marks.items() if holds)])
    values["stage"] = Value(None, stage)
    label = f"★ {c.label}" if c is choice.recommended else c.label
    return Line(label, stage, values, {}, command)
