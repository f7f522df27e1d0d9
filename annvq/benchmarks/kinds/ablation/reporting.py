"""Tables and pictures of what learned codebooks how well."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from annvq.benchmarks import plot
from annvq.benchmarks.report import compared, environment_line, heading, measured, split_absent
from annvq.benchmarks.results import Row
from annvq.benchmarks.statistics import SAME_SHORT, SAME_TEXT
from annvq.benchmarks.suite import Suite

_TEXT = """\
`setting`
    `"codebooks"`: the quantizer alone. Codebooks are all there is to learn, and the loss is the error itself.
    `"maps"`: the quantizer between two learned linear maps, a layer of a network in its smallest form; now gradients
    have to pass *through* it.
`start`
    `"k-means"`: ten iterations of (residual) k-means, not counted in the time. `"random"`: normal codebooks.

Distances are exact ones to decoded vectors, and bits are those of the code: nothing is compared across quantizers.
"""


def grouped(rows: list[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by what is compared, then by learner: one row per seed."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        of = f"{row['dataset']}: {row['kind']} {row['M']}x{row['nbits']}, {row['setting']}, from a {row['start']} start"
        groups.setdefault(of, {}).setdefault(row["method"], []).append(row)
    return groups


_SHOWN = {"steps": ",.0f", "mse": ".4g", "recall@1": ".3f", "recall@10": ".3f", "10-recall@10": ".3f", "dead": ".1%"}
_BETTER = {"mse": "lower", "recall@1": "higher", "recall@10": "higher", "10-recall@10": "higher"}


def lines_of(learners: Mapping[str, list[Row]], bold: str) -> list[list[str]]:
    """A line per learner: means over the seeds that could be measured, ``bold`` (a format of one place) where best."""
    texts = {
        name: compared(learners, name, _BETTER.get(name), shown, spread=name in _BETTER, bold=bold)[0]
        for name, shown in _SHOWN.items()
    }
    return [
        [learner, *(texts[name][learner] for name in _SHOWN)]
        if measured(group)
        else [learner, f"failed: {group[0]['error']}", *[""] * (len(_SHOWN) - 1)]
        for learner, group in learners.items()
    ]


def tables(rows: list[Row]) -> list[Table]:
    """One rich table per comparison."""
    rows, _ = split_absent(rows)
    out = []
    for title, learners in grouped(rows).items():
        title = f"{title}; {rows[0]['seconds']} s of processor time"
        table = Table(title=title, title_justify="left", caption=SAME_SHORT, caption_justify="left")
        for name in ("learned by", *_SHOWN):
            table.add_column(name, justify="left" if name == "learned by" else "right")
        for line in lines_of(learners, "[bold]{}[/bold]"):
            table.add_row(*line)
        out.append(table)
    return out


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png``, the errors, and ``report.md``, the tables."""
    rows, missing = split_absent(rows)
    groups = grouped(rows)
    picture(
        {
            title: {m: [r["mse"] for r in g if r["error"] is None] for m, g in by.items()}
            for title, by in groups.items()
        },
        out / "report.png",
        f"{suite.title}\n{environment_line(rows[-1])}" if rows else suite.title,
    )
    seconds = rows[0]["seconds"] if rows else 0
    lines = [*heading(suite, rows, f" Each learned for {seconds} s of processor time."), "![](report.png)"]
    for title, learners in groups.items():
        lines += ["", f"## {title}", "", "| learned by | " + " | ".join(_SHOWN) + " |", "|---|" + "---:|" * len(_SHOWN)]
        lines += ["| " + " | ".join(line) + " |" for line in lines_of(learners, "**{}**")]
    (out / "report.md").write_text("\n".join([*lines, *missing, "", SAME_TEXT, "", _TEXT]), encoding="utf-8")


def picture(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Path, title: str) -> None:
    """Mean error of each method, one panel per comparison; dots are the seeds."""
    held = {name: {m: v for m, v in methods.items() if v} for name, methods in groups.items()}
    columns = min(3, max(1, len(held)))
    figure, axes = plot.figure(-(-max(1, len(held)) // columns), columns)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, methods) in zip(axes.flat, held.items(), strict=False):
        axis.set_visible(True)
        for at, (method, values) in enumerate(methods.items()):
            axis.barh(
                at, sum(values) / len(values), color=plot.COLOURS[at % len(plot.COLOURS)], alpha=0.7, label=method
            )
            axis.plot(values, [at] * len(values), "k.", markersize=4)
        axis.set_yticks(range(len(methods)), list(methods), fontsize=8)
        axis.invert_yaxis()
        axis.set_title(name, loc="left", fontsize=8)
        axis.set_xlabel("mean of ‖x − x̂‖²", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)
