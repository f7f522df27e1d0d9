"""Recall among more vectors than were measured, predicted from fewer.

A sample of m base vectors is also two samples of m/2, four of m/4, and so on. The true neighbours and the results of
such a part are those of the whole that lie in it, in the same order; so one search, some hundreds of results deep,
tells recall at m, m/2, m/4, …, each of them over all parts of that size.

A true neighbour is found where its distance by codes lies below that of the k-th result. Near a query the number of
vectors within a distance grows as a power of it, so along log n the neighbour's true distance and that of the k-th
result move by constant steps, while the error that codes make of a distance stays as it is. Where that error is
normally distributed, recall is Φ(a + b·log n): once it is put through Φ⁻¹, a line. It is drawn through the sizes by
generalised least squares, as their figures are of the same queries, and read off at n. How far it may bend, and how
steep it is where parts do not tell, is assumed as other data have shown it; that makes the interval wider the farther n
is from m.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from annvq.benchmarks.metrics import k_recall, meaning
from annvq.benchmarks.statistics import Figure
from annvq.indexes import IVFIndex, RerankIndex
from annvq.types import F32, F64, I64

K = 10
"""Of the recalls that are predicted unless another k is asked for."""
_DEPTH, _DEEPEST = 1024, 4096  # results that parts of a sample are made of: for k up to 10, and for large k
_SIZES = 6  # m, m/2, …, m/32
_LEAST = 400  # vectors of a part; of many neighbours ten times as many as these
_FOUND = 3  # times k results of a part are known, at least
_DEEPER = 4  # times DEPTH are on the shortlists of indexes that re-rank
_RESAMPLES = 400  # of the queries
_OFF = 0.005  # standard deviation of a size's Φ⁻¹(recall) from the curve
_SLOPE = (-0.12, 0.1)  # change of Φ⁻¹(recall) for a doubling, where parts do not tell: mean, standard deviation
# By which share a doubling changes Φ⁻¹(recall) less than the one before, halved: mean and standard deviation, as SIFT
# descriptors and text embeddings show them. Nearest neighbours bend more: among more vectors more queries have one that
# lies closer than others. What bends by itself is beside that.
_BEND_OF_ONE, _BEND = (0.03, 0.03), (0.012, 0.01)  # the second of ten neighbours or more
_ITSELF = 0.0003
_STRAIGHT = (0.0, 1e-6)
_WIDTH = 1.96  # standard deviations to either side of 95 %


@dataclass(frozen=True)
class Curve:
    """What a sample's parts say of recall.

    Attributes:
        sizes: vectors of a part (s,), the whole sample first.
        found: by the names of :func:`names_of`, the share that each query found, averaged over the parts of a size,
            (s, nq).
    """

    sizes: F64
    found: Mapping[str, F64]


def names_of(k: int) -> tuple[str, ...]:
    """What is predicted for k results; see :mod:`annvq.benchmarks.metrics`."""
    return tuple(dict.fromkeys((k_recall(1), f"recall@{k}", k_recall(k))))


def depth_of(k: int) -> int:
    """How many results, and true neighbours, parts of a sample are made of."""
    return max(_DEPTH, min(_DEPTH * k // K, _DEEPEST))


def order_of(index: Any, queries: F32, depth: int) -> I64:
    """Ids (nq, depth) in the order that ``index`` ranks by, all lists probed and shortlists long."""
    scanned = index.index if isinstance(index, RerankIndex) else index
    settings: dict[str, Any] = {"nprobe": scanned.nlist} if isinstance(scanned, IVFIndex) else {}
    if isinstance(index, RerankIndex):
        settings["shortlist"] = _DEEPER * depth
    ids: I64 = index.search(queries, depth, **settings)[1]
    return ids


def curve_of(found: I64, neighbors: I64, distances: F32, n: int, seed: int = 0, k: int = K) -> Curve:
    """Recall in parts of a sample.

    Args:
        found: (nq, depth) ids in the order that an index ranks by; −1 where there are none.
        neighbors, distances: (nq, depth) the true neighbours and their exact distances, nearest first; what is as near
            as a true neighbour counts as one.
        n: vectors of the sample, whose ids are 0 … n−1.
        seed: of the parts.
        k: of the recalls.
    """
    nq, depth = neighbors.shape
    # A neighbour's place among all, those at one distance alike; what is not among the depth nearest comes after.
    place = np.stack([np.searchsorted(row, row, side="left") for row in distances])
    rank = np.full(found.shape, depth, np.int64)
    known = np.full(n, depth, np.int64)
    for q in range(nq):
        known[neighbors[q]] = place[q]
        rank[q] = np.where(found[q] >= 0, known[found[q]], depth)
        known[neighbors[q]] = depth
    shuffled = np.random.default_rng(seed).permutation(n)
    sizes: list[float] = []
    meant = {name: what for name in names_of(k) if (what := meaning(name)) is not None}
    shares: dict[str, list[F64]] = {name: [] for name in meant}
    for parts in (2**level for level in range(_SIZES)):
        if parts > 1 and (n // parts < max(_LEAST, 10 * k) or depth // parts < _FOUND * k):
            break
        true = _first_of_parts(place, shuffled[neighbors] % parts, parts, depth, k)
        listed = _first_of_parts(rank, np.where(found >= 0, shuffled[found] % parts, parts), parts, depth, k)
        for name, (wanted, among) in meant.items():
            farthest = true[:, :, wanted - 1 : wanted]
            hits = ((listed[:, :, :among] <= farthest) & (listed[:, :, :among] < depth)).sum(axis=2)
            shares[name].append((np.minimum(hits, wanted) / wanted).mean(axis=1))
        sizes.append(n / parts)
    return Curve(np.array(sizes), {name: np.stack(values) for name, values in shares.items()})


def _first_of_parts(ranks: I64, part: I64, parts: int, none: int, first: int) -> I64:
    """The ranks of the ``first`` rows of each part, (nq, parts, first), of rows (nq, depth) and their parts; ``none``
    where a part has fewer."""
    order = np.argsort(part, axis=1, kind="stable")
    sizes = np.stack([np.count_nonzero(part == p, axis=1) for p in range(parts)], axis=1)
    at = (np.cumsum(sizes, axis=1) - sizes)[:, :, None] + np.arange(first)
    there = np.arange(first) < sizes[:, :, None]
    rows = np.take_along_axis(order, np.where(there, at, 0).reshape(len(part), -1), axis=1)
    return np.where(there, np.take_along_axis(ranks, rows, axis=1).reshape(at.shape), none)


def kept_shares(curve: Curve, measured: Mapping[str, float | None]) -> dict[str, float]:
    """By name, what an index's own search of a sample finds of what the sample's curve says: lists that are not probed
    and short shortlists lose some. ``measured`` is its recall; one where that is not known."""
    shares = {}
    for name, found in curve.found.items():
        whole, own = float(found[0].mean()), measured.get(name)
        shares[name] = 1.0 if own is None or whole == 0 else min(own / whole, 1.0)
    return shares


def predicted(curve: Curve, n: int, kept: Mapping[str, float]) -> dict[str, Figure]:
    """Recall among ``n`` vectors, with the interval that holds it in 95 of 100 cases.

    Args:
        curve: of a sample, from :func:`curve_of`.
        n: vectors.
        kept: from :func:`kept_shares`; the same share is taken to be found among n.
    """
    out = {}
    for name, found in curve.found.items():
        value, deviation = _line(curve.sizes, found, n, _bend(name))
        low, middle, high = (kept[name] * float(ndtr(value + sign * _WIDTH * deviation)) for sign in (-1, 0, 1))
        out[name] = Figure(middle, low, high)
    return out


def _bend(name: str) -> tuple[float, float]:
    """Mean and standard deviation for a recall by its name; of few neighbours less is known."""
    what = meaning(name)
    if what is None or what[0] == 1:
        return _BEND_OF_ONE
    return _BEND[0], _BEND[1] * max(1.0, K / what[0]) ** 0.5


def _line(sizes: F64, found: F64, n: int, bend: tuple[float, float]) -> tuple[float, float]:
    """Φ⁻¹ of recall among ``n`` vectors, and its standard deviation, from shares ``found`` (s, nq) at sizes (s,);
    ``bend``: its mean and standard deviation."""
    nq = found.shape[1]
    drawn = np.random.default_rng(0).multinomial(nq, np.full(nq, 1 / nq), size=_RESAMPLES) / nq
    share = found.mean(axis=1)
    noise = np.atleast_2d(np.cov(_probit(drawn @ found.T, nq), rowvar=False)) + _OFF**2 * np.eye(len(sizes))
    # Where next to all queries found all, or none, draws of them do not tell how sure that is.
    noise += np.diag((1 / (1 + 2 * nq * np.minimum(share, 1 - share))) ** 2)
    at, heights = np.log2(sizes / sizes[0]), _probit(share, nq)
    slope = min(float(_fitted(at, heights, noise, _STRAIGHT)[0][1]), 0.0)
    curve, spread = _fitted(at, heights, noise, (-bend[0] * slope, -bend[1] * slope + _ITSELF))
    there = _terms(np.log2(n / sizes[:1]))[0]
    value = float(there @ curve)
    if n > sizes[0]:  # recall does not rise, whatever a few queries seem to say
        value = min(value, float(curve[0]))
    return value, float(np.sqrt(there @ spread @ there))


def _fitted(at: F64, heights: F64, noise: F64, bend: tuple[float, float]) -> tuple[F64, F64]:
    """Height, slope and bend (3,) of a curve through ``heights`` (s,) with this covariance, and their own covariance;
    slope and bend as far as they are known beforehand."""
    terms = _terms(at)
    usual = np.array([0.0, _SLOPE[0], bend[0]])
    sure = np.diag([0.0, 1 / _SLOPE[1] ** 2, 1 / bend[1] ** 2])
    weighed = np.linalg.solve(noise, terms)
    spread = np.linalg.inv(terms.T @ weighed + sure)
    return spread @ (weighed.T @ heights + sure @ usual), spread


def _terms(at: F64) -> F64:
    return np.stack([np.ones(len(at)), at, at**2], axis=1)


def _probit(share: F64, nq: int) -> F64:
    """Φ⁻¹ of shares of ``nq`` queries, of which none is taken to be 0 or 1."""
    z: F64 = ndtri((nq * share + 0.5) / (nq + 1))
    return z
