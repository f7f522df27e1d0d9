"""Recall targets: a share of the neighbours, and how many steps of a search reach it."""

import numpy as np

from annvq.types import F32


def check_share(value: float, name: str) -> float:
    """``value`` as a float if it lies in (0, 1], else ValueError or TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} must be a number in (0, 1], got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value}")
    return float(value)


def fewest(reach: F32, share: float) -> int:
    """The fewest steps that reach a ``share``, where the first 1, 2, … of them reach ``reach`` (n,), ascending."""
    return min(len(reach), int(np.searchsorted(reach, share - 1e-6)) + 1)
