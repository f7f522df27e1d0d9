"""Learning the one-byte norm: offsets by least squares, levels by k-means in one dimension."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import F32
from annvq.quantizers.norms import NORM_LEVELS, NormByte
from annvq.training.least_squares import least_squares_entries


def fit_norm_byte(codes: npt.NDArray[Any], values: F32, sizes: Sequence[int], start: F32 | None = None) -> NormByte:
    """Learn how a byte and the code together stand for a per-vector value.

    Offsets are the main effects of the entries, by regularised least squares. Levels are fitted to what other vectors
    than those leave over (rows in turn go to one fit and to the other), so that they fit unseen vectors too.

    Args:
        codes: (n, M) integers, n at least 1.
        values: (n,) finite float32, such as ‖x̂‖².
        sizes: entries of each codebook.
        start: (ΣK,) offsets that rarely seen entries keep, such as ‖c‖²; default zero.
    """
    offsets = np.zeros(sum(sizes), np.float32) if start is None else np.asarray(start, np.float32)
    mean = np.float32(values.mean(dtype=np.float64))
    if len(codes) > 1:
        # The first codebook carries the mean, so that the regularisation does not shrink towards zero.
        drawn = offsets.copy()
        drawn[: sizes[0]] += mean - np.float32(NormByte(tuple(sizes), offsets, offsets).explained(codes).mean())
        offsets = least_squares_entries(values[::2, None], codes[::2], drawn[:, None], sizes, regularisation=1.0)[:, 0]
    without = NormByte(tuple(sizes), offsets, offsets)
    rows = slice(1, None, 2) if len(codes) > 1 else slice(None)
    left = values[rows].astype(np.float64) - without.explained(codes[rows])
    return NormByte(tuple(sizes), offsets, fit_levels(left.astype(np.float32), NORM_LEVELS))


def fit_levels(values: F32, count: int, *, iterations: int = 50) -> F32:
    """``count`` levels that quantize ``values`` with little squared error: Lloyd's algorithm from quantiles.

    Args:
        values: (n,) finite, n at least 1.

    Returns:
        (count,) float32, ascending. With fewer distinct values than levels, those values, the last one repeated.
    """
    ordered = np.sort(values.astype(np.float64))
    distinct = np.unique(ordered)
    if len(distinct) <= count:
        return np.concatenate([distinct, np.full(count - len(distinct), distinct[-1])]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    # Half quantiles, half an even grid: quantiles alone leave the tails, which Lloyd reaches slowly, uncovered.
    grid = np.linspace(distinct[0], distinct[-1], count // 2)
    levels = np.sort(
        np.concatenate([np.quantile(distinct, (np.arange(count - len(grid)) + 0.5) / (count - len(grid))), grid])
    )
    for _ in range(iterations):
        edges = np.concatenate([[0], np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2), [len(ordered)]])
        counts = np.diff(edges)
        filled = counts > 0
        moved = levels.copy()
        moved[filled] = (sums[edges[1:]] - sums[edges[:-1]])[filled] / counts[filled]
        if np.allclose(moved, levels, rtol=1e-12, atol=0):
            break
        levels = np.sort(moved)
    return levels.astype(np.float32)
