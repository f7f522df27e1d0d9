"""rabitqlib: RaBitQ by its authors (Gao and Long 2024; Gao et al. 2025), in inverted lists; one list is a flat index.

A vector takes its bits in each dimension (dimensions are filled up to a multiple of 32) and its factors, all of which
is charged: what a file grows by with each vector, less its id.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from annvq.benchmarks.roles import Budget, Index, Rival, check_options
from annvq.threads import get_num_threads
from annvq.types import F32, I64

_FACTOR_BYTES = {True: 12, False: 20}  # beside a code of one bit a dimension, and of more
_RAW = 32  # bits a dimension by which it means a code of one, re-ranked by the vectors themselves


def _bits(dim: int, each: int) -> float:
    """Bits of a vector with its factors."""
    filled = -(-dim // 32) * 32
    if each == _RAW:
        return _bits(dim, 1) + 32 * dim
    return filled * each + 8 * _FACTOR_BYTES[each == 1]


class FlatCode:
    """One list about the mean of the learn vectors."""

    def __init__(self, budget: Budget, each: int) -> None:
        self._dim, self._each = budget.dim, each
        self._metric = "l2" if budget.metric in ("l2", "cosine") else "ip"
        self._index: Any = None
        self.config = {"index": "IvfIndex", "num_clusters": 1, "bits_per_dimension": each}

    def fit(self, learn: F32) -> None:
        self._centre = learn.mean(axis=0, keepdims=True)

    def add(self, x: F32) -> None:
        lists, threads = np.zeros(len(x), np.uint32), get_num_threads()
        if self._index is None:
            self._index = _empty(self._dim, len(x), 1, self._each, self._metric)
            self._index.build(x, self._centre, lists, threads)
        else:
            self._index.add(x, lists, threads)

    def decode(self, start: int, stop: int) -> F32 | None:
        return None

    def search(self, queries: F32, k: int) -> I64:
        return _found(self._index.search(queries, k, 1, num_threads=get_num_threads())[0])

    def bits_per_vector(self) -> float:
        return _bits(self._dim, self._each)

    def wmops(self) -> float | None:
        return None


def _empty(dim: int, n: int, lists: int, each: int, metric: str) -> Any:
    import rabitqlib

    return rabitqlib.IvfIndex(dim=dim, max_elements=n, num_clusters=lists, nbits=each, metric=metric)


def _found(ids: Any) -> I64:
    """Ids as int64, −1 for none."""
    wide = np.asarray(ids).astype(np.int64)
    return np.where(wide == np.iinfo(np.uint32).max, -1, wide)


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> FlatCode:
    """A code of 1 to 9 bits a dimension."""
    check_options(f"rabitqlib.{name}", options, ())
    each, left = divmod(budget.bits, budget.dim)
    if left or not 1 <= each <= 9:
        raise ValueError(
            f"bits: rabitqlib.{name} takes 1 to 9 bits a dimension, got {budget.bits} for {budget.dim} dimensions"
        )
    if importlib.util.find_spec("rabitqlib") is None:
        raise ModuleNotFoundError("rabitqlib is not installed (pip install rabitqlib)")
    return FlatCode(budget, each)


class Lists(Index):
    """Inverted lists of codes of ``nbits`` bits a dimension; 32: of one, re-ranked by float32 vectors."""

    spec_keys = ("nlist", "nbits")
    setting_keys = ("nprobe",)

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        import rabitqlib

        self.spec = {"nlist": 1, "nbits": 1, **spec}
        self.clusters: Any = rabitqlib.RaBitQKMeans(dim, self.spec["nlist"], num_threads=self.threads)
        self.clusters.train(learn)

    def add(self, x: F32) -> None:
        centroids = np.asarray(self.clusters.centroids)
        lists = np.empty(len(x), np.uint32)
        lengths = (centroids**2).sum(axis=1)
        for start in range(0, len(x), 4096):
            part = x[start : start + 4096]
            lists[start : start + 4096] = (lengths - 2 * part @ centroids.T).argmin(axis=1)
        self.index: Any = _empty(x.shape[1], len(x), self.spec["nlist"], self.spec["nbits"], "l2")
        self.index.build(x, centroids, lists, self.threads)

    def bits_per_vector(self) -> float | None:
        return _bits(self.index.dim, self.index.nbits)

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def open(self, path: Path, dim: int) -> None:
        import rabitqlib

        self.index = rabitqlib.IvfIndex.load(str(path))

    def configure(self, settings: dict[str, Any]) -> None:
        self.nprobe = settings["nprobe"]

    def set_threads(self, count: int) -> None:
        self.threads = count

    def search(self, queries: F32, k: int) -> Any:
        return _found(self.index.search(queries, k, self.nprobe, num_threads=self.threads)[0])


RIVAL = Rival("rabitqlib", codes=("rabitq",), make=make, index=Lists)
