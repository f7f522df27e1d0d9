"""How sure a figure is: intervals of recall, of times and of errors, and which two figures can be told apart.

Queries, repeats and seeds are samples. Another draw of them would give other figures, so a figure comes with an
interval that holds the true one in 95 of 100 cases:

recall
    Wilson's score interval with queries as the sample. Of ``10-recall@10`` a query has ten results that are alike, so
    the number of queries is corrected for how much queries differ (a design effect: Korn and Graubard, Survey
    Methodology 24, 1998). Rows without hits, of earlier versions, are taken as if a query found all or nothing, which
    is the widest that it can be.
times
    Medians of repeats, with the order statistics that hold the median (SciPy's ``quantile_test``); of fewer than six
    repeats their whole range, which of five holds it in 94 of 100 cases. They tell how times vary within a run.
errors
    Student's t over equal parts of the vectors.
several seeds
    The mean over seeds, and Student's t over them added in squares to the above.

Two figures are compared query by query where both were asked the same queries: they find the same ones hard, so a
difference shows sooner than the two intervals would let one think.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.benchmarks.metrics import meaning
from annvq.benchmarks.results import Row
from annvq.packing import pack, unpack

CONFIDENCE = 0.95
SAME = "≈"
"""Marks a figure that cannot be told from the best of its column."""
SAME_SHORT = f"{SAME}: cannot be told from the best of its column (95 %)"
SAME_TEXT = f"{SAME_SHORT}. ±: half of the 95 % interval. In brackets: the repeats that hold the median."
_REPEATS = ("{}_parts", "{}_repeats", "{}_all")  # fields that hold what a median is of
_FEW = 6  # repeats, with fewer of which nothing narrower than their range holds the median that often
_BLOCKS = "{}_blocks"  # means over equal parts of the vectors


@dataclass(frozen=True)
class Figure:
    """A measured figure.

    Attributes:
        value: of a row, or the mean over rows of several seeds.
        low, high: the interval; both None where there is nothing to tell it from.
        samples: (n,) what it is the mean of, in the order of the queries (or parts of the vectors); None where unknown.
        between: half the width that seeds alone give the interval.
        seeds: how many rows it is of.
        ranged: the interval is one of repeats, which may reach much farther to one side.
    """

    value: float
    low: float | None = None
    high: float | None = None
    samples: npt.NDArray[np.float64] | None = None
    between: float = 0.0
    seeds: int = 1
    ranged: bool = False

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None where there is none."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def hits_to_text(counts: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Hits per query as rows hold them: base64 of as many bits a query as a count takes, and ``queries``, how many.

    Args:
        counts: by the names of recalls, (nq,) how many neighbours each query found.
    """
    out: dict[str, Any] = {"queries": max((len(c) for c in counts.values()), default=0)}
    for name, found in counts.items():
        packed = pack(found[:, None].astype(np.uint16), [_neighbours(name).bit_length()])
        out[name] = base64.b64encode(packed.tobytes()).decode()
    return out


def hits_of(row: Row, column: str) -> npt.NDArray[np.float64] | None:
    """Share of its neighbours that each query found (nq,), from a row; None in rows that do not say."""
    held = row.get("hits") or {}
    if column not in held:
        return None
    true = _neighbours(column)
    packed = np.frombuffer(base64.b64decode(held[column]), np.uint8)
    return unpack(packed, held["queries"], [true.bit_length()], np.uint16)[:, 0] / true


def _neighbours(name: str) -> int:
    """True neighbours that a measure of recall is of. Raises ValueError where ``name`` is none."""
    what = meaning(name)
    if what is None:
        raise ValueError(f"hits are of recalls, as 10-recall@10, got {name!r}")
    return what[0]


def share_interval(value: float, n: int, samples: npt.NDArray[Any] | None = None, each: int = 1) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        value: the share, the mean of n samples.
        n: how many.
        samples: (n,) each one's share; None: each is 0 or 1.
        each: how many neighbours a sample's share is of: no sample tells more than so many independent ones.
    """
    if samples is not None and 0 < value < 1:
        variance = float(np.var(samples))
        alone = value * (1 - value)
        n_effective = n * min(each, alone / variance) if variance > 0 else n * each
    else:
        n_effective = n
    z = _quantile(None)
    middle = (value + z * z / (2 * n_effective)) / (1 + z * z / n_effective)
    half = z * math.sqrt(value * (1 - value) / n_effective + (z / (2 * n_effective)) ** 2) / (1 + z * z / n_effective)
    # The share itself is within, which rounding may deny at 0 and 1.
    return min(max(0.0, middle - half), value), max(min(1.0, middle + half), value)


def median_interval(repeats: Sequence[float]) -> tuple[float, float] | None:
    """The repeats that hold the true median between them; None of fewer than two."""
    from scipy.stats import quantile_test

    if len(repeats) < 2:
        return None
    if len(repeats) < _FEW:
        return min(repeats), max(repeats)
    found = quantile_test(np.asarray(repeats), p=0.5).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


@lru_cache(maxsize=256)
def _quantile(freedom: int | None) -> float:
    """How many standard errors an interval reaches to either side: Student's t; normal where ``freedom`` is None."""
    from scipy.stats import norm, t

    at = (1 + CONFIDENCE) / 2
    return float(norm.ppf(at) if freedom is None else t.ppf(at, freedom))


def _t_half(samples: Any) -> float:
    """Half the width of Student's interval of the mean of (n,) ``samples``; 0 of fewer than two."""
    n = len(samples)
    if n < 2:
        return 0.0
    return _quantile(n - 1) * float(np.std(samples, ddof=1)) / math.sqrt(n)


def figure_of_row(row: Row, column: str) -> Figure | None:
    """A column of a row with its interval; None where the row has no value."""
    value = row.get(column)
    if value is None:
        return None
    if meaning(column) is not None:
        hits = hits_of(row, column)
        nq = len(hits) if hits is not None else row.get("nq")
        return Figure(value, *share_interval(value, nq, hits, _neighbours(column)), hits) if nq else Figure(value)
    for field in _REPEATS:
        interval = median_interval(row.get(field.format(column)) or ())
        if interval is not None:
            return Figure(value, *interval, ranged=True)
    blocks = row.get(_BLOCKS.format(column))
    if blocks and len(blocks) > 1:
        half = _t_half(blocks)
        return Figure(value, value - half, value + half, np.asarray(blocks))
    return Figure(value)


def figure_of(rows: Sequence[Row], column: str) -> Figure | None:
    """A column of rows that differ in their seed alone: the mean over them, with its interval."""
    figures = [f for f in (figure_of_row(row, column) for row in rows) if f is not None]
    if len(figures) < 2:
        return figures[0] if figures else None
    values = [f.value for f in figures]
    mean, between = float(np.mean(values)), _t_half(values)
    # All seeds are asked the same queries, so their intervals are averaged: more seeds make them no narrower.
    down = math.hypot(between, np.mean([f.value - f.low for f in figures if f.low is not None] or [0.0]))
    up = math.hypot(between, np.mean([f.high - f.value for f in figures if f.high is not None] or [0.0]))
    low, high = max(mean - down, 0.0), mean + up  # nothing that is measured is below zero
    if meaning(column) is not None:
        high = min(high, 1.0)
    held = [f.samples for f in figures if f.samples is not None]
    same = len(held) == len(figures) and len({len(s) for s in held}) == 1
    return Figure(mean, low, high, np.mean(held, axis=0) if same else None, between, len(figures))


def same_as_best(figures: Mapping[str, Figure | None], better: str) -> tuple[str | None, set[str]]:
    """Whose figure is the best, and whose cannot be told from it.

    Args:
        figures: by name; those without a figure take no part.
        better: ``"lower"`` or ``"higher"``.
    """
    held = {name: f for name, f in figures.items() if f is not None}
    if not held:
        return None, set()
    best = (min if better == "lower" else max)(held, key=lambda name: held[name].value)
    same = {name for name, f in held.items() if name != best and not told_apart(f, held[best])}
    # What is exact and equal needs no mark.
    return best, {name for name in same if held[name].value != held[best].value or held[name].half is not None}


def told_apart(a: Figure, b: Figure) -> bool:
    """Whether the two are different by more than chance explains. Figures without intervals are taken as exact.

    Query by query where both have the same queries; else by the intervals, squared and added (Newcombe, Statistics in
    Medicine 17, 1998, method 10).
    """
    difference = abs(a.value - b.value)
    if a.samples is not None and b.samples is not None and a.samples.shape == b.samples.shape:
        return difference > math.hypot(_t_half(a.samples - b.samples), a.between, b.between)
    more, less = (a, b) if a.value > b.value else (b, a)
    down = 0.0 if more.low is None else more.value - more.low
    up = 0.0 if less.high is None else less.high - less.value
    return difference > math.hypot(down, up)
