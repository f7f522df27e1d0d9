"""Principal axes of vectors."""

import numpy as np

from annvq.training.learn.shares import ALONE, Alone
from annvq.types import F32, F64

AXES_ROWS = 1 << 14  # rows that are enough for principal axes, where not all are in one place


def principal_axes(x: F32, processes: Alone = ALONE) -> tuple[F64, F64]:
    """Variances (d,), ascending, and axes (d, d), one a column, of rows (n, d); of several processes' rows the first
    :data:`AXES_ROWS` of all."""
    d, rows = x.shape[1], processes.head(x, AXES_ROWS) if processes.shared else x
    both = processes.led(lambda: np.vstack(np.linalg.eigh(_covariance(rows))), (d + 1, d), np.float64)
    return both[0], both[1:]


def _covariance(x: F32) -> F64:
    d = x.shape[1]
    covariance: F64 = np.cov(x, rowvar=False, bias=True).reshape(d, d).astype(np.float64)
    return covariance
