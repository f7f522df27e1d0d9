"""Vectors to measure on: a sample of the user's, in three parts."""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import as_float32, host_array, normalized
from annvq.benchmarks.vectors import Vectors, prepare
from annvq.datasets import Dataset, exact_neighbors
from annvq.indexes import FlatIndex
from annvq.quantizers import ProductVQ
from annvq.types import F32

_LEARN_SHARE = 0.4


def split(x: Any, metric: str, sample: int, nq: int, seed: int) -> Vectors:
    """Disjoint base, learn and queries from a seeded sample of ``x``."""
    rows = _rows(int(x.shape[0]), sample, seed)
    # In file order a memory map is read once; which part a row falls in is drawn apart.
    part = np.random.default_rng(seed + 1).permutation(len(rows))
    rows.sort()
    held = as_float32(host_array(x[rows]))
    _check(held, rows, metric)
    nq = max(1, min(nq, len(rows) // 10))
    n_learn = int(_LEARN_SHARE * len(rows))
    queries, learn, base = (held[p] for p in np.split(part, [nq, nq + n_learn]))
    return prepared(metric, base, learn, queries)


def warm_up() -> None:
    """Learn and search a few vectors, so that the first code which is measured is not charged with loading libraries:
    a second, where the code itself takes a tenth of one."""
    few = np.random.default_rng(0).standard_normal((64, 4), dtype=np.float32)
    FlatIndex(ProductVQ(4, 2, nbits=2)).fit(few).add(few).search(few, 1)


class Further:
    """Vectors of ``x`` that :func:`split` left out of the sample, as many as are asked for.

    Args:
        x, metric, sample, seed: as :func:`split` was given them.
    """

    def __init__(self, x: Any, metric: str, sample: int, seed: int) -> None:
        self._x, self._metric, self._sample, self._seed = x, metric, sample, seed

    def __len__(self) -> int:
        return max(0, int(self._x.shape[0]) - self._sample)

    def take(self, count: int) -> F32:
        """``count`` of them (count, d), the same ones each time; fewer where some cannot be used."""
        n = int(self._x.shape[0])
        drawn = np.random.default_rng(self._seed + 2).choice(n, min(n, self._sample + count), replace=False)
        rows = np.sort(drawn[~np.isin(drawn, _rows(n, self._sample, self._seed))][:count])
        held = as_float32(host_array(self._x[rows]))
        held = held[np.isfinite(held).all(axis=1)]
        return normalized(held[held.any(axis=1)]) if self._metric == "cosine" else held


def _rows(n: int, sample: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).choice(n, min(n, sample), replace=False)


def _check(held: npt.NDArray[Any], rows: npt.NDArray[Any], metric: str) -> None:
    """ValueError naming the row of x, where a vector cannot be used."""
    bad = ~np.isfinite(held).all(axis=1)
    if bad.any():
        raise ValueError(f"x must be finite in float32; row {rows[np.argmax(bad)]} has NaN or infinity")
    if metric == "cosine" and not held.any(axis=1).all():
        row = rows[np.argmin(held.any(axis=1))]
        raise ValueError(f"x must not hold zero vectors under cosine; row {row} is zero")


def prepared(metric: str, base: Any, learn: Any, queries: Any) -> Vectors:
    """Vectors as codes see them, with the true neighbours of the queries."""
    neighbors, distances = exact_neighbors(base, queries, min(100, len(base)), metric=metric)
    return prepare(Dataset("sample", metric, base, learn, queries, neighbors, distances), {})
