"""The kernels' meaning in NumPy: what every kernel must equal bit for bit."""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import F32, I64


def scan(
    codes: npt.NDArray[Any],
    luts: F32,
    bias: F32,
    k: int,
    *,
    norms: F32 | None = None,
    ids: I64 | None = None,
    keep: npt.NDArray[np.bool_] | None = None,
) -> tuple[F32, I64]:
    """As :func:`annvq.kernels.scan`: ((luts[0] + luts[1]) + …) + norm + bias in float32, ordered by (distance, id)."""
    nq, M = luts.shape[:2]
    rows = np.arange(len(codes)) if ids is None else ids
    distances, found = np.full((nq, k), np.inf, np.float32), np.full((nq, k), -1, np.int64)
    for q in range(nq):
        score = luts[q, 0, codes[:, 0]]
        for m in range(1, M):
            score = score + luts[q, m, codes[:, m]]
        score = (score if norms is None else score + norms) + bias[q]
        possible = np.flatnonzero((score < np.inf) & (True if keep is None else keep))
        order = possible[np.lexsort((rows[possible], score[possible]))][:k]
        distances[q, : len(order)], found[q, : len(order)] = score[order], rows[order]
    return distances, found
