"""A share of what coding took away, under cosine: how it is learned, and what is found with it."""

from typing import Any

import numpy as np

from annvq.kernels import _native, squared_norms
from annvq.threads import get_num_threads
from annvq.types import F32, I64

ASKING, NEAR = 256, 50
"""Of the vectors that a share is learned from, those that stand for queries, and how many others, the nearest to each,
count. Of less than twice as many vectors none is learned."""

TOP = 10
"""How many count among the few vectors that are held out of a fit, where fifty would reach further than neighbours do;
and by how many of them a share is compared with a length."""


def learned_share(queries: F32, x: F32, xhat: F32, near_each: int = NEAR) -> float:
    """s of ⟨q, x⟩ ≈ ⟨q, x̂⟩ + s·(1 − ‖x̂‖²), in [0, ½], by least squares among the nearest x of each query, so many.

    On average 1 − ‖x̂‖² is ‖x − x̂‖², what coding took away, of which a query near x has a part. 0 is ⟨q, x̂⟩ alone, ½ the
    order of ‖q − x̂‖².

    Args:
        queries: (nq, d) of length one.
        x, xhat: (n, d) of length one, and decoded.
    """
    near = nearest(queries, x, near_each, "cosine")
    lost = 1.0 - squared_norms(xhat).astype(np.float64)
    missing = np.einsum("qd,qnd->qn", queries, x[near] - xhat[near], dtype=np.float64)
    # A query's own mean changes no order.
    lost, missing = (v - v.mean(axis=1, keepdims=True) for v in (lost[near], missing))
    squares = float(np.square(lost).sum())
    return min(max(float((lost * missing).sum()) / squares, 0.0), 0.5) if squares else 0.5


def with_lost(queries: F32, xhat: F32, share: float) -> tuple[F32, F32]:
    """``queries`` (nq, d) and x̂ (n, d) with a dimension more, so that inner products are ⟨q, x̂⟩ + share·(1 − ‖x̂‖²)."""
    lost = share * (1.0 - squared_norms(xhat).astype(np.float64))
    ones = np.ones(len(queries), np.float32)
    return np.column_stack([queries, ones]), np.column_stack([xhat, lost.astype(np.float32)])


def nearest(queries: F32, x: F32, k: int, metric: str = "ip") -> I64:
    """Numbers (nq, k) of those of ``x`` (n, d) that are nearest to queries (nq, d); fewer columns where there are fewer
    of them."""
    numbers = np.tile(np.arange(len(x), dtype=np.int64), (len(queries), 1))
    found = _native.rerank_array(x, "float32", queries, numbers, min(k, len(x)), metric, get_num_threads())[1]
    return np.asarray(found)


def found_of(true: I64, found: I64) -> int:
    """How many of the ``true`` numbers (nq, k) were found (nq, k)."""
    return sum(len(np.intersect1d(a, b)) for a, b in zip(true, found, strict=True))


def stored_share(share: Any, metric: str) -> float | None:
    """``share`` as a file has it, None where there is none.

    Raises:
        ValueError: not a number in [0, ½], or not under cosine.
    """
    if share is None:
        return None
    if not isinstance(share, float) or not 0 <= share <= 0.5 or metric != "cosine":
        raise ValueError(f"its error_share must be a number in [0, 0.5] under cosine, got {share!r}")
    return share
