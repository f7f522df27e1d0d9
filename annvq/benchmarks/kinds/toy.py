"""Suites of kind ``toy``: the toy experiment of Vali and Bäckström (ICASSP 2023, figures 2 and 3).

Product, residual and additive codes with ``M`` codebooks learn a normal distribution, and their mean
squared error on other samples of it is compared at equal bits. Additive codes are searched by a beam, as in the
paper; residual ones greedily, as its operation counts say. The paper does not publish its data, so the report compares
orders, not values. Here ``uncorrelated`` data has independent normal components of variance 1, ``uniform`` data
independent uniform ones, which fit the published errors of product codes better; ``correlated`` data is a random
mixture of ``d / 4`` independent normal components, which ties all dimensions together.
Additive codes contain product codes, so a product code ahead of them shows how far their training got, not what they
can do.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from annvq.benchmarks import metrics, plot, statistics
from annvq.benchmarks.environment import timed
from annvq.benchmarks.plan import Part, Plan, Point
from annvq.benchmarks.report import environment_line, heading
from annvq.benchmarks.results import Row
from annvq.benchmarks.rivals.annvq import bounded
from annvq.benchmarks.suite import Suite, check_settings
from annvq.quantizers import Quantizer, make

KINDS = {"product": "PVQ", "residual": "RVQ", "additive": "AVQ"}
DATA = ("uncorrelated", "uniform", "correlated")
_NUMBERS = ("M", "n_learn", "n_test", "steps", "beam")
_DEFAULTS: dict[str, Any] = {"M": 4, "n_learn": 40_000, "n_test": 10_000, "steps": 100, "beam": 16}

# What the published figures show: the codes by error, least first, at each number of bits.
_ALL = range(12, 41, 4)
_UNCORRELATED: dict[int, dict[int, tuple[str, ...]]] = {
    64: {
        **dict.fromkeys(_ALL, ("PVQ", "AVQ", "RVQ")),
        **dict.fromkeys((12, 16), ("AVQ", "PVQ", "RVQ")),
    },
    128: {**dict.fromkeys(_ALL, ("AVQ", "PVQ", "RVQ")), 16: ("PVQ", "AVQ", "RVQ")},
    256: {**dict.fromkeys(_ALL, ("AVQ", "RVQ", "PVQ")), 12: ("AVQ", "PVQ", "RVQ")},
}
_PUBLISHED: dict[tuple[str, int], dict[int, tuple[str, ...]]] = {
    ("correlated", 64): dict.fromkeys(_ALL, ("AVQ", "RVQ", "PVQ")),
    **{(data, dim): by_bits for data in ("uncorrelated", "uniform") for dim, by_bits in _UNCORRELATED.items()},
}
_VALIDATION = 0.2  # of the learn samples: the codes differ by less than errors on a few thousand samples tell


def sample(data: str, dim: int, n: int, seed: int, which: int) -> npt.NDArray[np.float32]:
    """``n`` samples (n, dim) float32 of one of :data:`DATA`; ``which`` tells learn from test samples."""
    rng = np.random.default_rng([seed, which])
    if data == "uncorrelated":
        return rng.standard_normal((n, dim), dtype=np.float32)
    if data == "uniform":
        return rng.uniform(-np.sqrt(3), np.sqrt(3), (n, dim)).astype(np.float32)  # variance 1 too
    factors = max(1, dim // 4)
    mixing = np.random.default_rng(seed).standard_normal((factors, dim)) / np.sqrt(factors)
    mixed: npt.NDArray[np.float32] = (rng.standard_normal((n, factors)) @ mixing).astype(np.float32)
    return mixed


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Every data × dimension × bits × kind × seed."""
    if dataset is not None:
        raise ValueError(f"suite {suite.name!r} makes its own data; --dataset has no place in it")
    settings = _checked(suite)
    points = [
        _point(entry, bits, kind, seed, settings)
        for entry in settings["sets"]
        for bits in settings["bits"]
        for seed in suite.seeds
        for kind in KINDS
    ]
    return Plan([Part("samples", len(points), lambda: points)])


def _point(entry: dict[str, Any], bits: int, kind: str, seed: int, settings: dict[str, Any]) -> Point:
    numbers = {name: settings[name] for name in _NUMBERS}
    identity = {
        "dataset": f"{entry['data']}-{entry['d']}",
        "data": entry["data"],
        "d": entry["d"],
        "method": KINDS[kind],
        "bits": bits,
        "seed": seed,
        **numbers,
    }
    label = f"{identity['dataset']} · {KINDS[kind]} · {bits} bits"
    columns = ("bits_per_vector", "mse", "train_s", "encode_us", "wmops")
    return Point(label, identity, columns, partial(_measure, kind, identity))


def _measure(kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    beam = {"residual": {"beam": 1}, "additive": {"beam": facts["beam"]}}.get(kind, {})
    quantizer = make(kind, dim=facts["d"], M=facts["M"], nbits=facts["bits"] // facts["M"], **beam)
    learn, test = (
        sample(facts["data"], facts["d"], facts[size], facts["seed"], which)
        for which, size in enumerate(("n_learn", "n_test"))
    )
    recipe = replace(bounded(quantizer, steps=facts["steps"]), validation=_VALIDATION)
    return measured(quantizer, lambda: quantizer.fit(learn, seed=facts["seed"], recipe=recipe), test)


def measured(quantizer: Quantizer, learn: Callable[[], object], test: npt.NDArray[np.float32]) -> dict[str, Any]:
    """The columns of a row: what ``quantizer`` costs, and its error on ``test`` (n, d) after ``learn()``."""
    _, train_s = timed(learn)
    codes, seconds = timed(lambda: quantizer.encode(test))
    errors = ((test.astype(np.float64) - quantizer.decode(codes)) ** 2).sum(1)
    return {
        "bits_per_vector": quantizer.bits,
        **metrics.mean_error(errors),
        "train_s": train_s,
        "encode_us": 1e6 * seconds / len(test),
        "wmops": quantizer.costs().wmops(),
    }


def _checked(suite: Suite) -> dict[str, Any]:
    check_settings(suite, {"sets": list, "bits": list, "description": str, **dict.fromkeys(_NUMBERS, int)})
    settings = {**_DEFAULTS, **suite.settings}
    check_samples(f"suite {suite.name!r}", settings)
    return settings


def check_samples(where: str, settings: Mapping[str, Any]) -> None:
    """ValueError unless ``sets`` are distributions and ``bits`` can be shared among ``M`` codebooks."""
    for entry in settings.get("sets") or [{}]:
        if set(entry) != {"data", "d"} or entry["data"] not in DATA or not isinstance(entry["d"], int):
            raise ValueError(f"{where}: sets hold data ({' or '.join(DATA)}) and d, got {entry!r}")
    for bits in settings.get("bits") or [0]:
        if not isinstance(bits, int) or bits < 1 or bits % settings["M"]:
            raise ValueError(f"{where}: bits must be multiples of M={settings['M']}, got {bits!r}")


def orders(rows: list[Row]) -> dict[tuple[str, int], tuple[str, ...]]:
    """Methods by mean error over the seeds, least first, for each data set and number of bits."""
    errors: dict[tuple[str, int], dict[str, list[float]]] = {}
    for row in rows:
        if row["error"] is None:
            at = errors.setdefault((row["dataset"], row["bits"]), {})
            at.setdefault(row["method"], []).append(row["mse"])
    return {
        point: tuple(sorted(values, key=lambda name: float(np.mean(values[name])))) for point, values in errors.items()
    }


def compared(rows: list[Row]) -> list[dict[str, Any]]:
    """One line per data set and bits: the errors, their order, and the published order where there is one."""
    lines = []
    for (dataset, bits), order in orders(rows).items():
        data, dim = dataset.rsplit("-", 1)
        group = [r for r in rows if (r["dataset"], r["bits"]) == (dataset, bits) and r["error"] is None]
        found = {name: statistics.figure_of([r for r in group if r["method"] == name], "mse") for name in order}
        figures = {name: figure for name, figure in found.items() if figure is not None}
        published = _PUBLISHED.get((data, int(dim)), {}).get(bits)
        values = {name: figure.value for name, figure in figures.items()}
        lines.append({"dataset": dataset, "bits": bits, **values, "order": chain(figures), "published": published})
    return lines


def chain(figures: Mapping[str, statistics.Figure], sign: str = "<") -> str:
    """The order of the codes, best first, in one text, with ≈ between neighbours that cannot be told apart."""
    text = next(iter(figures))
    for (_, a), (name, b) in itertools.pairwise(figures.items()):
        text += f" {sign if statistics.told_apart(a, b) else statistics.SAME} {name}"
    return text


def tables(rows: list[Row]) -> list[Table]:
    """One rich table: errors, their order and the published one."""
    table = Table(
        title=f"mean squared error, and the order of the codes (least first; {statistics.SAME}: cannot be told apart)"
    )
    for name in ("data", "bits", "AVQ", "RVQ", "PVQ", "order", "published order"):
        table.add_column(name, justify="right" if name in ("bits", "AVQ", "RVQ", "PVQ") else "left")
    for line in compared(rows):
        values = [format(line[m], ".4g") if m in line else "–" for m in ("AVQ", "RVQ", "PVQ")]
        published = " < ".join(line["published"]) if line["published"] else "–"
        table.add_row(line["dataset"], str(line["bits"]), *values, line["order"], published)
    return [table]


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png`` and ``report.md``: error against bits, and the orders beside the published ones."""
    picture(rows, out / "report.png", suite.title)
    lines = [*heading(suite, rows), "![](report.png)", "", "| data | bits | AVQ | RVQ | PVQ | order | published |"]
    lines.append("|---|---:|---:|---:|---:|---|---|")
    for line in compared(rows):
        values = " | ".join(format(line[m], ".4g") if m in line else "–" for m in ("AVQ", "RVQ", "PVQ"))
        published = " < ".join(line["published"]) if line["published"] else "–"
        lines.append(f"| {line['dataset']} | {line['bits']} | {values} | {line['order']} | {published} |")
    failed = [row for row in rows if row["error"] is not None]
    lines += [f"\nFailed: {r['dataset']} {r['method']} {r['bits']} bits: {r['error']}" for r in failed]
    text = __doc__.split("\n\n", 1)[1].replace("``", "`")
    (out / "report.md").write_text("\n".join([*lines, "", text]), encoding="utf-8")


def picture(rows: list[Row], path: Path, title: str) -> None:
    """Mean squared error against bits, one panel per data set."""
    good = [row for row in rows if row["error"] is None]
    datasets = list(dict.fromkeys(row["dataset"] for row in good)) or ["nothing measured"]
    figure, axes = plot.figure(1, len(datasets))
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for at, method in enumerate(("AVQ", "RVQ", "PVQ")):
            points: dict[int, list[float]] = {}
            for row in good:
                if row["dataset"] == dataset and row["method"] == method:
                    points.setdefault(row["bits"], []).append(row["mse"])
            bits = sorted(points)
            means = [sum(points[b]) / len(points[b]) for b in bits]
            axis.plot(bits, means, label=method, color=plot.COLOURS[at], marker=plot.MARKERS[at])
        axis.set_title(dataset, loc="left")
        axis.set_xlabel("bits per vector")
        axis.set_ylabel("mean of ‖x − x̂‖²" if axis is axes[0][0] else "")
        axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False)
    figure.suptitle(f"{title}\n{environment_line(good[-1])}" if good else title, fontsize=9)
    figure.savefig(path)
