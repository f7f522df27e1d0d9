"""All stored vectors within a radius, by searches for more and more neighbours."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks, like
from annvq.types import I64, Array

_FIRST_K = 64
_GROWS = 4
_CHUNK_BYTES = 1 << 26

Find: TypeAlias = Callable[[Any, int], tuple[npt.NDArray[Any], I64]]
"""For queries (nq, d) and k: what a search returns, ordered and padded with +inf and −1."""


class Within(NamedTuple):
    """What lies within a radius: of query i, ``distances[lims[i]:lims[i + 1]]`` and ``ids[lims[i]:lims[i + 1]]``."""

    lims: Any  # (nq + 1,) int64
    distances: Any  # (lims[-1],) float32
    ids: Any  # (lims[-1],) int64


def check_radius(radius: float) -> np.float32:
    """The largest float32 that is at most ``radius``: float32 distances are within both or neither.

    Raises:
        TypeError, ValueError: no number, NaN or infinite.
    """
    if isinstance(radius, bool) or not isinstance(radius, int | float | np.integer | np.floating):
        raise TypeError(f"radius must be a finite number, got {radius!r}")
    try:
        wanted = float(radius)
    except OverflowError:  # an int beyond float64
        wanted = math.inf
    if not math.isfinite(wanted):
        raise ValueError(f"radius must be a finite number, got {radius}")
    with np.errstate(over="ignore"):
        rounded = np.float32(wanted)
    return rounded if float(rounded) <= wanted else np.nextafter(rounded, np.float32(-np.inf))


def all_within(find: Find, queries: npt.NDArray[Any], radius: np.floating[Any], most: Callable[[], int]) -> Within:
    """What of each query's neighbours lies within a radius.

    Each round asks for ``k`` neighbours of the queries whose ``k`` were all within before, for four times as many in
    the next.

    Args:
        find: a search that finds the same for any k, as far as k goes.
        queries: (nq, d), as ``find`` takes them.
        radius: of the distances' own type, see :func:`check_radius`.
        most: says how many neighbours there can be at most.
    """
    parts: list[tuple[npt.NDArray[Any], I64]] = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(queries)
    left, k = np.arange(len(queries)), _FIRST_K
    while len(left):
        k = min(k, most() + 1)  # one more than there are: then some are not within, and that ends it
        again = []
        for start, stop in chunks(len(left), 3 * k, chunk_bytes=_CHUNK_BYTES):
            rows = left[start:stop]
            distances, ids = find(queries[rows], k)
            counts = np.count_nonzero((ids >= 0) & (distances <= radius), axis=1)
            for row, count, found, named in zip(rows, counts, distances, ids, strict=True):
                parts[row] = found[:count].copy(), named[:count].copy()
            again.append(rows[counts == k])
        left, k = np.concatenate(again), _GROWS * k
    lims = np.zeros(len(queries) + 1, np.int64)
    np.cumsum([len(ids) for _, ids in parts], out=lims[1:])
    if not parts:
        return Within(lims, np.empty(0, np.float32), np.empty(0, np.int64))
    return Within(lims, np.concatenate([found for found, _ in parts]), np.concatenate([ids for _, ids in parts]))


def as_queries_came(found: Within, queries: Array) -> Within:
    """``found`` in torch tensors where the queries are."""
    return Within(*(like(part, queries) for part in found))
