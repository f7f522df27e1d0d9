"""Tables: in the terminal, and in ``report.md``."""

from collections.abc import Iterable, Sequence
from typing import Any

from annvq.benchmarks.metrics import COLUMNS
from annvq.benchmarks.results import Row
from annvq.benchmarks.suite import Suite


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


def environment_line(row: Row) -> str:
    """Where a row was measured, in one line."""
    env = row["env"]
    versions = env["versions"]
    shown = ("annvq", "faiss-cpu", "torch")
    libraries = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    commit = f", commit {env['commit']}" if env.get("commit") else ""
    return f"{env['cpu']}, SIMD {env['simd']}, {env['threads']} threads; {libraries}{commit}; {row['date']}"


def _heading(row: Row) -> str:
    if row["n"] is None:
        return f"{row['dataset']}: not measured"
    return f"{row['dataset']}: n = {row['n']:,}, d = {row['d']}, {row['bits']} bits per vector in all"


def terminal_table(rows: Sequence[Row]) -> list[Any]:
    """One rich table per data set and budget; the best of each column is bold."""
    from rich.table import Table

    tables = []
    for group in grouped(rows).values():
        columns = columns_of(rows)
        best = best_values(group, columns)
        first = group[0]
        table = Table(title=_heading(first), title_justify="left")
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
        tables.append(table)
    return tables


def _how(row: Row) -> str:
    if row["n"] is None:
        return ""
    return (
        f"{row['nq']:,} queries, metric {row['metric']}; trained on {row['n_learn']:,} vectors ({row['learn_source']})."
    )


def markdown(suite: Suite, rows: Sequence[Row], pictures: Iterable[str]) -> str:
    """The report as Markdown: how it was measured, pictures, a table per data set and budget."""
    lines = [f"# {suite.title or suite.name}", ""]
    if rows:
        lines += [f"Measured with {environment_line(rows[-1])}.", ""]
    lines += [f"![]({picture})" for picture in pictures]
    for group in grouped(rows).values():
        columns = columns_of(rows)
        best = best_values(group, columns)
        lines += ["", f"## {_heading(group[0])}", ""]
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
