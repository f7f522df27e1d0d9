"""How long shortlists are: a given length, or what a recall target takes as far as measured."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import positive_int
from annvq.indexes.targets import check_share, fewest
from annvq.types import F32, I64, Array

NEIGHBORS = 10
MOST = 1 << 24
_HELD_OUT = 200
_DEEPEST = 4096
_GROWN = 2  # measured again when the index holds this many times more, or fewer, vectors

Ranks: TypeAlias = Callable[[F32, int], tuple[I64, I64]]
"""For queries (nq, d) and a depth s, the ids (nq, s) that scanning finds in its order, and the nearest of them."""


class Shortlist:
    """How many of the scanned index's results are ordered exactly.

    Args:
        dim: d of the vectors.
        given: that number, or None.
        recall_target: share of the 10 nearest by exact distance that shall be on the shortlist, in (0, 1].

    Attributes:
        held: (nq, d), queries to measure with, as the metric compares them.
        depth: share of the nearest on shortlists of 1, 2, …; empty until measured.
        measured_at: how many vectors the index held then; 0 until measured.
    """

    def __init__(self, dim: int, given: int | None, recall_target: float) -> None:
        self.given = None if given is None else positive_int(given, "shortlist", high=MOST)
        self.recall_target = check_share(recall_target, "recall_target")
        self.held: F32 = np.empty((0, dim), np.float32)
        self.depth: F32 = np.empty(0, np.float32)
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
        return max(k, math.ceil(deep * max(1.0, k / NEIGHBORS)))

    def measure(self, n: int, ranks: Ranks) -> None:
        """Measure how deep the nearest by exact distance lie in the scanned index's order of ``n`` vectors."""
        depth = min(n, _DEEPEST)
        counts = np.zeros(max(1, depth), np.int64)
        if n:
            for order, nearest in zip(*ranks(self.held, depth), strict=True):
                counts += np.isin(order, nearest[nearest >= 0])
        self.depth = (np.cumsum(counts) / max(1, counts.sum())).astype(np.float32)
        self.measured_at = n

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors of a file."""
        config = {"shortlist": self.given, "recall_target": self.recall_target, "measured_at": self.measured_at}
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
        return made
