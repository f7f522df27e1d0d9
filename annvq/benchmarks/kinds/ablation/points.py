"""Data set × setting × start × quantizer × learner × seed."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from annvq.benchmarks import metrics, statistics, vectors
from annvq.benchmarks.kinds.ablation.learners import Alternation, Gradient, Learner, Model
from annvq.benchmarks.plan import Plan, Point
from annvq.benchmarks.suite import Suite, check_settings
from annvq.benchmarks.vectors import Vectors
from annvq.datasets import exact_neighbors
from annvq.quantizers import TableQuantizer, make
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
    """Every data set × setting × start × quantizer × learner × seed."""
    settings = _checked(suite)
    numbers = {key: settings[key] for key in _NUMBERS}
    axes = {"setting": "settings", "start": "starts", "kind": "kinds", "method": "learners"}
    values = itertools.product(*(settings[key] for key in axes.values()), suite.seeds)
    grid = [dict(zip((*axes, "seed"), cell, strict=True)) for cell in values]

    def points(data: Vectors) -> list[Point]:
        return [_point(data, {**cell, **numbers}) for cell in grid]

    names = [dataset] if dataset else settings["datasets"]
    return Plan(vectors.parts(names, settings["limits"], len(grid), points, _COLUMNS))


def _point(data: Vectors, cell: dict[str, Any]) -> Point:
    identity = {
        "dataset": data.name, "dataset_digest": data.digest, "n": len(data.base), "d": data.base.shape[1],
        "n_learn": len(data.learn), **cell,
    }  # fmt: skip
    label = f"{data.name} · {cell['setting']} · {cell['start']} · {cell['kind']} · {cell['method']}"
    return Point(label, identity, _COLUMNS, partial(_measure, data, identity))


def _measure(data: Vectors, facts: dict[str, Any]) -> dict[str, Any]:
    quantizer = make(facts["kind"], dim=facts["d"], M=facts["M"], nbits=facts["nbits"])
    assert isinstance(quantizer, TableQuantizer)
    seed = facts["seed"]
    learn = standardise(
        data.learn, facts["d"], least=2 ** facts["nbits"], max_rows=1 << 18, validation=0.0, seed=seed, progress=False
    )
    if facts["start"] == "k-means":
        KMeans(10)(quantizer, learn)
    else:
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
    errors = ((base.astype(np.float64) - decoded) ** 2).sum(1) * learn.scale**2
    hits = metrics.hits(found, data.base, data.queries, data.neighbors, data.metric)
    used = [len(np.unique(column)) for column in codes.T]
    return {
        "steps": steps,
        **metrics.mean_error(errors),
        **metrics.recalls(hits),
        "hits": statistics.hits_to_text(hits),
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
