"""Pictures of results, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from annvq.benchmarks.metrics import COLUMNS
from annvq.benchmarks.report import environment_line
from annvq.benchmarks.results import Row

_RECALL = "recall@10"
# Colours distinguishable without colour vision (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = "osD^vP*X"


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4.2 * rows + 0.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _style(methods: Sequence[str], method: str) -> dict[str, Any]:
    at = methods.index(method)
    other = not method.startswith("annvq")
    return {
        "color": _COLOURS[at % len(_COLOURS)],
        "marker": _MARKERS[at % len(_MARKERS)],
        "linestyle": "--" if other else "-",
        "markerfacecolor": "none" if other else None,
    }


def codes(rows: Sequence[Row], path: Path, title: str) -> None:
    """Recall against bits, counted and measured cost of encoding; one row of panels per data set."""
    good = [row for row in rows if row["error"] is None and row.get(_RECALL) is not None]
    datasets = list(dict.fromkeys(row["dataset"] for row in good))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = ("bits_per_vector", "wmops", "encode_us")
    figure, axes = _figure(max(1, len(datasets)), len(panels))
    for line, dataset in zip(axes, datasets, strict=False):
        for axis, column in zip(line, panels, strict=True):
            for method in methods:
                points = sorted(
                    (row[column], row[_RECALL])
                    for row in good
                    if row["dataset"] == dataset and row["method"] == method and row[column] is not None
                )
                if points:
                    axis.plot(*zip(*points, strict=True), label=method, **_style(methods, method))
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


def toy(rows: Sequence[Row], path: Path, title: str) -> None:
    """Mean squared error against bits, one panel per data set."""
    good = [row for row in rows if row["error"] is None]
    datasets = list(dict.fromkeys(row["dataset"] for row in good)) or ["nothing measured"]
    figure, axes = _figure(1, len(datasets))
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for at, method in enumerate(("AVQ", "RVQ", "PVQ")):
            points: dict[int, list[float]] = {}
            for row in good:
                if row["dataset"] == dataset and row["method"] == method:
                    points.setdefault(row["bits"], []).append(row["mse"])
            bits = sorted(points)
            means = [sum(points[b]) / len(points[b]) for b in bits]
            axis.plot(bits, means, label=method, color=_COLOURS[at], marker=_MARKERS[at])
        axis.set_title(dataset, loc="left")
        axis.set_xlabel("bits per vector")
        axis.set_ylabel("mean of ‖x − x̂‖²" if axis is axes[0][0] else "")
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False)
    figure.suptitle(f"{title}\n{environment_line(good[-1])}" if good else title, fontsize=9)
    figure.savefig(path)


def bars(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Path, title: str) -> None:
    """Mean error of each method, one panel per comparison; dots are the seeds."""
    held = {name: {m: v for m, v in methods.items() if v} for name, methods in groups.items()}
    columns = min(3, max(1, len(held)))
    figure, axes = _figure(-(-max(1, len(held)) // columns), columns)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, methods) in zip(axes.flat, held.items(), strict=False):
        axis.set_visible(True)
        for at, (method, values) in enumerate(methods.items()):
            axis.barh(at, sum(values) / len(values), color=_COLOURS[at % len(_COLOURS)], alpha=0.7, label=method)
            axis.plot(values, [at] * len(values), "k.", markersize=4)
        axis.set_yticks(range(len(methods)), list(methods), fontsize=8)
        axis.invert_yaxis()
        axis.set_title(name, loc="left", fontsize=8)
        axis.set_xlabel("mean of ‖x − x̂‖²", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)
