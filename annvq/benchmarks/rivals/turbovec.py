"""turbovec: a random rotation, then 2 or 4 bits for each dimension (TurboQuant, Zandieh et al. 2025), by inner product.

It stores a factor of 32 bits per vector, which is charged.
"""

import importlib.util
import os
from typing import Any

import numpy as np

from annvq.benchmarks.roles import Budget, Rival, check_options
from annvq.threads import get_num_threads
from annvq.types import F32, I64

_FACTOR_BITS = 32
_SAMPLE = 1024  # vectors that it says are enough to calibrate on


class FlatCode:
    """Its flat index. ``calibrate``: whether two numbers a dimension are fitted to learn vectors first."""

    def __init__(self, budget: Budget, each: int, calibrate: bool, seed: int) -> None:
        import turbovec

        self._bits = budget.bits + _FACTOR_BITS
        self._index: Any = turbovec.TurboQuantIndex(dim=budget.dim, bit_width=each)
        self._calibrate, self._seed = calibrate, seed
        self.config = {"index": "TurboQuantIndex", "bits_per_dimension": each, "calibrated": calibrate}

    def fit(self, learn: F32) -> None:
        if self._calibrate:
            rows = np.random.default_rng(self._seed).permutation(len(learn))[:_SAMPLE]
            self._index.calibrate(np.ascontiguousarray(learn[np.sort(rows)]))

    def add(self, x: F32) -> None:
        self._index.add(np.ascontiguousarray(x))

    def decode(self, start: int, stop: int) -> F32 | None:
        return None

    def search(self, queries: F32, k: int) -> I64:
        ids: I64 = np.asarray(self._index.search(queries, k)[1])
        return ids

    def bits_per_vector(self) -> float:
        return self._bits

    def wmops(self) -> float | None:
        return None


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> FlatCode:
    """A code of 2 or 4 bits a dimension; option ``calibrate`` (default true)."""
    check_options(f"turbovec.{name}", options, ("calibrate",))
    each, left = divmod(budget.bits, budget.dim)
    if left or each not in (2, 4) or budget.dim % 8:
        raise ValueError(
            f"bits: turbovec.{name} takes 2 or 4 bits for each of a multiple of 8 dimensions, "
            f"got {budget.bits} bits for {budget.dim}"
        )
    if budget.metric == "l2":
        raise ValueError(f"metric: turbovec.{name} ranks by inner product, got 'l2'")
    if importlib.util.find_spec("turbovec") is None:
        raise ModuleNotFoundError("turbovec is not installed (pip install turbovec)")
    os.environ["RAYON_NUM_THREADS"] = str(get_num_threads())  # read when its threads first start
    return FlatCode(budget, each, options.get("calibrate", True), seed)


RIVAL = Rival("turbovec", codes=("turboquant",), make=make)
