"""Data set × method × bits, measured for error, recall and times."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from annvq.benchmarks import metrics, rivals, statistics, vectors
from annvq.benchmarks.environment import repeated, timed
from annvq.benchmarks.plan import Plan, Point
from annvq.benchmarks.roles import Budget, Code
from annvq.benchmarks.suite import Suite, check_settings
from annvq.benchmarks.vectors import RESULTS, Vectors

WARM_UP_QUERIES = 16
_METHOD_KEYS = ("use", "label", "options", "bits", "bits_per_dimension")
_COLUMNS = ("config", *metrics.COLUMNS)


@dataclass(frozen=True)
class Timing:
    """How often things are timed: encoding in ``parts`` equal parts of base, searching ``repeats`` times.

    ``budget_s`` seconds after the first search no further one is started.
    """

    parts: int = 5
    repeats: int = 5
    budget_s: float = 2.0


def measure(method: Code, data: Vectors, timing: Timing, recalls: Iterable[str] = metrics.RECALLS) -> dict[str, Any]:
    """Train, encode, search; the measured columns of a row, with these ``recalls``."""
    _, train_s = timed(lambda: method.fit(data.learn))
    encode_us = []
    for part in np.array_split(data.base, min(timing.parts, len(data.base))):
        _, seconds = timed(partial(method.add, part))
        encode_us.append(1e6 * seconds / len(part))
    k = min(RESULTS, len(data.base))
    method.search(data.queries[:WARM_UP_QUERIES], k)
    ids, seconds_each = repeated(lambda: method.search(data.queries, k), timing.repeats, budget_s=timing.budget_s)
    search_us = [1e6 * s / len(data.queries) for s in seconds_each]
    hits = metrics.hits(ids, data.base, data.queries, data.neighbors, data.metric, recalls)
    return {
        "config": method.config,
        "bits_per_vector": method.bits_per_vector(),
        **metrics.mean_error(metrics.squared_errors(data.base, method.decode)),
        **metrics.recalls(hits, recalls),
        "train_s": train_s,
        "encode_us": median(encode_us),
        "wmops": method.wmops(),
        "search_us": median(search_us),
        "encode_us_parts": encode_us,
        "search_us_repeats": search_us,
        "hits": statistics.hits_to_text(hits),
    }


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Every data set × bits × seed × method."""
    settings = _checked(suite)
    timing = Timing(**settings["timing"])

    def points(data: Vectors) -> list[Point]:
        grid = _grid(settings, suite.seeds, data.base.shape[1])
        return [_point(data, entry, bits, seed, timing) for bits, seed, entry in grid]

    names, count = [dataset] if dataset else settings["datasets"], len(_grid(settings, suite.seeds, 1))
    return Plan(vectors.parts(names, settings["limits"], count, points, _COLUMNS))


def _grid(settings: dict[str, Any], seeds: tuple[int, ...], d: int) -> list[tuple[int, int, dict[str, Any]]]:
    """Bits, seed and method of every point, for vectors of d dimensions; the suite's bits in their order come first."""

    def budgets(entry: dict[str, Any]) -> list[int]:
        each = entry.get("bits_per_dimension")
        return [d * each] if each else entry.get("bits", settings["bits"])

    asked = {bits for entry in settings["methods"] for bits in budgets(entry)}
    order = dict.fromkeys([*settings["bits"], *sorted(asked)])
    return [
        (bits, seed, entry)
        for bits in order
        for seed in seeds
        for entry in settings["methods"]
        if bits in budgets(entry)
    ]


def _point(data: Vectors, entry: dict[str, Any], bits: int, seed: int, timing: Timing) -> Point:
    options = entry.get("options", {})
    identity = {
        **data.facts(),
        "method": entry.get("label", entry["use"]),
        "use": entry["use"],
        "options": options,
        "bits": bits,
        "seed": seed,
        "timing": asdict(timing),
    }
    budget = Budget(data.base.shape[1], bits, data.metric)

    def go() -> dict[str, Any]:
        measured = measure(rivals.make_code(entry["use"], budget, options, seed), data, timing)
        return {**measured, "simd": rivals.rival(entry["use"].partition(".")[0]).levels()[0]}

    label = f"{data.name} · {identity['method']} · {bits} bits"
    return Point(label, identity, _COLUMNS, go)


def _checked(suite: Suite) -> dict[str, Any]:
    """The suite's settings with defaults, after checking them."""
    check_settings(
        suite,
        {"datasets": list, "bits": list, "methods": list, "limits": dict, "timing": dict, "description": str},
    )
    settings: dict[str, Any] = {"datasets": ["patches"], "limits": {}, "timing": {}, **suite.settings}
    where = f"suite {suite.name!r}"
    for name in ("bits", "methods", "datasets"):
        if not settings.get(name):
            raise ValueError(f"{where}: {name} must be a list of at least one")
    _check_bits(where, settings["bits"])
    for entry in settings["methods"]:
        if not isinstance(entry, dict) or "use" not in entry or set(entry) - set(_METHOD_KEYS):
            raise ValueError(f"{where}: a method has {', '.join(_METHOD_KEYS)}; got {entry!r}")
        if {"bits", "bits_per_dimension"} <= set(entry):
            raise ValueError(f"{where}: a method has bits or bits_per_dimension, not both; got {entry!r}")
        _check_bits(where, entry.get("bits", []))
        _check_bits(where, [entry.get("bits_per_dimension", 1)])
        rivals.check_code(entry["use"])
    _check_numbers(where, "limits", settings["limits"], ("base", "learn", "queries"))
    _check_numbers(where, "timing", settings["timing"], ("parts", "repeats", "budget_s"))
    return settings


def _check_bits(where: str, values: Any) -> None:
    for bits in values if isinstance(values, list) else [values]:
        if not isinstance(bits, int) or isinstance(bits, bool) or bits < 1:
            raise ValueError(f"{where}: bits must be positive integers, got {bits!r}")


def _check_numbers(where: str, table: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if key not in known or not number or (key != "budget_s" and not isinstance(value, int)):
            raise ValueError(f"{where}: {table} holds positive {', '.join(known)}; got {key} = {value!r}")
