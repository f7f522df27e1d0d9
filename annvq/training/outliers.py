"""Vectors that are far out."""

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.types import F32

FAR_OUT = 1e3
"""Rows so many times as far out as most have no say in where data are centred, how they are scaled, or which codebooks
are kept; unless they are more than one in a hundred, and so what the data are."""


def far_out(rows: F32) -> npt.NDArray[np.bool_]:
    """Which rows (n, d), in random order, are more than a thousand times as far out as most: (n,). A few such would be
    all that a mean, a scale or a mean error tells of."""
    sums = np.empty(len(rows))
    centre = np.median(rows[:4096], axis=0)
    for start, stop in chunks(len(rows), rows.shape[1]):
        sums[start:stop] = np.square(rows[start:stop] - centre, dtype=np.float64).sum(axis=1)
    usual = np.median(sums)
    far: npt.NDArray[np.bool_] = sums > FAR_OUT**2 * usual
    return far if usual > 0 and 100 * far.sum() <= len(rows) else np.zeros(len(rows), np.bool_)
