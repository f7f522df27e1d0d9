"""Principal axes of vectors."""

import numpy as np

from annvq.types import F32, F64


def principal_axes(x: F32) -> tuple[F64, F64]:
    """Variances (d,), ascending, and axes (d, d), one a column, of rows (n, d)."""
    d = x.shape[1]
    return np.linalg.eigh(np.cov(x, rowvar=False, bias=True).reshape(d, d).astype(np.float64))
