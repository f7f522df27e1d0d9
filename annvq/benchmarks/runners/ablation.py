"""Suites of kind ``ablation``: gradient estimators and alternation, at equal bits and equal time.

``setting``
    ``"codebooks"``: the quantizer alone. Codebooks are all there is to learn, and the loss is the error itself.
    ``"maps"``: the quantizer between two learned linear maps, a layer of a network in its smallest form; now gradients
    have to pass *through* it.
``start``
    ``"k-means"``: ten iterations of (residual) k-means, not counted in the time. ``"random"``: normal codebooks.

Distances are exact ones to decoded vectors, and bits are those of the code: nothing is compared across quantizers.
"""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from annvq.benchmarks import metrics
from annvq.benchmarks.report import environment_line
from annvq.benchmarks.results import Row
from annvq.benchmarks.runners import Plan, Point
from annvq.benchmarks.runners.codes import Vectors, load_dataset, prepare
from annvq.benchmarks.suite import Suite, check_settings
from annvq.benchmarks.timed import Alternation, Gradient, Learner, Model
from annvq.datasets import exact_neighbors
from annvq.training.data import prepare as standardise
from annvq.training.estimators import NSVQ, DiVeQ, RotationTrick, StraightThrough
from annvq.training.parts import KMeans
from annvq.training.replacement import Replacement

LEARNERS: dict[str, Learner] = {
    "alternation": Alternation(),
    "NSVQ": Gradient(NSVQ()),
    "NSVQ, replacement": Gradient(NSVQ(), replacement=Replacement(period=50)),
    "straight-through": Gradient(StraightThrough()),
    "DiVeQ": Gradient(DiVeQ()),
    "rotation trick": Gradient(RotationTrick()),
}
# Entries from anywhere have a long way to go. Found on held-out learn vectors of the built-in set, by straight-through.
_RATES = {"k-means": 2e-3, "random": 1e-1}
_CHOICES = {
    "kinds": ("product", "residual", "additive"),
    "settings": ("codebooks", "maps"),
    "starts": ("k-means", "random"),
    "learners": tuple(LEARNERS),
}
_NUMBERS: dict[str, Any] = {"M": 4, "nbits": 8, "seconds": 10}
_COLUMNS = ("steps", "mse", "recall@1", "recall@10", "10-recall@10", "dead")


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Data set × setting × start × quantizer × learner × seed."""
    settings = _checked(suite)
    points = []
    for name in [dataset] if dataset else settings["datasets"]:
        data = prepare(load_dataset(name), settings["limits"])
        grid = itertools.product(settings["settings"], settings["starts"], settings["kinds"], settings["learners"])
        for setting, start, kind, learner in grid:
            for seed in suite.seeds:
                identity = {
                    "dataset": data.name, "dataset_digest": data.digest, "n": len(data.base), "d": data.base.shape[1],
                    "n_learn": len(data.learn), "setting": setting, "start": start, "kind": kind, "method": learner,
                    "seed": seed, **{k: settings[k] for k in _NUMBERS},
                }  # fmt: skip
                label = f"{data.name} · {setting} · {start} · {kind} · {learner}"
                points.append(Point(label, identity, _COLUMNS, partial(_measure, data, identity)))
    return Plan(points)


def _measure(data: Vectors, facts: dict[str, Any]) -> dict[str, Any]:
    from annvq.quantizers import TableQuantizer, make

    quantizer = make(facts["kind"], dim=facts["d"], M=facts["M"], nbits=facts["nbits"])
    assert isinstance(quantizer, TableQuantizer)
    seed = facts["seed"]
    learn = standardise(
        data.learn, facts["d"], least=2 ** facts["nbits"], max_rows=1 << 18, validation=0.0, seed=seed, progress=False
    )
    if facts["start"] == "k-means":
        KMeans(10)(quantizer, learn)
    else:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            quantizer.reset_parameters()
        quantizer.mark_fitted()
    model = Model(quantizer, maps=facts["setting"] == "maps")
    learner = LEARNERS[facts["method"]]
    if isinstance(learner, Gradient):
        learner = replace(learner, learning_rate=_RATES[facts["start"]])
    steps = learner(model, learn.train, facts["seconds"], seed)
    base, queries = ((x - learn.mean) / np.float32(learn.scale) for x in (data.base, data.queries))
    codes = model.codes(base)
    decoded = model.decode(codes)
    found = exact_neighbors(decoded, queries, min(100, len(base)))[0]
    error = float(((base.astype(np.float64) - decoded) ** 2).sum(1).mean()) * learn.scale**2
    used = [len(np.unique(column)) for column in codes.T]
    return {
        "steps": steps,
        "mse": error,
        **metrics.recalls(found, data.base, data.queries, data.neighbors, data.metric),
        "dead": 1 - sum(used) / sum(quantizer.sizes),
    }


def _checked(suite: Suite) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys(_CHOICES, list) | {"M": int, "nbits": int, "seconds": (int, float)}
    check_settings(suite, {"datasets": list, "limits": dict, "description": str, **known})
    settings = {"datasets": ["patches"], "limits": {}, **{k: list(v) for k, v in _CHOICES.items()}, **_NUMBERS}
    settings |= suite.settings
    where = f"suite {suite.name!r}"
    for key, allowed in _CHOICES.items():
        wrong = [value for value in settings[key] if value not in allowed]
        if wrong or not settings[key]:
            raise ValueError(f"{where}: {key} must be among {', '.join(allowed)}; got {settings[key]!r}")
    for key in _NUMBERS:
        if not settings[key] > 0:
            raise ValueError(f"{where}: {key} must be positive, got {settings[key]!r}")
    return settings


def grouped(rows: list[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by what is compared, then by learner: one row per seed."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        of = f"{row['dataset']}: {row['kind']} {row['M']}x{row['nbits']}, {row['setting']}, from a {row['start']} start"
        groups.setdefault(of, {}).setdefault(row["method"], []).append(row)
    return groups


_SHOWN = {"steps": ",.0f", "mse": ".4g", "recall@1": ".3f", "recall@10": ".3f", "10-recall@10": ".3f", "dead": ".1%"}


def cells(rows: list[Row]) -> list[str]:
    """Means over the seeds that could be measured."""
    good = [row for row in rows if row["error"] is None]
    if not good:
        return [f"failed: {rows[0]['error']}", *[""] * (len(_SHOWN) - 1)]
    return [format(float(np.mean([row[c] for row in good])), shown) for c, shown in _SHOWN.items()]


def tables(rows: list[Row]) -> list[Any]:
    """One rich table per comparison."""
    from rich.table import Table

    out = []
    for title, learners in grouped(rows).items():
        table = Table(title=f"{title}; {rows[0]['seconds']} s of processor time", title_justify="left")
        for name in ("learned by", *_SHOWN):
            table.add_column(name, justify="left" if name == "learned by" else "right")
        for learner, group in learners.items():
            table.add_row(learner, *cells(group))
        out.append(table)
    return out


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png``, the errors, and ``report.md``, the tables."""
    from annvq.benchmarks import plot

    groups = grouped(rows)
    plot.bars(
        {
            title: {m: [r["mse"] for r in g if r["error"] is None] for m, g in by.items()}
            for title, by in groups.items()
        },
        out / "report.png",
        f"{suite.title}\n{environment_line(rows[-1])}" if rows else suite.title,
    )
    lines = [f"# {suite.title or suite.name}", ""]
    if rows:
        lines += [
            f"Measured with {environment_line(rows[-1])}. Each learned for {rows[0]['seconds']} s of processor time."
        ]
    lines += ["", "![](report.png)"]
    for title, learners in groups.items():
        lines += ["", f"## {title}", "", "| learned by | " + " | ".join(_SHOWN) + " |", "|---|" + "---:|" * len(_SHOWN)]
        lines += [f"| {learner} | " + " | ".join(cells(group)) + " |" for learner, group in learners.items()]
    text = __doc__.split("\n\n", 1)[1].replace("``", "`")
    (out / "report.md").write_text("\n".join([*lines, "", text]), encoding="utf-8")
