"""Vectors that are far out."""

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.training.learn.shares import ALONE, Alone
from annvq.types import F32, F64

CENTRE_ROWS = 4096  # rows that are enough to say where most lie

FAR_OUT = 1e3
"""Rows so many times as far out as most have no say in where data are centred, how they are scaled, or which codebooks
are kept; unless they are more than one in a hundred, and so what the data are."""


def far_out(rows: F32, processes: Alone = ALONE) -> npt.NDArray[np.bool_]:
    """Which rows (n, d), in random order, are more than a thousand times as far out as most: (n,), of the rows of all
    processes. A few such would be all that a mean, a scale or a mean error tells of."""
    centre = np.median(processes.head(rows, CENTRE_ROWS), axis=0)
    return far_beyond(processes.joined(how_far(rows, centre)))


def how_far(rows: F32, centre: F32) -> F64:
    """Squared distances of rows (n, d) to ``centre`` (d,): (n,)."""
    sums = np.empty(len(rows))
    for start, stop in chunks(len(rows), rows.shape[1]):
        sums[start:stop] = np.square(rows[start:stop] - centre, dtype=np.float64).sum(axis=1)
    return sums


def far_beyond(sums: F64) -> npt.NDArray[np.bool_]:
    """Which rows are far out, (n,), by what :func:`how_far` says of them."""
    usual = np.median(sums)
    far: npt.NDArray[np.bool_] = sums > FAR_OUT**2 * usual
    return far if usual > 0 and 100 * far.sum() <= len(sums) else np.zeros(len(sums), np.bool_)
