"""A share of what coding took away of inner products: how it is learned, and what is found with it."""

from typing import Any

import numpy as np

from annvq.kernels import _native, squared_norms
from annvq.threads import get_num_threads
from annvq.types import F32, F64, I64

ASKING = 256
"""How many vectors must stand for queries, that a share is learned."""

NEAR, NEAR_FEW = 50, 3
"""How many others, the nearest to each query, count among thousands; and among the few vectors that are held out of a
fit, which lie far apart: of more of these the share is too small for what is near, above all for the nearest
(docs/log/performance.md)."""

TOP = 10
"""By how many of the nearest a share is compared with a length, and as much by the nearest of all."""


def learned_share(queries: F32, x: F32, xhat: F32, near: I64, length: float = 1.0) -> float:
    """s of ⟨q, x⟩ ≈ ⟨q, x̂⟩ + s·(l² − ‖x̂‖²)/l, in [0, ½], by least squares among vectors that are near each query.

    On average l² − ‖x̂‖² is ‖x − x̂‖², what coding took away, of which a query near x has a part. 0 is ⟨q, x̂⟩ alone, ½
    the order of ‖q·l − x̂‖².

    Args:
        queries: (nq, d) of length one.
        x, xhat: (n, d) of length l, and decoded.
        near: (nq, k), numbers of the nearest x of each query.
        length: l. (Where lengths differ the less of s is left, the more they do.)
    """
    lost = _lost(xhat, length)
    missing = np.einsum("qd,qnd->qn", queries, x[near] - xhat[near], dtype=np.float64)
    # A query's own mean changes no order.
    lost, missing = (v - v.mean(axis=1, keepdims=True) for v in (lost[near], missing))
    squares = float(np.square(lost).sum())
    return min(max(float((lost * missing).sum()) / squares, 0.0), 0.5) if squares else 0.5


def _lost(xhat: F32, length: float) -> F64:
    return (length**2 - squared_norms(xhat).astype(np.float64)) / length


def with_lost(queries: F32, xhat: F32, share: float, length: float = 1.0, sizes: F32 | None = None) -> tuple[F32, F32]:
    """``queries`` (nq, d) and x̂ (n, d) with a dimension more, so that inner products are ⟨q, x̂⟩ + share·‖q‖·(l² −
    ‖x̂‖²)/l, with l for ``length`` and ``sizes`` (nq,) of the queries, None where they are one."""
    last = np.ones(len(queries), np.float32) if sizes is None else sizes
    return np.column_stack([queries, last]), np.column_stack([xhat, (share * _lost(xhat, length)).astype(np.float32)])


def nearest(queries: F32, x: F32, k: int, metric: str = "ip", *, others: bool = False) -> I64:
    """Numbers (nq, k) of those of ``x`` (n, d) that are nearest to queries (nq, d); fewer columns where there are fewer
    of them. ``others``: the queries stand for the vectors of the same numbers, which do not count for themselves."""
    numbers = np.tile(np.arange(len(x), dtype=np.int64), (len(queries), 1))
    if others:
        np.fill_diagonal(numbers, -1)
    k = min(k, len(x) - others)
    return np.asarray(_native.rerank_array(x, "float32", queries, numbers, k, metric, get_num_threads())[1])


def found_of(true: I64, found: I64) -> int:
    """How many of the ``true`` numbers (nq, k) were found (nq, k)."""
    return sum(len(np.intersect1d(a, b)) for a, b in zip(true, found, strict=True))


def worth(true: I64, found: I64) -> int:
    """How well the ``true`` numbers (nq, k) were found (nq, k), in their order: the first counts as much as all."""
    return found_of(true, found) + true.shape[1] * found_of(true[:, :1], found[:, :1])


def stored_share(share: Any, metric: str, metrics: tuple[str, ...] = ("cosine",)) -> float | None:
    """``share`` as a file has it, None where there is none.

    Raises:
        ValueError: not a number in [0, ½], or not under one of ``metrics``.
    """
    if share is None:
        return None
    if not isinstance(share, float) or not 0 <= share <= 0.5 or metric not in metrics:
        under = " or ".join(metrics)
        raise ValueError(f"its error_share must be a number in [0, 0.5] under {under}, got {share!r}")
    return share
