"""What the paper measures: recall of codes, error on distributions, counted cost of encoding.

Vali and Bäckström, "Stochastic Optimization of Vector Quantization Methods in Application to Speech and Image
Processing", ICASSP 2023. Codebooks learn by NSVQ alone, as there, from random normal ones (``learning = "nsvq"``), or
by annvq's own ``fit``.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annvq import complexity
from annvq.benchmarks import metrics, statistics, vectors
from annvq.benchmarks.environment import timed
from annvq.benchmarks.kinds import toy
from annvq.benchmarks.kinds.paper import published
from annvq.benchmarks.plan import Part, Plan, Point
from annvq.benchmarks.suite import Suite, check_settings
from annvq.benchmarks.vectors import Vectors
from annvq.indexes import FlatIndex
from annvq.quantizers import Quantizer, make
from annvq.quantizers.modules.registry import pays_norm
from annvq.training.recipe import Recipe
from annvq.training.replacement import Replacement
from annvq.training.trainer import Trainer, TrainerPart

LEARNING = ("nsvq", "fit")
DEPTH = 1000
"""Results of a search: recall is known at up to so many."""
_BATCH = 1024
_RATES = list(range(12, 41, 4))  # bits per vector of the paper's figures
_NUMBERS = ("M", "beam", "steps", "n_learn", "n_test")
_DEFAULTS: dict[str, Any] = {
    "datasets": [], "limits": {}, "sets": [], "bits": _RATES, "learning": ["nsvq"], "rate": 0.1,
    "M": 4, "beam": 16, "steps": 2000, "n_learn": 60_000, "n_test": 10_000,
    "recall": {"M": 8, "nbits": 8, "beam": 64, "steps": 2000},
}  # fmt: skip
_TOY_COLUMNS = ("bits_per_vector", "mse", "train_s", "encode_us", "wmops")
_RECALL_COLUMNS = ("bits_per_vector", "mse", *metrics.RECALLS, "recall_curve", "train_s", "encode_us", "wmops")


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Recall on each data set, then error on each distribution, then the counts."""
    settings = _checked(suite)
    if "published" in settings:  # what cannot be read is said before anything is measured
        published.read(Path(settings["published"]))
    ways = [(seed, how, kind) for seed in suite.seeds for how in settings["learning"] for kind in toy.KINDS]

    def recalled(data: Vectors) -> list[Point]:
        return [_recall_point(data, kind, how, seed, settings) for seed, how, kind in ways]

    names = [dataset] if dataset else settings["datasets"]
    parts = vectors.parts(names, settings["limits"], len(ways), recalled, _RECALL_COLUMNS)
    # A named set that cannot be had is a row that says so: the rest of the paper needs none.
    parts = [replace(part, required=dataset is not None) for part in parts]
    toys = [
        _toy_point(entry, bits, kind, how, seed, settings)
        for entry in settings["sets"]
        for bits in settings["bits"]
        for seed, how, kind in ways
    ]
    counts = [_count(figure, bits, kind) for figure in COUNTED for bits in _RATES for kind in toy.KINDS]
    return Plan([*parts, Part("samples", len(toys), lambda: toys), Part("counts", len(counts), lambda: counts)])


def method_name(kind: str, how: str) -> str:
    """As tables name a code: "AVQ" where it learned as in the paper, else "AVQ, fit"."""
    return toy.KINDS[kind] + ("" if how == "nsvq" else ", fit")


def _quantizer(kind: str, dim: int, M: int, nbits: int, beam: int, seed: int) -> Quantizer:
    """Untrained; additive codes are searched by a beam, residual ones greedily, as the published counts say."""
    torch.manual_seed(seed)  # codebooks begin as random normal ones
    beams = {"residual": {"beam": 1}, "additive": {"beam": beam}}.get(kind, {})
    return make(kind, dim=dim, M=M, nbits=nbits, **beams)


def _trainer(steps: int, rate: float) -> Trainer:
    """NSVQ with the paper's codebook replacement, every tenth of the steps or more often."""
    period = max(1, min(100, steps // 10))
    return Trainer(steps=steps, batch_size=_BATCH, learning_rate=rate, replacement=Replacement(period=period))


# -- error on distributions: figures 2 and 3 ------------------------------------------------------------------------


def _toy_point(entry: dict[str, Any], bits: int, kind: str, how: str, seed: int, settings: dict[str, Any]) -> Point:
    identity = {
        "dataset": f"{entry['data']}-{entry['d']}",
        "data": entry["data"],
        "d": entry["d"],
        "method": method_name(kind, how),
        "learning": how,
        "bits": bits,
        "seed": seed,
        "rate": settings["rate"],
        **{name: settings[name] for name in _NUMBERS},
    }
    label = f"{identity['dataset']} · {identity['method']} · {bits} bits"
    return Point(label, identity, _TOY_COLUMNS, partial(_measure_toy, kind, identity))


def _measure_toy(kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    data, d, seed = facts["data"], facts["d"], facts["seed"]
    quantizer = _quantizer(kind, d, facts["M"], facts["bits"] // facts["M"], facts["beam"], seed)
    learn: Callable[[], object]
    if facts["learning"] == "nsvq":
        trainer = _trainer(facts["steps"], facts["rate"])
        learn = partial(trainer.run, quantizer, _endless(data, d, seed), seed=seed)
    else:
        learn = partial(quantizer.fit, toy.sample(data, d, facts["n_learn"], seed, 0), seed=seed)
    return toy.measured(quantizer, learn, toy.sample(data, d, facts["n_test"], seed, 1))


def _endless(data: str, dim: int, seed: int) -> Iterator[Tensor]:
    """Batches of a distribution, each drawn anew."""
    return (torch.from_numpy(toy.sample(data, dim, _BATCH, seed, which)) for which in itertools.count(2))


# -- recall: figures 5 and 6 -----------------------------------------------------------------------------------------


def _recall_point(data: Vectors, kind: str, how: str, seed: int, settings: dict[str, Any]) -> Point:
    numbers = settings["recall"]
    identity = {
        **data.facts(),
        "method": method_name(kind, how),
        "learning": how,
        "bits": numbers["M"] * numbers["nbits"],
        "seed": seed,
        "rate": settings["rate"],
        **numbers,
    }
    label = f"{data.name} · {identity['method']} · {identity['bits']} bits"
    return Point(label, identity, _RECALL_COLUMNS, partial(_measure_recall, kind, identity, data))


def _measure_recall(kind: str, facts: dict[str, Any], data: Vectors) -> dict[str, Any]:
    quantizer = _quantizer(kind, facts["d"], facts["M"], facts["nbits"], facts["beam"], facts["seed"])
    nsvq = Recipe([TrainerPart(_trainer(facts["steps"], facts["rate"]))])
    # The paper compares with x̂ itself and counts no norm: it is kept exactly, beside the code.
    index = FlatIndex(quantizer, data.metric, "float32" if pays_norm(kind, data.metric) else None)
    recipe = nsvq if facts["learning"] == "nsvq" else None
    _, train_s = timed(lambda: index.fit(data.learn, seed=facts["seed"], recipe=recipe))
    _, encode_s = timed(lambda: index.add(data.base))
    ids = index.search(data.queries, min(DEPTH, len(data.base)))[1]
    found = metrics.hits(ids, data.base, data.queries, data.neighbors, data.metric)
    ranks = metrics.first_ranks(ids, data.base, data.queries, data.neighbors, data.metric)
    depths = sorted({T for T in (*(2**i for i in range(10)), 10, 100, 1000) if ids.shape[1] >= T})
    errors = metrics.squared_errors(data.base, lambda start, stop: index.reconstruct(np.arange(start, stop)))
    return {
        "bits_per_vector": index.bits_per_vector,
        **metrics.mean_error(errors),
        **metrics.recalls(found),
        "recall_curve": [[T, float((ranks < T).mean())] for T in depths],
        "train_s": train_s,
        "encode_us": 1e6 * encode_s / len(data.base),
        "wmops": quantizer.costs().wmops(),
        "hits": statistics.hits_to_text(found),
    }


# -- counted cost of encoding: figures 4c and 6b ---------------------------------------------------------------------

COUNTED: dict[str, tuple[int, Callable[[int], int]]] = {"4c": (64, lambda K: 16), "6b": (128, lambda K: min(K, 64))}
"""Of each figure the dimension, and the additive codes' beam at K entries a codebook."""


def _count(figure: str, bits: int, kind: str) -> Point:
    M, (d, beam_at) = 4, COUNTED[figure]
    nbits = bits // M
    beam = beam_at(2**nbits) if kind == "additive" else None
    identity = {
        "dataset": f"counted, d = {d}",
        "figure": figure,
        "method": toy.KINDS[kind],
        "bits": bits,
        "dim": d,
        "M": M,
        "nbits": nbits,
        "beam": beam,
    }

    def wmops(convention: str) -> float:
        return complexity.wmops(kind, dim=d, M=M, nbits=nbits, beam=beam, convention=convention)

    def measure() -> dict[str, Any]:
        return {"bits_per_vector": bits, "wmops": wmops("full"), "wmops_published": wmops("published")}

    label = f"figure {figure} · {identity['method']} · {bits} bits"
    return Point(label, identity, ("bits_per_vector", "wmops", "wmops_published"), measure)


# -- settings --------------------------------------------------------------------------------------------------------


def _checked(suite: Suite) -> dict[str, Any]:
    """The suite's settings with defaults, after checking them."""
    lists = dict.fromkeys(("datasets", "sets", "bits", "learning"), list)
    others: dict[str, type | tuple[type, ...]] = {
        "limits": dict, "recall": dict, "published": str, "description": str, "rate": (int, float),
    }  # fmt: skip
    check_settings(suite, {**lists, **others, **dict.fromkeys(_NUMBERS, int)})
    settings = {**_DEFAULTS, **suite.settings}
    settings["recall"] = {**_DEFAULTS["recall"], **settings["recall"]}
    where = f"suite {suite.name!r}"
    toy.check_samples(where, settings)
    for how in settings["learning"]:
        if how not in LEARNING:
            raise ValueError(f"{where}: learning holds {' and '.join(LEARNING)}, got {how!r}")
    if set(settings["recall"]) != set(_DEFAULTS["recall"]):
        raise ValueError(f"{where}: recall holds {', '.join(_DEFAULTS['recall'])}, got {settings['recall']!r}")
    return settings
