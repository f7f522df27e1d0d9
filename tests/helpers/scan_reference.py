"""The scan's meaning in NumPy: what every kernel must equal bit for bit."""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.types import F32, I64


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
    """The k lowest scores of each query, ordered by (distance, id), padded with +inf and −1.

    A score is ((luts[0] + luts[1]) + …) + norm + bias, in float32 and in that order.

    Args:
        codes: (n, M) uint8 or uint16.
        luts, bias: tables of nq queries, (nq, M, K) and (nq,).
        norms: (n,), added to every score after the tables.
        ids: (n,), default the row numbers.
        keep: (n,), rows to look at, default all.
    """
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
