"""Suites of kind ``codes``: data set × method × bits, measured for error, recall and times."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.benchmarks import metrics, rivals
from annvq.benchmarks.environment import repeated, timed
from annvq.benchmarks.results import Row
from annvq.benchmarks.roles import Budget, Code
from annvq.benchmarks.runners import Plan, Point
from annvq.benchmarks.suite import Suite, check_settings
from annvq.datasets import Dataset, exact_neighbors, from_vectors, load, load_vectors

RESULTS = 100  # results asked of a search, and neighbours needed
WARM_UP_QUERIES = 16
_METHOD_KEYS = {"use", "label", "options"}


@dataclass(frozen=True)
class Vectors:
    """A data set as methods see it: float32, of length one under cosine, cut to the suite's limits."""

    name: str
    metric: str
    base: npt.NDArray[np.float32]
    learn: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]
    neighbors: npt.NDArray[np.int64]
    learn_source: str
    digest: str


@dataclass(frozen=True)
class Timing:
    """How often things are timed: encoding in ``parts`` equal parts of base, searching ``repeats`` times.

    ``budget_s`` seconds after the first search no further one is started.
    """

    parts: int = 5
    repeats: int = 5
    budget_s: float = 2.0


def load_dataset(name_or_path: str) -> Dataset:
    """A data set by name or path; of a file of plain vectors, queries are held out of base."""
    path = Path(name_or_path)
    if path.is_file() and path.suffix not in (".hdf5", ".h5", ".toml"):
        x = load_vectors(path)
        return from_vectors(x, name=path.stem, nq=max(1, min(1000, len(x) // 10)))
    return load(name_or_path)


def prepare(data: Dataset, limits: Mapping[str, int]) -> Vectors:
    """``data`` cut to ``limits`` (first rows); neighbours are computed anew where base is cut."""
    base, learn, queries = (
        np.ascontiguousarray(x[: limits.get(part)], dtype=np.float32)
        for part, x in (("base", data.base), ("learn", data.learn), ("queries", data.queries))
    )
    if len(base) < data.n or data.k < min(10, len(base)):
        neighbors = exact_neighbors(base, queries, min(RESULTS, len(base)), metric=data.metric)[0]
    else:
        neighbors = data.neighbors[: len(queries)]
    if data.metric == "cosine":
        base, learn, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (base, learn, queries))
    h = hashlib.blake2b(f"{data.metric}".encode(), digest_size=10)
    for x in (base, learn, queries):
        h.update(str(x.shape).encode())
        h.update(x.data)
    source = "base sample" if data.learn_is_base_sample else "learn"
    return Vectors(data.name, data.metric, base, learn, queries, neighbors, source, h.hexdigest())


def measure(method: Code, data: Vectors, timing: Timing) -> dict[str, Any]:
    """Train, encode, search; the measured columns of a row."""
    _, train_s = timed(lambda: method.fit(data.learn))
    encode_us = []
    for part in np.array_split(data.base, min(timing.parts, len(data.base))):
        _, seconds = timed(partial(method.add, part))
        encode_us.append(1e6 * seconds / len(part))
    k = min(RESULTS, len(data.base))
    method.search(data.queries[:WARM_UP_QUERIES], k)
    ids, seconds_each = repeated(lambda: method.search(data.queries, k), timing.repeats, budget_s=timing.budget_s)
    search_us = [1e6 * s / len(data.queries) for s in seconds_each]
    return {
        "config": method.config,
        "bits_per_vector": method.bits_per_vector(),
        "mse": metrics.mean_squared_error(data.base, method.decode),
        **metrics.recalls(ids, data.base, data.queries, data.neighbors, data.metric),
        "train_s": train_s,
        "encode_us": median(encode_us),
        "wmops": method.wmops(),
        "search_us": median(search_us),
        "encode_us_parts": encode_us,
        "search_us_repeats": search_us,
    }


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Every data set × method × bits × seed."""
    settings = _checked(suite)
    timing = Timing(**settings["timing"])
    names = [dataset] if dataset else settings["datasets"]
    points = []
    for name in names:
        try:
            data = prepare(load_dataset(name), settings["limits"])
        except (OSError, ValueError) as error:
            if len(names) == 1:
                raise
            points.append(_absent(name, error))
            continue
        for bits in settings["bits"]:
            for seed in suite.seeds:
                points += [_point(data, entry, bits, seed, timing) for entry in settings["methods"]]
    return Plan(points)


def _absent(name: str, error: Exception) -> Point:
    """A point that fails, for a data set that cannot be had: the others are measured all the same."""

    def go() -> dict[str, Any]:
        raise error

    nothing = dict.fromkeys(("metric", "n", "d", "nq", "n_learn", "learn_source", "bits"))
    return Point(f"{name} · load", {"dataset": name, "method": "load", **nothing}, ("config", *metrics.COLUMNS), go)


def _point(data: Vectors, entry: dict[str, Any], bits: int, seed: int, timing: Timing) -> Point:
    options = entry.get("options", {})
    identity = {
        "dataset": data.name,
        "dataset_digest": data.digest,
        "metric": data.metric,
        "n": len(data.base),
        "d": data.base.shape[1],
        "nq": len(data.queries),
        "n_learn": len(data.learn),
        "learn_source": data.learn_source,
        "method": entry.get("label", entry["use"]),
        "use": entry["use"],
        "options": options,
        "bits": bits,
        "seed": seed,
        "timing": {"parts": timing.parts, "repeats": timing.repeats, "budget_s": timing.budget_s},
    }
    budget = Budget(data.base.shape[1], bits, data.metric)

    def go() -> dict[str, Any]:
        measured = measure(rivals.make_code(entry["use"], budget, options, seed), data, timing)
        return {**measured, "simd": rivals.rival(entry["use"].partition(".")[0]).levels()[0]}

    label = f"{data.name} · {identity['method']} · {bits} bits"
    return Point(label, identity, ("config", *metrics.COLUMNS), go)


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
    for bits in settings["bits"]:
        if not isinstance(bits, int) or isinstance(bits, bool) or bits < 1:
            raise ValueError(f"{where}: bits must be positive integers, got {bits!r}")
    for entry in settings["methods"]:
        if not isinstance(entry, dict) or "use" not in entry or set(entry) - _METHOD_KEYS:
            raise ValueError(f"{where}: a method has use, label and options; got {entry!r}")
        rivals.check_code(entry["use"])
    _check_numbers(where, "limits", settings["limits"], ("base", "learn", "queries"))
    _check_numbers(where, "timing", settings["timing"], ("parts", "repeats", "budget_s"))
    return settings


def _check_numbers(where: str, table: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if key not in known or not number or (key != "budget_s" and not isinstance(value, int)):
            raise ValueError(f"{where}: {table} holds positive {', '.join(known)}; got {key} = {value!r}")


def tables(rows: list[Row]) -> list[Any]:
    """Rich tables, one per data set and budget."""
    from annvq.benchmarks.report import terminal_table

    return terminal_table(rows)


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png`` and ``report.md``."""
    from annvq.benchmarks import plot
    from annvq.benchmarks.report import markdown

    plot.codes(rows, out / "report.png", suite.title)
    (out / "report.md").write_text(markdown(suite, rows, ["report.png"]), encoding="utf-8")
