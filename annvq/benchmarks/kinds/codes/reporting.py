"""Tables and pictures of codes."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from annvq.benchmarks import plot
from annvq.benchmarks.metrics import COLUMNS
from annvq.benchmarks.report import compared, environment_line, heading, measured, over_seeds, seeds_note
from annvq.benchmarks.results import Row
from annvq.benchmarks.statistics import SAME_SHORT, SAME_TEXT, figure_of
from annvq.benchmarks.suite import Suite

_RECALL, _FINER = "recall@10", "10-recall@10"
_NEARLY_ALL = 0.99
_MOST_TICKS = 8
_PANELS = ("bits_per_vector", "wmops", "encode_us")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Columns worth showing: those that some row has a value for."""
    held = list(rows)
    return [name for name in COLUMNS if any(row.get(name) is not None for row in held)]


def grouped(rows: Iterable[Row]) -> dict[tuple[str, int | None], list[Row]]:
    """Rows by (data set, budget), in order of appearance."""
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["bits"]), []).append(row)
    return groups


def _title(group: Sequence[Row]) -> str:
    row = group[0]
    if row["n"] is None:
        return f"{row['dataset']}: not measured"
    over = any((other.get("bits_per_vector") or 0) > other["bits"] for other in group)
    more = ", or more where a method has no such code" if over else ""
    return f"{row['dataset']}: n = {row['n']:,}, d = {row['d']}, {row['bits']} bits per vector in all{more}"


def lines_of(rows: Sequence[Row], columns: Sequence[str], bold: str, *, spread: bool) -> list[list[str]]:
    """A table's lines, one per method: its name and its columns, ``bold`` (a format of one place) where it is the best.

    The line of a method that failed says why and has no columns.
    """
    methods = over_seeds(rows)
    texts = {}
    for name in columns:
        better = None if name == "bits_per_vector" else COLUMNS[name].better
        texts[name], _ = compared(methods, name, better, COLUMNS[name].format, spread=spread, bold=bold)
    out = []
    for method, group in methods.items():
        good = measured(group)
        if good:
            out.append([method + seeds_note(good), *(texts[name][method] for name in columns)])
        else:
            out.append([method, f"failed: {group[0]['error']}"])
    return out


def tables(rows: Sequence[Row]) -> list[Table]:
    """One rich table per data set and budget; the best of each column is bold."""
    out = []
    for group in grouped(rows).values():
        columns = columns_of(rows)
        table = Table(title=_title(group), title_justify="left", caption=_precision(group), caption_justify="left")
        table.add_column("method", no_wrap=True)
        for name in columns:
            table.add_column(COLUMNS[name].title, justify="right")
        for method, *cells in lines_of(group, columns, "[bold]{}[/bold]", spread=False):
            failed = len(cells) == 1 and len(columns) > 1
            table.add_row(method, *(["[red]failed:[/red]" + cells[0].removeprefix("failed:")] if failed else cells))
        out.append(table)
    return out


def _precision(group: Sequence[Row]) -> str | None:
    """What the mark says, and how wide the intervals of recall are; None where nothing was measured."""
    figures = [figure_of(measured(rows), _RECALL) for rows in over_seeds(group).values()]
    halves = [f.half for f in figures if f is not None and f.half is not None]
    if not halves:
        return None
    return f"{SAME_SHORT}; {_RECALL} within ±{max(halves):.3f} or less"


def _how(row: Row) -> str:
    if row["n"] is None:
        return ""
    return (
        f"{row['nq']:,} queries, metric {row['metric']}; trained on {row['n_learn']:,} vectors ({row['learn_source']})."
    )


def report(suite: Suite, rows: Sequence[Row], out: Path) -> None:
    """``report.png`` and ``report.md``."""
    picture(rows, out / "report.png", suite.title)
    (out / "report.md").write_text(markdown(suite, rows), encoding="utf-8")


def markdown(suite: Suite, rows: Sequence[Row]) -> str:
    """The report as Markdown: how it was measured, the picture, a table per data set and budget."""
    lines = [*heading(suite, rows), "![](report.png)"]
    for group in grouped(rows).values():
        columns = columns_of(rows)
        lines += ["", f"## {_title(group)}", ""]
        lines += [
            _how(group[0]),
            "",
            "| method | " + " | ".join(COLUMNS[c].title for c in columns) + " |",
            "|---|" + "---:|" * len(columns),
        ]
        for method, *cells in lines_of(group, columns, "**{}**", spread=True):
            lines.append(f"| {method} | " + " | ".join(cells) + " |" + " |" * (len(columns) - len(cells)))
    lines += ["", f"{SAME_TEXT} How it is measured: `docs/benchmarks.md`.", ""]
    return "\n".join(lines)


def over_budgets(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of a method by budget: those of one budget differ in their seed alone."""
    return [list(group) for group in grouped(rows).values()]


def _drawn_recall(rows: Sequence[Row]) -> str:
    """The recall that pictures show: recall@10, or 10-recall@10 where a third of the rows find nearly all by the
    first."""
    reached = [row[_RECALL] >= _NEARLY_ALL for row in rows if row.get(_FINER) is not None]
    return _FINER if reached and 3 * sum(reached) >= len(reached) else _RECALL


def _is_drawn(row: Row) -> bool:
    return row["error"] is None and row.get(_RECALL) is not None


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the line that they are drawn in: a method each, or methods that differ in their bits a dimension alone,
    as RaBitQ of one, two and four."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    stems = {method: re.sub(r", \d+ bits?$", "", method) for method in methods}
    several = {stem for stem in stems.values() if list(stems.values()).count(stem) > 1}
    lines: dict[str, list[Row]] = {}
    for row in rows:
        stem = stems[row["method"]]
        lines.setdefault(stem if stem in several else row["method"], []).append(row)
    return lines


def _point(rows: Sequence[Row], column: str, recall: str) -> tuple[float, float, float, float] | None:
    """Where a method stands in the picture at a budget, and how far its interval reaches down and up."""
    x, y = figure_of(rows, column), figure_of(rows, recall)
    if x is None or y is None:
        return None
    return x.value, y.value, y.value - (y.value if y.low is None else y.low), (y.high or y.value) - y.value


def _ticks(axis: Any, values: Sequence[float], budgets: Sequence[int]) -> None:
    """One at each number of bits; where they are many, on a logarithmic axis, at the budgets alone."""
    if len(values) > _MOST_TICKS:
        axis.set_xscale("log")
        axis.minorticks_off()
        values = budgets
    axis.set_xticks(values, labels=[f"{value:g}" for value in values])


def picture(rows: Sequence[Row], path: Path, title: str, panels: Sequence[str] = _PANELS) -> None:
    """Recall against bits, counted and measured cost of encoding (``panels``); one row of them per data set."""
    good = [row for row in rows if _is_drawn(row)]
    datasets, recall = list(dict.fromkeys(row["dataset"] for row in good)), _drawn_recall(good)
    lines = _lines(rows)
    methods = list(lines)
    figure, axes = plot.figure(max(1, len(datasets)), len(panels))
    for line, dataset in zip(axes, datasets, strict=False):
        for axis, column in zip(line, panels, strict=True):
            for method in methods:
                held = [row for row in lines[method] if row["dataset"] == dataset and _is_drawn(row)]
                points = [p for p in (_point(rows, column, recall) for rows in over_budgets(held)) if p is not None]
                if points:
                    x, y, down, up = zip(*sorted(points), strict=True)
                    axis.errorbar(x, y, (down, up), label=method, capsize=2, **plot.style(methods, method))
            axis.set_xlabel(COLUMNS[column].unit)
            named = f"{_RECALL} (1-recall@10)" if recall == _RECALL else recall
            axis.set_ylabel(named if column == panels[0] else "")
            if column != "bits_per_vector":
                axis.set_xscale("log")
            else:
                _ticks(axis, sorted({row[column] for row in good}), sorted({row["bits"] for row in good}))
            axis.grid(alpha=0.3)
        line[0].set_title(dataset, loc="left")
    if good:
        handles, labels = axes[0][0].get_legend_handles_labels()
        columns = 4 if len(panels) > 1 else 2
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        where = environment_line(good[-1])
        if title or len(panels) > 1:
            figure.suptitle(f"{title}\n{where}" if title else where, fontsize=9)
    else:
        axes[0][0].text(0.5, 0.5, "no row was measured", ha="center")
    figure.savefig(path)
