"""How many lists to probe: from a recall target, and more where a filter leaves few vectors."""

import math

import numpy as np
import numpy.typing as npt

from annvq.indexes.coarse import Coarse
from annvq.types import F32, I32, I64


def reach_of(coarse: Coarse, queries: F32, lists: I32) -> F32:
    """Share of wanted vectors that lie in the first 1, 2, … nlist lists probed, averaged over queries.

    Args:
        queries: (nq, d).
        lists: (nq, k), the list of each wanted vector of each query; −1 where there is none.

    Returns:
        (nlist,) float32, ascending; its last value is 1.
    """
    counts = np.zeros(coarse.nlist, np.int64)
    for q, wanted in zip(queries, lists, strict=True):
        rank = np.empty(coarse.nlist, np.int64)
        rank[coarse.probe(q[None], coarse.nlist)[0][0]] = np.arange(coarse.nlist)
        counts += np.bincount(rank[wanted[wanted >= 0]], minlength=coarse.nlist)
    total = counts.sum()
    reach = np.cumsum(counts) / total if total else np.ones(coarse.nlist)
    return reach.astype(np.float32)


def nearest_lists(coarse: Coarse, learn: F32, queries: F32, k: int, metric: str) -> I32:
    """The lists (nq, k) that hold the k true neighbours of each query among ``learn``."""
    import faiss

    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    neighbors: I64 = faiss.knn(queries, learn, min(k, len(learn)), metric=kind)[1]
    lists: I32 = coarse.assign(learn)[neighbors]
    return lists


def probes_for(reach: npt.NDArray[np.floating], recall: float) -> int:
    """The fewest lists that reach ``recall`` of the wanted vectors."""
    return min(len(reach), int(np.searchsorted(reach, recall - 1e-6)) + 1)


def widened(nprobe: int, nlist: int, allowed: int, n: int) -> int:
    """Lists to probe where a filter allows ``allowed`` of ``n`` vectors: nprobe / √share, at most all of them.

    The neighbours of a query among a share s of the vectors lie as deep as its neighbours 1/s times further down the
    ranking of all; lists enough for s of the usual candidates would be nprobe / s. Its square root keeps recall
    within a few points of the unfiltered search's at a cost that stays bounded (docs/indexes.md has the measurement).
    """
    if allowed >= n or n == 0:
        return nprobe
    return min(nlist, math.ceil(nprobe / math.sqrt(max(allowed, 1) / n)))


def check_share(value: float, name: str) -> float:
    """``value`` as a float if it lies in (0, 1], else ValueError or TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        raise TypeError(f"{name} must be a number in (0, 1], got {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value}")
    return float(value)
