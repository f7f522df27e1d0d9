"""Data sets as suites measure on them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from annvq.arrays import as_float32
from annvq.benchmarks.plan import Part, Point
from annvq.datasets import Dataset, exact_neighbors, from_vectors, load, load_vectors
from annvq.datasets.files import plain, stated_metric
from annvq.types import F32, I64

RESULTS = 100  # results asked of a search, and neighbours needed


@dataclass(frozen=True)
class Vectors:
    """A data set as methods see it: float32, of length one under cosine, cut to the suite's limits.

    ``base`` (n, d), ``learn``, ``queries`` (nq, d) and the true ``neighbors`` (nq, ·) of the queries; ``digest`` covers
    the vectors.
    """

    name: str
    metric: str
    base: F32
    learn: F32
    queries: F32
    neighbors: I64
    learn_source: str
    digest: str

    def facts(self) -> dict[str, Any]:
        """What rows say of them."""
        return {
            "dataset": self.name, "dataset_digest": self.digest, "metric": self.metric, "n": len(self.base),
            "d": self.base.shape[1], "nq": len(self.queries), "n_learn": len(self.learn),
            "learn_source": self.learn_source,
        }  # fmt: skip


def load_dataset(name_or_path: str) -> Dataset:
    """A data set by name or path; of a file of plain vectors, queries are held out of base."""
    if Path(name_or_path).suffix != ".toml" and plain(name_or_path):
        x = load_vectors(name_or_path)
        metric = stated_metric(name_or_path) or "l2"
        return from_vectors(x, name=Path(name_or_path).stem, metric=metric, nq=max(1, min(1000, len(x) // 10)))
    return load(name_or_path)


def prepare(data: Dataset, limits: Mapping[str, int]) -> Vectors:
    """``data`` cut to ``limits`` (first rows); neighbours are computed anew where base is cut."""
    base, learn, queries = (
        as_float32(x[: limits.get(part)])
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


def parts(
    names: Sequence[str],
    limits: Mapping[str, int],
    count: int,
    points: Callable[[Vectors], list[Point]],
    columns: tuple[str, ...],
) -> list[Part]:
    """A part for each data set: ``points`` of its vectors, about ``count`` of them. Of several, one may be missing."""

    def opened(name: str) -> list[Point]:
        return points(prepare(load_dataset(name), limits))

    return [Part(name, count, partial(opened, name), len(names) == 1, columns) for name in names]
