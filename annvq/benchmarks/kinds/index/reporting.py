"""Tables and a picture of the rows of an index suite."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from annvq.benchmarks import plot
from annvq.benchmarks.report import compared, environment_line, heading, number, split_absent
from annvq.benchmarks.results import Row
from annvq.benchmarks.statistics import SAME, SAME_SHORT, SAME_TEXT, figure_of_row
from annvq.benchmarks.suite import Suite

_COSTS = {
    "first_add_ms": "first, ms",
    "add_1_ms": "one, ms",
    "add_64_ms": "64 at once, ms",
    "adds_per_s": "adds/s",
    "upsert_1_ms": "one replaced, ms",
    "upsert_64_ms": "64 replaced, ms",
    "upserts_per_s": "upserts/s",
}
TARGETS = {"recall@1": (0.2, 0.3, 0.4, 0.5), "10-recall@10": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)}


_SEARCH_TEXT = (
    "Bytes: what is stored per vector to score it, as the index itself says (code, norm, vectors kept for re-ranking), "
    "or the file's size where it does not say. Build: training and adding, on all cores. QPS at a recall: the fastest "
    "setting that reaches it. Highest: 10-recall@10. " + SAME_TEXT
)
_ADDING_TEXT = (
    "Adding: a process opens the saved index; first: the first vector added then. One, 64 at once: medians of calls "
    "with the processor's caches filled by something else before each. A second: one vector after another. Replaced: "
    "by upsert. ± half of the distance between the quartiles."
)


def _groups(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by title, then by method."""
    out: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        title = f"{row['dataset']}, n = {row['n']:,}, d = {row['d']}, {row['threads']} threads, {row['queries']}"
        title = title.replace(" 1 threads", " 1 thread") + (f": {row['group']}" if row["group"] else "")
        out.setdefault(title, {}).setdefault(row["method"], []).append(row)
    return out


def best_at(rows: Iterable[Row], column: str, target: float) -> Row | None:
    """The setting with the most queries a second among those that reach ``target``; None where none does."""
    reaching = [row for row in rows if row[column] is not None and row[column] >= target]
    return max(reaching, key=lambda row: row["qps"], default=None)


def at_recalls(rows: Sequence[Row]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """For each group: a header, and a line per method with its queries a second at each recall that any reaches."""
    out = {}
    for title, methods in _groups(rows).items():
        good = {m: [row for row in group if row["error"] is None] for m, group in methods.items()}
        reached = [
            (column, target)
            for column, targets in TARGETS.items()
            for target in targets
            if any(best_at(group, column, target) is not None for group in good.values())
        ]
        header = ["QPS at recall of at least", "bytes", "build s", *(f"{c} {t:g}" for c, t in reached), "highest"]
        at = {key: _marked({m: best_at(group, *key) for m, group in good.items()}) for key in reached}
        tops = {m: max(group, key=lambda row: row["10-recall@10"], default=None) for m, group in good.items()}
        highest, _ = compared({m: [top] if top else [] for m, top in tops.items()}, "10-recall@10", "higher", ".3f")
        lines = []
        for method, group in good.items():
            if not group:
                lines.append([method, f"failed: {methods[method][0]['error']}", *[""] * (len(header) - 2)])
                continue
            first = group[0]
            size = first["bits_per_vector"] / 8 if first["bits_per_vector"] else first["file_bytes_per_vector"]
            shown = [at[key][method] for key in reached]
            built = f"{first['train_s'] + first['add_s']:,.0f}"
            lines.append([method, f"{size:,.0f}", built, *shown, highest[method]])
        out[title] = header, lines
    return out


def _marked(best: dict[str, Row | None]) -> dict[str, str]:
    """Queries a second of each method's setting, marked where they cannot be told from the most."""
    rows = {method: [row] if row else [] for method, row in best.items()}
    return compared(rows, "qps", "higher", ",.0f", spread=False)[0]


def _line(row: Row) -> str:
    settings = ", ".join(f"{k} {v}" for k, v in row["settings"].items())
    if row["error"] is not None:
        return f"| {row['method']} | {settings} | failed: {row['error']} |" + " |" * 7
    spread = 100 * (max(row["qps_all"]) - min(row["qps_all"])) / row["qps"]
    bits = "–" if row["bits_per_vector"] is None else f"{row['bits_per_vector'] / 8:.0f}"
    ram = row.get("ram_bits_per_vector")  # not in older rows
    return (
        f"| {row['method']} | {settings} | {row['qps']:,.0f} | {spread:.0f}% | {_recall(row, 'recall@1')} | "
        f"{_recall(row, '10-recall@10')} | {bits} | {'–' if ram is None else f'{ram / 8:.0f}'} | "
        f"{row['file_bytes_per_vector']:.0f} | {row['simd']} |"
    )


def _recall(row: Row, column: str) -> str:
    return number(figure_of_row(row, column), ".3f")


def split_streams(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of searches, and rows of what adding costs."""
    return [row for row in rows if "stream" not in row], [row for row in rows if "stream" in row]


def _cost(row: Row, name: str, shown: str) -> str:
    """A median, and how far the middle half of its repeats spreads, in per cent of it."""
    if row.get(name) is None:
        return "–"
    value, repeats = row[name], row.get(f"{name}_all")
    spread = np.subtract(*np.percentile(repeats, [75, 25])) / value if repeats else 0
    return f"{value:{shown}}" + (f" ±{50 * spread:.0f}%" if repeats else "")


def adding(rows: Sequence[Row]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """For each data set and group: a header, and a line per index with what adding to it costs."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        title = f"Adding to {row['n']:,} vectors of {row['dataset']}, d = {row['d']}, {row['threads']} threads"
        title = title.replace(" 1 threads", " 1 thread") + (f": {row['group']}" if row["group"] else "")
        groups.setdefault(title, []).append(row)
    out = {}
    for title, group in groups.items():
        header = ["index", *_COSTS.values(), "bytes", "SIMD"]
        lines = []
        for row in group:
            if row["error"] is not None:
                lines.append([row["method"], f"failed: {row['error']}", *[""] * (len(header) - 2)])
                continue
            costs = [_cost(row, name, ",.0f" if name.endswith("_s") else ".3g") for name in _COSTS]
            size = "–" if row["bits_per_vector"] is None else f"{row['bits_per_vector'] / 8:.0f}"
            lines.append([row["method"], *costs, size, row["simd"]])
        out[title] = header, lines
    return out


def tables(rows: list[Row]) -> list[Table]:
    """Rich tables: queries a second at recalls, and what adding costs; one per data set and group."""
    out = []
    searches, streams = split_streams(split_absent(rows)[0])
    for title, (header, lines) in (at_recalls(searches) | adding(streams)).items():
        caption = SAME_SHORT if any(SAME in cell for line in lines for cell in line) else None
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        for at, name in enumerate(header):
            table.add_column(name, justify="right" if at else "left")
        for line in lines:
            table.add_row(*line)
        out.append(table)
    return out


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png``: queries a second against recall; ``report.md``: at recalls, what adding costs, every row."""
    rows, missing = split_absent(rows)
    picture(split_streams(rows)[0], out / "report.png", suite.title)
    text = "\n".join([*markdown(suite, rows), *missing, "", "How it is measured: `docs/benchmarks.md`.", ""])
    (out / "report.md").write_text(text, encoding="utf-8")


def markdown(suite: Suite, rows: Sequence[Row]) -> list[str]:
    """Lines of the report: how it was measured, queries a second at recalls, every setting, what adding costs."""
    searches, streams = split_streams(rows)
    lines = [*heading(suite, rows), *(_searched(searches) if searches else [])]
    if streams:
        lines += ["", _ADDING_TEXT]
    for title, (header, body) in adding(streams).items():
        lines += ["", f"## {title}", "", *_table(header, body)]
    return lines


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rule = "|---|" + "---:|" * (len(header) - 1)
    return ["| " + " | ".join(header) + " |", rule, *("| " + " | ".join(line) + " |" for line in body)]


def _searched(rows: Sequence[Row]) -> list[str]:
    lines = [_SEARCH_TEXT, "", "![](report.png)"]
    for title, (header, body) in at_recalls(rows).items():
        lines += ["", f"## {title}", "", *_table(header, body)]
    lines += [
        "",
        "## Every setting",
        "",
        "| index | settings | QPS | spread | recall@1 | 10-recall@10 | bytes | RAM | file bytes | SIMD |",
    ]
    return [*lines, "|---|---|---:|---:|---:|---:|---:|---:|---:|---|", *map(_line, rows)]


def picture(rows: Sequence[Row], path: Path, title: str) -> None:
    """Queries a second against both recalls, a row of panels per group."""
    groups = _groups(row for row in rows if row["error"] is None) or {"nothing measured": {}}
    figure, axes = plot.figure(len(groups), 2)
    for line, (name, methods) in zip(axes, groups.items(), strict=True):
        for axis, column in zip(line, TARGETS, strict=True):
            for method, group in methods.items():
                points = sorted((row[column], row["qps"]) for row in group if row[column] is not None)
                if points:
                    axis.plot(*zip(*points, strict=True), label=method, **plot.style(list(methods), method))
            axis.set_xlabel(column)
            axis.set_yscale("log")
            axis.grid(alpha=0.3, which="both")
        line[0].set_ylabel("queries a second")
        line[0].set_title(name, loc="left", fontsize=8)
        if methods:
            line[1].legend(fontsize=6, frameon=False)
    good = [row for row in rows if row["error"] is None]
    figure.suptitle(f"{title}\n{environment_line(good[-1])}" if good else title, fontsize=9)
    figure.savefig(path)
