"""How long shortlists are: a given length, or what a recall target takes as far as measured."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks, positive_int
from annvq.indexes.targets import check_share, fewest
from annvq.types import F32, I64, Array

NEIGHBORS = 10
MOST = 1 << 24
_HELD_OUT = 200
_DEEPEST = 4096
_GROWN = 2  # measured again when the index holds this many times more, or fewer, vectors

# For more neighbours lengths are measured at some numbers of them, so many for each doubling, on shortlists that are at
# first so many times as long as the largest of these, and up to so many; of all queries held as many as come to so many
# distances, at least a few.
_STEPS, _TIMES, _MOST_TIMES = 4, 8, 32
_DISTANCES, _FEWEST_HELD = 1 << 22, 32

Ranks: TypeAlias = Callable[[F32, int, int], tuple[I64, I64]]
"""For queries (nq, d), a depth s and k, the ids (nq, s) that scanning finds in its order, and the k nearest of them."""


class Shortlist:
    """How many of the scanned index's results are ordered exactly.

    Args:
        dim: d of the vectors.
        given: that number, or None.
        recall_target: share of the nearest by exact distance that shall be on the shortlist, in (0, 1].

    Attributes:
        held: (nq, d), queries to measure with, as the metric compares them.
        depth: share of the 10 nearest on shortlists of 1, 2, …; empty until measured.
        longer: lengths for more neighbours, as many as :func:`_neighbors` says, as far as they have been asked for.
        measured_at: how many vectors the index held then; 0 until measured.
    """

    def __init__(self, dim: int, given: int | None, recall_target: float) -> None:
        self.given = None if given is None else positive_int(given, "shortlist", high=MOST)
        self.recall_target = check_share(recall_target, "recall_target")
        self.held: F32 = np.empty((0, dim), np.float32)
        self.depth: F32 = np.empty(0, np.float32)
        self.longer: tuple[int, ...] = ()
        self.measured_at = 0

    def hold_some(self, x: Array, seed: int, prepared: Callable[[Array, str], F32]) -> None:
        """Keep a few of the learn vectors ``x`` (n, d), ``prepared`` as queries are, to measure with when needed."""
        n = int(x.shape[0])
        rows = np.random.default_rng(seed).permutation(n)
        self.held, self.measured_at = prepared(x[np.sort(rows[: min(_HELD_OUT, n // 20)])], "x"), 0

    def aim(self, recall_target: float, queries: F32) -> None:
        """Take a new target, and these queries to measure with, in place of what was given."""
        self.recall_target, self.given, self.held = recall_target, None, queries[:_HELD_OUT].copy()

    def length(self, k: int, n: int, ranks: Ranks) -> int:
        """The length for ``k`` neighbours of ``n`` vectors; measured now where it never was, or the index has grown."""
        if self.given is not None:
            return max(k, self.given)
        if n and len(self.held) and not self.measured_at / _GROWN <= n <= self.measured_at * _GROWN:
            self.measure(n, ranks)
        deep = fewest(self.depth, self.recall_target) if len(self.depth) else 10 * NEIGHBORS
        if k <= NEIGHBORS:
            return max(k, deep)
        if not n or not len(self.held):  # nothing to measure with
            return max(k, math.ceil(deep * k / NEIGHBORS))
        if k >= n:
            return k
        step, longer = _step(k), self.longer
        if step > len(longer):
            self.longer = longer = self._measured_longer(-(-step // _STEPS) * _STEPS, n, ranks)
        return max(k, longer[step - 1])

    def measure(self, n: int, ranks: Ranks) -> None:
        """Measure how deep the nearest by exact distance lie in the scanned index's order of ``n`` vectors."""
        depth = min(n, _DEEPEST)
        counts = np.zeros(max(1, depth), np.int64)
        if n:
            for order, nearest in zip(*ranks(self.held, depth, min(NEIGHBORS, depth)), strict=True):
                counts += np.isin(order, nearest[nearest >= 0])
        self.depth = (np.cumsum(counts) / max(1, counts.sum())).astype(np.float32)
        self.longer, self.measured_at = (), n

    def _measured_longer(self, steps: int, n: int, ranks: Ranks) -> tuple[int, ...]:
        """The lengths for :func:`_neighbors` (1), …, (``steps``) neighbours of ``n`` vectors."""
        wanted = [min(n, _neighbors(step)) for step in range(1, steps + 1)]
        depth, most = (min(n, max(_DEEPEST, times * wanted[-1])) for times in (_TIMES, _MOST_TIMES))
        while True:
            counts = np.zeros((steps, depth), np.int64)
            held = self.held[: max(_FEWEST_HELD, _DISTANCES // depth)]
            for start, stop in chunks(len(held), 8 * depth):
                for order, nearest in zip(*ranks(held[start:stop], depth, wanted[-1]), strict=True):
                    places = _places(order, nearest[nearest >= 0])
                    for row, k in zip(counts, wanted, strict=True):
                        row += np.bincount(places[:k], minlength=depth)
            found = [fewest(np.cumsum(row) / max(1, row.sum()), self.recall_target) for row in counts]
            # What lies so deep that no more were looked at may lie deeper.
            if 2 * found[-1] <= depth or depth >= most:
                return tuple(found)
            depth = min(most, 4 * depth)

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors of a file."""
        config: dict[str, Any] = {"shortlist": self.given, "recall_target": self.recall_target}
        config["measured_at"] = self.measured_at
        if self.longer:
            config["longer"] = list(self.longer)
        return config, {"refine.held": self.held, "refine.depth": self.depth}

    @classmethod
    def from_stored(cls, dim: int, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> "Shortlist":
        """The inverse of :meth:`to_stored`; takes its tensors out of ``tensors``.

        Raises:
            KeyError, TypeError, ValueError: something is missing or does not fit.
        """
        made = cls(dim, config["shortlist"], config["recall_target"])
        held, depth = tensors.pop("refine.held"), tensors.pop("refine.depth")
        for name, found, shape in (("held", held, (len(held), dim)), ("depth", depth, (len(depth),))):
            if found.dtype != np.float32 or found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"its {name} must be finite float32 {shape}, got {found.dtype} {found.shape}")
        made.held, made.depth = held, depth
        made.measured_at = positive_int(config["measured_at"], "measured_at", low=0)
        made.longer = tuple(positive_int(length, "longer", high=MOST) for length in config.get("longer", ()))
        return made


def _neighbors(step: int) -> int:
    """Neighbours that the length of a step (from 1) is measured for."""
    return math.ceil(NEIGHBORS * 2 ** (step / _STEPS))


def _step(k: int) -> int:
    """The first step of at least ``k`` neighbours, more than :data:`NEIGHBORS`."""
    step = max(1, math.floor(_STEPS * math.log2(k / NEIGHBORS)))
    return next(s for s in range(step, step + 3) if _neighbors(s) >= k)


def _places(order: I64, ids: I64) -> I64:
    """Where in ``order`` (s,) each of ``ids`` (k,), which are all there, stands."""
    by_id = np.argsort(order)
    return by_id[np.searchsorted(order, ids, sorter=by_id)]
