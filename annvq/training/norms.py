"""Levels of the one-byte norm: k-means in one dimension."""

import numpy as np

from annvq.arrays import F32


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
