"""How many lists to probe: from a recall target, more for many neighbours and where a filter leaves few vectors."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import positive_int
from annvq.indexes.ivf.coarse import Coarse
from annvq.indexes.ivf.coding import floats
from annvq.indexes.targets import check_share, fewest
from annvq.types import F32, I32, I64

NEIGHBORS = 10


class Probing:
    """How many lists a search probes unless it says otherwise: a given number, or as many as a recall target takes.

    Args:
        given: that number, or None.
        recall_target: share of the neighbours wanted that shall lie in the lists probed, in (0, 1].

    Attributes:
        reach: (nlist,) as :func:`reach_of` measures it; empty until then.
        neighbors: how many neighbours of each query were wanted then.
    """

    def __init__(self, given: int | None, recall_target: float) -> None:
        self.given = given
        self.recall_target = check_share(recall_target, "recall_target")
        self.reach: F32 = np.empty(0, np.float32)
        self.neighbors = NEIGHBORS

    def usual(self, nlist: int) -> int:
        """Lists that a search probes unless it says otherwise."""
        return self.lists_for(self.recall_target, nlist) if self.given is None else min(self.given, nlist)

    def for_neighbors(self, k: int, nlist: int, n: int) -> int:
        """Lists that a search for ``k`` of ``n`` vectors probes unless it says otherwise.

        For more neighbours than were measured their number grows as a power of ``k``, the one by which all lists are
        reached where all vectors are wanted (docs/indexes.md has the measurement). A given number stays as it is.
        """
        usual = self.usual(nlist)
        if self.given is not None or k <= self.neighbors:
            return usual
        if k >= n:
            return nlist
        power = math.log(nlist / usual) / math.log(n / self.neighbors)
        return min(nlist, math.ceil(usual * (k / self.neighbors) ** power))

    def lists_for(self, recall: float, nlist: int) -> int:
        """Lists to probe for a share ``recall`` of the neighbours; one in 16 where nothing was measured."""
        return fewest(self.reach, recall) if len(self.reach) else max(1, nlist // 16)

    def learn(self, coarse: Coarse, rows: F32, held: F32, metric: str) -> None:
        """Measure the reach, unless it is known, on queries ``held`` (nq, d) whose neighbours are among ``rows``."""
        if not len(self.reach) and len(held):
            self.reach = reach_of(coarse, held, nearest_lists(coarse, rows, held, NEIGHBORS, metric))
            self.neighbors = NEIGHBORS

    def measured(self, reach: F32, recall_target: float, neighbors: int = NEIGHBORS) -> None:
        """Take a new measurement, for so many neighbours, and a target in place of what was given."""
        self.reach, self.recall_target, self.given, self.neighbors = reach, recall_target, None, neighbors

    def forget(self) -> None:
        """Forget the measurement."""
        self.reach, self.neighbors = np.empty(0, np.float32), NEIGHBORS

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors of a file."""
        config: dict[str, Any] = {"nprobe": self.given, "recall_target": self.recall_target}
        if self.neighbors != NEIGHBORS:  # not before tune was told so
            config["reach_neighbors"] = self.neighbors
        return config, {"reach": self.reach} if len(self.reach) else {}

    def restore(self, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], nlist: int) -> None:
        """Take the measurement of :meth:`to_stored`, if there is one, out of ``tensors``.

        Raises:
            TypeError, ValueError: it does not fit.
        """
        if "reach" in tensors:
            self.reach = floats(tensors, "reach", nlist)
            self.neighbors = positive_int(config.get("reach_neighbors", NEIGHBORS), "reach_neighbors")


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


def widened(nprobe: int, nlist: int, allowed: int, n: int) -> int:
    """Lists to probe where a filter allows ``allowed`` of ``n`` vectors: nprobe / √share, at most all of them.

    The neighbours of a query among a share s of the vectors lie as deep as its neighbours 1/s times further down the
    ranking of all; lists enough for s of the usual candidates would be nprobe / s. Its square root keeps recall
    within a few points of the unfiltered search's at a cost that stays bounded (docs/indexes.md has the measurement).
    """
    if allowed >= n or n == 0:
        return nprobe
    return min(nlist, math.ceil(nprobe / math.sqrt(max(allowed, 1) / n)))
