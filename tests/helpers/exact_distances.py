"""Distances as re-ranking sums them, in NumPy."""

import numpy as np


def lanes(terms):
    """Sums over the last axis: sixteen partial sums, folded in halves."""
    out = np.zeros((*terms.shape[:-1], 16), np.float32)
    for j in range(0, terms.shape[-1], 16):
        part = terms[..., j : j + 16].astype(np.float32)
        out[..., : part.shape[-1]] += part
    for half in (8, 4, 2, 1):
        out = out[..., :half] + out[..., half:]
    return out[..., 0]


def distances_to(q, x, metric):
    """(nq, n) of float32 queries (normalised under cosine) and vectors."""
    if metric == "l2":
        return lanes((q[:, None] - x[None]) ** 2)
    products = lanes(q[:, None] * x[None])
    if metric == "ip":
        return -products
    return np.float32(1) - (products if metric == "unit" else products / np.sqrt(lanes((x * x)[None])))


def ordered(scores, ids, k):
    order = np.lexsort((np.broadcast_to(ids, scores.shape), scores))[:, :k]
    return np.take_along_axis(scores, order, 1), ids[order]
