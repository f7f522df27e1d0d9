"""Tables and a picture of the rows of a scan suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from annvq.benchmarks import plot
from annvq.benchmarks.report import environment_line, heading, split_absent
from annvq.benchmarks.results import Row
from annvq.benchmarks.statistics import SAME, Figure, figure_of_row, told_apart
from annvq.benchmarks.suite import Suite

COLUMNS = (
    "codes", "n", "k", "queries", "rival", "annvq QPS", "rival QPS", "ratio", "by CPU", "ns/vector",
    "look-ups/ns", "of ceiling", "recall@1, rival's", "same ids", "levels",
)  # fmt: skip
LEFT = (0, 3, 4, 14)
_WIDE = 2  # so many columns, the last, are for the report: a terminal is no wider


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by data set, threads and SIMD level, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        level = "AVX2 on both sides" if row["simd"] == "avx2" else "each at its best SIMD level"
        title = f"{row['dataset']}, d = {row['d']}, {row['threads']} thread{'s'[: row['threads'] > 1]}, {level}"
        groups.setdefault(title, []).append(row)
    return groups


def _spread(row: Row, name: str) -> str:
    """Median, and how far the pairs went from it, in per cent."""
    median, values = row[name], row[f"{name}_all"]
    return f"{median:,.0f} ±{100 * max(max(values) - median, median - min(values)) / median:.0f}%"


def _ratio(row: Row) -> str:
    """The ratio, marked where the pairs do not tell it from 1."""
    figure = figure_of_row(row, "ratio")
    assert figure is not None  # rows that failed are shown otherwise
    return f"{'' if told_apart(figure, Figure(1.0)) else SAME + ' '}{figure.value:.2f}×"


def cells(row: Row) -> list[str]:
    """A row as tables show it."""
    filtered = f", {row['filter']:.0%} filter" if row["filter"] else ""
    codes = f"{row['code']} {row['M']}x8{' + norm' if row['code'] == 'residual' else ''}"
    shape = [codes, f"{row['n']:,}", str(row["k"]), row["queries"] + filtered, row["rival"]]
    if row["error"] is not None:
        return [*shape, f"failed: {row['error'].splitlines()[0][:80]}", *[""] * (len(COLUMNS) - 6)]
    measured = [_spread(row, "qps"), _spread(row, "rival_qps"), _ratio(row)]
    # Threads that wait for one another spend processor time too: it says nothing of more than one.
    measured.append(f"{row['cpu_ratio']:.2f}×" if row["threads"] == 1 and row.get("cpu_ratio") else "–")
    measured += [f"{row['ns_per_vector']:.3g}", f"{row['lookups_per_ns']:.1f}"]
    measured.append("–" if row.get("ceiling_share") is None else f"{row['ceiling_share']:.0%}")
    recalls = [row.get(name) for name in ("recall@1", "rival_recall@1")]
    measured.append("–" if None in recalls else ", ".join(f"{r:.3f}" for r in recalls))
    measured.append("–" if row.get("same_ids") is None else f"{row['same_ids']:.3f}")
    return [*shape, *measured, f"{row['own_simd']}, {row['rival_simd']}"]


def tables(rows: list[Row]) -> list[Table]:
    """Rich tables, one per data set, threads and SIMD level."""
    out = []
    for title, group in grouped(split_absent(rows)[0]).items():
        caption = f"{SAME}: the pairs do not tell the ratio from 1"
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        for at, name in enumerate(COLUMNS[:-_WIDE]):
            table.add_column(name, justify="left" if at in LEFT else "right")
        for row in group:
            table.add_row(*cells(row)[:-_WIDE])
        out.append(table)
    return out


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png`` and ``report.md``."""
    rows, missing = split_absent(rows)
    picture(rows, out / "report.png", suite.title)
    text = "\n".join([*markdown(suite, rows), *missing, "", "How it is measured: `docs/benchmarks.md`.", ""])
    (out / "report.md").write_text(text, encoding="utf-8")


def markdown(suite: Suite, rows: Sequence[Row]) -> list[str]:
    """Lines of the report: how it was measured, a picture, a table per data set, threads and SIMD level."""
    lines = [
        *heading(suite, rows),
        "QPS: median, and the widest distance of a pair from it. Levels: annvq's SIMD level, and that at which the "
        "rival was fastest. Ratio: "
        f"median of the pairs' own ratios ({SAME}: the pairs do not tell it from 1); by CPU: of processor time, on one "
        "thread. ns/vector and look-ups/ns are "
        "annvq's, with all that a query costs (tables, heap, call); of ceiling: the share of it that the cheapest "
        "look-ups alone would take, from the first cache, at the level in use. Same ids: share of results in which "
        "both agree; FastScan scans other codes, and a norm byte is rounded differently.",
        "",
        "![](report.png)",
    ]
    for title, group in grouped(rows).items():
        marks = "".join("---|" if at in LEFT else "---:|" for at in range(len(COLUMNS)))
        lines += ["", f"## {title}", "", "| " + " | ".join(COLUMNS) + " |", "|" + marks]
        lines += ["| " + " | ".join(cells(row)) + " |" for row in group]
    return lines


def picture(rows: Sequence[Row], path: Path, title: str) -> None:
    """Ratio of every comparison that worked, against n, by rival; one panel per data set."""
    good = [row for row in rows if row["error"] is None]
    datasets = list(dict.fromkeys(row["dataset"] for row in good)) or ["nothing measured"]
    rivals = list(dict.fromkeys(row["rival"] for row in good))
    figure, axes = plot.figure(1, len(datasets))
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for rival in rivals:
            points = [(row["n"], row["ratio"]) for row in good if (row["dataset"], row["rival"]) == (dataset, rival)]
            if points:
                style: dict[str, Any] = plot.style(rivals, rival) | {"linestyle": "none", "alpha": 0.6}
                axis.plot(*zip(*points, strict=True), label=rival, **style)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("n")
        axis.set_ylabel("annvq's QPS over the rival's" if axis is axes[0][0] else "")
        axis.set_title(dataset, loc="left")
        axis.grid(alpha=0.3, which="both")
    if good:
        handles: dict[str, Any] = {}
        for axis in axes[0]:
            handles |= {label: h for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(f"{title}\n{environment_line(good[-1])}", fontsize=9)
    figure.savefig(path)
