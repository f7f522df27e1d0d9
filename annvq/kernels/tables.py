"""Distance tables of queries against codebooks, built natively when a scan wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annvq.kernels import _native
from annvq.threads import get_num_threads
from annvq.types import F32


def book_centres(entries: F32, sizes: Sequence[int]) -> F32:
    """What is taken off each codebook's entries to centre them, (M, width): their mean, but for entries that are more
    than a thousand times as far out as most, which would move it away from all others."""
    return np.stack(
        [_native.book_centre(np.ascontiguousarray(book)) for book in np.split(entries, np.cumsum(sizes)[:-1])]
    )


def squared_norms(x: F32) -> F32:
    """‖x‖² of each row, (n,) float32, summed in float64 in dimension order."""
    return _native.squared_norms(x, get_num_threads())
