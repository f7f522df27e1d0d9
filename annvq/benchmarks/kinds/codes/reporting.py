"""Tables and pictures of codes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from annvq.benchmarks import plot
from annvq.benchmarks.metrics import COLUMNS
from annvq.benchmarks.report import environment_line, heading
from annvq.benchmarks.results import Row
from annvq.benchmarks.suite import Suite

_RECALL = "recall@10"


def cell(row: Row, column: str) -> str:
    """A value as a table shows it."""
    value = row.get(column)
    if value is None:
        return "–"
    return format(value, COLUMNS[column].format) if column in COLUMNS else str(value)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Columns worth showing: those that some row has a value for."""
    held = list(rows)
    return [name for name in COLUMNS if any(row.get(name) is not None for row in held)]


def best_values(rows: Sequence[Row], columns: Iterable[str]) -> dict[str, Any]:
    """The best value of each column among ``rows``."""
    best = {}
    for name in columns:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values and name != "bits_per_vector":
            best[name] = min(values) if COLUMNS[name].better == "lower" else max(values)
    return best


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


def tables(rows: Sequence[Row]) -> list[Table]:
    """One rich table per data set and budget; the best of each column is bold."""
    out = []
    for group in grouped(rows).values():
        columns = columns_of(rows)
        best = best_values(group, columns)
        table = Table(title=_title(group), title_justify="left")
        table.add_column("method", no_wrap=True)
        for name in columns:
            table.add_column(COLUMNS[name].title, justify="right")
        for row in group:
            if row["error"] is not None:
                table.add_row(row["method"], f"[red]failed:[/red] {row['error']}")
                continue
            cells = [cell(row, c) for c in columns]
            shown = [
                f"[bold]{text}[/bold]" if c in best and row[c] == best[c] else text
                for c, text in zip(columns, cells, strict=True)
            ]
            table.add_row(row["method"], *shown)
        out.append(table)
    return out


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
        best = best_values(group, columns)
        lines += ["", f"## {_title(group)}", ""]
        lines += [
            _how(group[0]),
            "",
            "| method | " + " | ".join(COLUMNS[c].title for c in columns) + " |",
            "|---|" + "---:|" * len(columns),
        ]
        for row in group:
            if row["error"] is not None:
                lines.append(f"| {row['method']} | failed: {row['error']} |" + " |" * (len(columns) - 1))
                continue
            cells = [f"**{cell(row, c)}**" if c in best and row[c] == best[c] else cell(row, c) for c in columns]
            lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    lines += ["", "How it is measured: `docs/benchmarks.md`.", ""]
    return "\n".join(lines)


def picture(rows: Sequence[Row], path: Path, title: str) -> None:
    """Recall against bits, counted and measured cost of encoding; one row of panels per data set."""
    good = [row for row in rows if row["error"] is None and row.get(_RECALL) is not None]
    datasets = list(dict.fromkeys(row["dataset"] for row in good))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = ("bits_per_vector", "wmops", "encode_us")
    figure, axes = plot.figure(max(1, len(datasets)), len(panels))
    for line, dataset in zip(axes, datasets, strict=False):
        for axis, column in zip(line, panels, strict=True):
            for method in methods:
                points = sorted(
                    (row[column], row[_RECALL])
                    for row in good
                    if row["dataset"] == dataset and row["method"] == method and row[column] is not None
                )
                if points:
                    axis.plot(*zip(*points, strict=True), label=method, **plot.style(methods, method))
            axis.set_xlabel(COLUMNS[column].unit)
            axis.set_ylabel(f"{_RECALL} (1-recall@10)" if column == panels[0] else "")
            if column != "bits_per_vector":
                axis.set_xscale("log")
            else:
                axis.set_xticks(sorted({row[column] for row in good}))
            axis.grid(alpha=0.3)
        line[0].set_title(dataset, loc="left")
    if good:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        where = environment_line(good[-1])
        figure.suptitle(f"{title}\n{where}" if title else where, fontsize=9)
    else:
        axes[0][0].text(0.5, 0.5, "no row was measured", ha="center")
    figure.savefig(path)
