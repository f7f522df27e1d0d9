"""Tables and pictures of the paper's figures, ours beside the published ones where the user has them."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from annvq.benchmarks import plot, statistics
from annvq.benchmarks.kinds import toy
from annvq.benchmarks.kinds.paper.published import METHODS, Curve, Published, read
from annvq.benchmarks.report import environment_line, heading, measured, split_absent
from annvq.benchmarks.results import Row
from annvq.benchmarks.statistics import Figure, figure_of
from annvq.benchmarks.suite import Suite

_COLUMNS = 3  # panels side by side
_AS_PUBLISHED = 1e-9  # relative difference of counts


@dataclass(frozen=True)
class _Text:
    """A table as words."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class _Rows:
    """Rows by what they are of."""

    errors: list[Row]
    recall: list[Row]
    counts: list[Row]


def _sorted(rows: Iterable[Row]) -> _Rows:
    good = measured(list(rows))
    return _Rows(*([row for row in good if field in row] for field in ("data", "recall_curve", "wmops_published")))


def _samples(row: Row) -> tuple[str, int]:
    """Which published errors a row is compared with: independent components, of whatever distribution, with those."""
    return ("correlated" if row["data"] == "correlated" else "uncorrelated"), row["d"]


def _groups(rows: Sequence[Row], *fields: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that agree in ``fields``, in order of appearance."""
    out: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[field] for field in fields), []).append(row)
    return out


# -- tables ----------------------------------------------------------------------------------------------------------


def _error_table(rows: Sequence[Row], known: Published) -> _Text:
    lines = []
    nsvq = [row for row in rows if row["learning"] == "nsvq"]
    for line in toy.compared(nsvq):
        at = next(row for row in nsvq if row["dataset"] == line["dataset"])
        theirs = known.errors.get(_samples(at), {})
        values = [format(line[m], ".4g") if m in line else "–" for m in METHODS]
        order = " < ".join(line["published"]) if line["published"] else "–"
        ratios = [_ratio(line, theirs, m, line["bits"]) for m in METHODS[1:]]
        lines.append([line["dataset"], str(line["bits"]), *values, line["order"], order, *ratios])
    columns = ["data", "bits", *METHODS, "order", "published order", "RVQ / AVQ", "PVQ / AVQ"]
    about = f"{statistics.SAME}: cannot be told apart" + ("; in brackets the published ratio" if known.errors else "")
    return _Text(f"Figures 2 and 3: mean squared error, codebooks learned by NSVQ ({about})", columns, lines)


def _ratio(ours: Mapping[str, float], theirs: Mapping[str, Curve], method: str, bits: int) -> str:
    """The error of a method over that of additive codes, with the published one in brackets."""
    if method not in ours or "AVQ" not in ours:
        return "–"
    text = f"{ours[method] / ours['AVQ']:.3f}"
    if bits in theirs.get(method, Curve({})).mean and bits in theirs.get("AVQ", Curve({})).mean:
        text += f" ({theirs[method].mean[bits] / theirs['AVQ'].mean[bits]:.3f})"
    return text


def _recall_table(rows: Sequence[Row], known: Published) -> _Text:
    first = rows[0]
    methods = _groups(rows, "method")
    shown = known.recall.get("5", {})
    depths = [T for T, _ in first["recall_curve"]]
    lines = []
    for T in depths:
        cells = [f"{_recall(group, T):.3f}" for group in methods.values()]
        theirs = [format(shown[m].mean[T], ".3f") if m in shown and T in shown[m].mean else "–" for m in METHODS]
        lines.append([str(T), *cells, *(theirs if shown else [])])
    head = ["T", *(name for (name,) in methods), *((f"{m}, published" for m in METHODS) if shown else ())]
    where = f"{first['dataset']} (n = {first['n']:,})"
    title = f"Figure 5: recall@T on {where}, codes of {first['bits']} bits, norms not counted"
    return _Text(title, head, lines)


def _recall(rows: Sequence[Row], T: int) -> float:
    """Mean over seeds."""
    values = [dict(row["recall_curve"])[T] for row in rows]
    return float(sum(values) / len(values))


def _count_table(rows: Sequence[Row], known: Published) -> _Text:
    lines = []
    for (figure, bits), group in _groups(rows, "figure", "bits").items():
        ours = {row["method"]: row["wmops_published"] for row in group}
        off = [difference for row in group if (difference := _difference(row, known)) is not None]
        values = [format(ours[m], ".4g") if m in ours else "–" for m in METHODS]
        lines.append([figure, str(bits), *values, f"{max(off):.0e}" if off else "–"])
    title = "Figures 4c and 6b: counted cost of encoding a vector, WMOPS, by the published convention"
    return _Text(title, ["figure", "bits", *METHODS, "largest difference"], lines)


def _difference(row: Row, known: Published) -> float | None:
    """Of a count from the published one, relative to that; None where there is none."""
    theirs = known.wmops.get(row["figure"], {}).get(row["method"], Curve({})).mean.get(row["bits"])
    return None if theirs is None else abs(row["wmops_published"] - theirs) / theirs


def _texts(rows: Sequence[Row], known: Published) -> list[_Text]:
    held = _sorted(rows)
    out = [_error_table(held.errors, known)] if held.errors else []
    out += [_recall_table(group, known) for group in _groups(held.recall, "dataset", "dataset_digest").values()]
    return [*out, *([_count_table(held.counts, known)] if held.counts else [])]


def tables(rows: list[Row]) -> list[Table]:
    """Rich tables of errors, recall and counts."""
    out = []
    for text in _texts(rows, Published()):
        table = Table(title=text.title, title_justify="left")
        for name in text.columns:
            table.add_column(name, justify="left" if "order" in name or name == "data" else "right")
        for line in text.lines:
            table.add_row(*line)
        out.append(table)
    return out


# -- what reproduces -------------------------------------------------------------------------------------------------


def verdicts(rows: Sequence[Row], known: Published) -> list[str]:
    """Sentences: what comes out as published, and what does not."""
    held = _sorted(rows)
    out = []
    for (dataset,), group in _groups([row for row in held.errors if row["learning"] == "nsvq"], "dataset").items():
        other = []
        by_bits = _groups(group, "bits")
        compared = {line["bits"]: line["published"] for line in toy.compared(group) if line["published"]}
        for bits, order in compared.items():
            figures = {m: figure_of([r for r in by_bits[(bits,)] if r["method"] == m], "mse") for m in METHODS}
            pairs = contradicted(figures, order)
            other += [f"{bits} bits ({', '.join(pairs)})"] if pairs else []
        if compared:
            text = f"{dataset}: the published order at {len(compared) - len(other)} of {len(compared)} rates"
            out.append(text + (f"; not at {', '.join(other)}." if other else "."))
    for (dataset,), group in _groups([r for r in held.recall if r["learning"] == "nsvq"], "dataset").items():
        found = {m: figure_of([r for r in group if r["method"] == m], "recall@1") for m in METHODS}
        present = {m: figure for m, figure in found.items() if figure is not None}
        ordered = dict(sorted(present.items(), key=lambda item: -item[1].value))
        pairs = contradicted(found, METHODS, better="higher")
        told = f"contradicts the published order ({', '.join(pairs)})" if pairs else "contradicts nothing published"
        out.append(f"{dataset}: recall@1 is {toy.chain(ordered, '>')}, which {told}.")
    off = [difference for row in held.counts if (difference := _difference(row, known)) is not None]
    if off:
        same = sum(difference < _AS_PUBLISHED for difference in off)
        out.append(f"Counts: {same} of {len(off)} are the published ones to nine digits.")
    return out


def contradicted(figures: Mapping[str, Figure | None], order: Sequence[str], better: str = "lower") -> list[str]:
    """Pairs of methods that stand the other way round than in ``order`` (best first), as far as they can be told
    apart."""
    out = []
    for first, second in itertools.combinations(order, 2):
        a, b = figures.get(first), figures.get(second)
        if a is None or b is None:
            continue
        wrong = a.value > b.value if better == "lower" else a.value < b.value
        if wrong and statistics.told_apart(a, b):
            out.append(f"{second} before {first}")
    return out


# -- files -----------------------------------------------------------------------------------------------------------


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.md`` and ``report.png``, over the published curves where the suite's ``published`` names them."""
    known = read(Path(suite.settings["published"])) if "published" in suite.settings else Published()
    picture(rows, out / "report.png", suite.title, known)
    (out / "report.md").write_text(markdown(suite, rows, known), encoding="utf-8")


def markdown(suite: Suite, rows: Sequence[Row], known: Published | None = None) -> str:
    """The report as Markdown: where it was measured, the picture, what reproduces, the tables."""
    known = known or Published()
    present, missing = split_absent(rows)
    lines = [*heading(suite, present), "![](report.png)", "", *(f"- {text}" for text in verdicts(present, known))]
    for text in _texts(present, known):
        lines += ["", f"## {text.title}", "", "| " + " | ".join(text.columns) + " |"]
        lines += ["|" + "---|" * len(text.columns), *("| " + " | ".join(line) + " |" for line in text.lines)]
    failed = [row for row in present if row["error"] is not None]
    lines += ["", *(f"Failed: {r['dataset']} {r['method']} {r['bits']} bits: {r['error']}" for r in failed), *missing]
    return "\n".join([*lines, "", "What is measured, and what reproduces: `docs/paper.md`.", ""])


def picture(rows: Sequence[Row], path: Path, title: str, known: Published | None = None) -> None:
    """A panel for each figure; ours are solid (dotted after ``fit``), published ones grey and dashed behind them."""
    known = known or Published()
    held = _sorted(rows)
    panels: list[Any] = []
    for (_,), group in _groups(held.errors, "dataset").items():
        panels.append((_error_panel, group, known.errors.get(_samples(group[0]), {})))
    for _, group in _groups(held.recall, "dataset", "dataset_digest").items():
        panels.append((_recall_panel, group, known.recall.get("5", {})))
        if "6a" in known.recall:
            residual = [row for row in group if row["method"] == "RVQ"]
            panels.append((_recall_panel, residual, known.recall["6a"]))
    for (figure,), group in _groups(held.counts, "figure").items():
        panels.append((_count_panel, group, known.wmops.get(figure, {})))
    columns = min(_COLUMNS, max(1, len(panels)))
    drawn, axes = plot.figure(max(1, math.ceil(len(panels) / columns)), columns)
    places = list(axes.flat)
    for axis in places[len(panels) :]:
        axis.set_axis_off()
    for axis, (draw, group, theirs) in zip(places, panels, strict=False):
        draw(axis, group, theirs)
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False, fontsize=7)
    drawn.suptitle(f"{title}\n{environment_line(rows[-1])}" if rows else title, fontsize=9)
    drawn.savefig(path)


def _error_panel(axis: Any, rows: Sequence[Row], theirs: Mapping[str, Curve]) -> None:
    ours = _lines(rows, "bits", "mse")
    pairs = [
        (value, theirs[method].mean[bits])
        for method, curve in ours.items()
        for bits, value in curve.items()
        if bits in theirs.get(method, Curve({})).mean
    ]
    # The published scale is not known: one factor for all of a panel's curves brings it to ours.
    factor = math.exp(sum(math.log(a / b) for a, b in pairs) / len(pairs)) if pairs else 1.0
    _draw(axis, ours, {m: theirs[m] for m in theirs if m in METHODS}, factor)
    scaled = f", published × {factor:.3g}" if pairs else ""
    axis.set(xlabel="bits per vector", ylabel="mean of ‖x − x̂‖²", yscale="log")
    axis.set_title(f"{rows[0]['dataset']}{scaled}", loc="left", fontsize=9)


def _recall_panel(axis: Any, rows: Sequence[Row], theirs: Mapping[str, Curve]) -> None:
    ours = {}
    for (method,), group in _groups(rows, "method").items():
        ours[method] = {T: _recall(group, T) for T, _ in group[0]["recall_curve"]}
    _draw(axis, ours, {m: theirs[m] for m in theirs if m in METHODS}, 1.0)
    for name in (m for m in theirs if m not in METHODS):
        known = {T: value for T, value in theirs[name].mean.items() if T <= 1000}
        axis.plot(list(known), list(known.values()), color="0.6", ls=":", label=f"{name}, published")
    axis.set(xlabel="T", ylabel="recall@T", xscale="log")
    whose = " (published: SIFT1M)" if theirs else ""
    axis.set_title(f"{rows[0]['dataset']}, {rows[0]['bits']} bits{whose}", loc="left", fontsize=9)


def _count_panel(axis: Any, rows: Sequence[Row], theirs: Mapping[str, Curve]) -> None:
    _draw(axis, _lines(rows, "bits", "wmops_published"), theirs, 1.0)
    axis.set(xlabel="bits per vector", ylabel="WMOPS", yscale="log")
    axis.set_title(f"figure {rows[0]['figure']}: d = {rows[0]['dim']}", loc="left", fontsize=9)


def _lines(rows: Sequence[Row], x: str, y: str) -> dict[str, dict[int, float]]:
    """Means over seeds, by method, over ``x``."""
    out: dict[str, dict[int, float]] = {}
    for (method, at), group in _groups(rows, "method", x).items():
        out.setdefault(method, {})[at] = sum(row[y] for row in group) / len(group)
    return out


def _draw(axis: Any, ours: Mapping[str, Mapping[int, float]], theirs: Mapping[str, Curve], factor: float) -> None:
    for at, method in enumerate(METHODS):
        curve = theirs.get(method)
        if curve is None:
            continue
        known = {x: value for x, value in curve.mean.items() if x <= 1000}
        colour = plot.COLOURS[at]
        axis.plot(list(known), [factor * v for v in known.values()], color=colour, ls="--", alpha=0.5, lw=3,
                  label=f"{method}, published")  # fmt: skip
    for method, values in ours.items():
        at = METHODS.index(method.partition(",")[0])
        style = {"color": plot.COLOURS[at], "marker": plot.MARKERS[at], "ls": ":" if "," in method else "-"}
        axis.plot(list(values), list(values.values()), label=method, ms=4, **style)
