"""Exact nearest neighbours by brute force, in all three metrics, and their cache on disk.

float32 matrix products (FAISS) propose candidates; float64 distances, summed over (q − x)² itself, decide
among them by (distance, id). A query whose candidates cannot be *proved* to hold its true k nearest
(rounding, or more ties than the margin) is searched again with float64 products, so that the result never
depends on float32 rounding.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import as_float32, dtype_name
from annvq.datasets import cache
from annvq.datasets.dataset import Vectors, as_vectors, check_metric, check_positive
from annvq.optional import needed_by
from annvq.types import F32, F64

_log = logging.getLogger("annvq.datasets")

I64 = npt.NDArray[np.int64]

_BASE_BLOCK = 65536
_QUERY_BLOCK = 1024
_SECOND_PASS_QUERIES = 64
_MARGIN = 32
_VERSION = 1


@needed_by("annvq.datasets.exact_neighbors")
def exact_neighbors(
    base: Vectors, queries: Vectors, k: int = 100, metric: str = "l2", *, progress: bool | None = None
) -> tuple[I64, F32]:
    """The k nearest base rows of every query, exactly, ordered by (float64 distance, id).

    Args:
        base: (n, d) vectors; a memory map is read in blocks.
        queries: (nq, d) vectors.
        k: neighbours asked for, at most n.
        metric: ``"l2"`` (squared Euclidean), ``"ip"`` (−⟨q, x⟩) or ``"cosine"`` (1 − cos).
        progress: show a progress bar; None shows one on a terminal when it takes more than two seconds.

    Returns:
        ``(neighbors (nq, k) int64, distances (nq, k) float32)``.

    Raises:
        ValueError: shapes that do not match, k > n, values that are not finite, a zero vector under
            ``cosine``.
    """
    base, queries = as_vectors(base, "base"), as_vectors(queries, "queries")
    check_metric(metric)
    check_positive("k", k)
    if base.shape[1] != queries.shape[1]:
        raise ValueError(f"base has dimension {base.shape[1]}, queries have {queries.shape[1]}")
    if k > len(base):
        raise ValueError(f"k={k} exceeds the {len(base)} base vectors")
    _check_values(queries, "queries", 0, metric)

    wanted = min(len(base), k + max(_MARGIN, k // 4))
    scores, ids, longest = _candidates(base, queries, wanted, metric, progress)
    # float32 cannot rank these; the float64 pass finds everything by itself.
    usable = np.isfinite(scores).all(axis=1)
    neighbors = np.zeros((len(queries), k), np.int64)
    distances = np.full((len(queries), k), np.inf)
    for q in np.flatnonzero(usable):
        neighbors[q], distances[q] = _nearest(base, queries[q], ids[q], k, metric)
    if wanted < len(base):
        slack = _rounding(queries, longest, metric, np.float32)
        proved = usable & (scores.max(axis=1) - slack > distances[:, -1])
    else:
        proved = usable
    doubtful = np.flatnonzero(~proved)
    if len(doubtful):
        _log.info("%d of %d queries need float64 to be exact", len(doubtful), len(queries))
        for start in range(0, len(doubtful), _SECOND_PASS_QUERIES):
            some = doubtful[start : start + _SECOND_PASS_QUERIES]
            neighbors[some], distances[some] = _second_pass(
                base, queries[some], distances[some, -1], k, metric, longest
            )
    with np.errstate(over="ignore"):
        return neighbors, distances.astype(np.float32)


def distances_to(base: Vectors, queries: Vectors, neighbors: npt.NDArray[Any], metric: str) -> F64:
    """Exact distances (nq, k) float64 from each query to the base rows that ``neighbors`` (nq, k) names."""
    out = np.empty(neighbors.shape, np.float64)
    for q, row in enumerate(neighbors):
        out[q] = _exact(queries[q], base[row], metric)
    return out


def cached_neighbors(
    base: Vectors, queries: Vectors, k: int = 100, metric: str = "l2", *, progress: bool | None = None
) -> tuple[I64, F32]:
    """As :func:`exact_neighbors`, kept on disk under a hash of (base, queries, metric, k)."""
    path = cache.data_dir() / "groundtruth" / f"{_key(base, queries, k, metric)}.safetensors"
    shape = (len(queries), k)
    found = _read(path, shape, len(base))
    if found is not None:
        return found
    try:
        with cache.lock(path.with_suffix(".lock")):
            # Another process may have computed it while this one waited.
            found = _read(path, shape, len(base))
            if found is None:
                found = exact_neighbors(base, queries, k, metric, progress=progress)
                _write(path, *found)
    except OSError as error:
        _log.warning("cannot keep exact neighbours in %s (%s); set ANNVQ_DATA to a writable folder", path, error)
        found = exact_neighbors(base, queries, k, metric, progress=progress) if found is None else found
    return found


def _blocks(x: Vectors, size: int) -> Iterator[tuple[int, Vectors]]:
    for start in range(0, len(x), size):
        yield start, x[start : start + size]


def _check_values(x: Vectors, what: str, first_row: int, metric: str) -> None:
    x = _known(x)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"{what} row {first_row + row} holds values that are not finite")
    if metric == "cosine" and not (x != 0).any(axis=1).all():
        row = int(np.flatnonzero(~(x != 0).any(axis=1))[0])
        raise ValueError(f"{what} row {first_row + row} is a zero vector, which has no direction (metric 'cosine')")


def _float32(x: Vectors, metric: str) -> F32:
    if metric == "cosine":
        return _float64(x, metric).astype(np.float32)
    return as_float32(x)


def _known(x: Vectors) -> Vectors:
    """``x`` in a type that NumPy computes with: bfloat16 as float32."""
    return as_float32(x) if dtype_name(x) == "bfloat16" else x


def _float64(x: Vectors, metric: str) -> F64:
    x = _known(x).astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x


def _candidates(
    base: Vectors, queries: Vectors, wanted: int, metric: str, progress: bool | None
) -> tuple[F64, I64, float]:
    """float32 scores and ids of the ``wanted`` best rows per query, unordered; the largest base norm."""
    import faiss
    from tqdm import tqdm

    nq = len(queries)
    best = np.full((nq, wanted), np.inf)
    ids = np.zeros((nq, wanted), np.int64)
    longest = 0.0
    q32 = _float32(queries, metric)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    with tqdm(
        total=len(base) * nq,
        desc="exact neighbours",
        unit="pair",
        unit_scale=True,
        delay=2,
        disable=None if progress is None else not progress,
    ) as bar:
        for start, block in _blocks(base, _BASE_BLOCK):
            _check_values(block, "base", start, metric)
            x32 = _float32(block, metric)
            longest = max(longest, float(np.sqrt(np.einsum("ij,ij->i", x32, x32, dtype=np.float64).max())))
            here = min(wanted, len(x32))
            for first in range(0, nq, _QUERY_BLOCK):
                rows = slice(first, first + _QUERY_BLOCK)
                found, which = faiss.knn(q32[rows], x32, here, metric=kind)
                # A score that overflowed ranks last and makes the query doubtful.
                found = np.where((which >= 0) & np.isfinite(found), found, np.inf if metric == "l2" else -np.inf)
                scores = np.concatenate([best[rows], found if metric == "l2" else -found], axis=1)
                merged = np.concatenate([ids[rows], which + start], axis=1)
                keep = np.argpartition(scores, wanted - 1, axis=1)[:, :wanted]
                best[rows] = np.take_along_axis(scores, keep, axis=1)
                ids[rows] = np.take_along_axis(merged, keep, axis=1)
                bar.update(len(found) * len(x32))
    return best + (1.0 if metric == "cosine" else 0.0), ids, longest


def _rounding(queries: Vectors, longest: float, metric: str, dtype: type) -> F64:
    """How far scores from ``dtype`` products can be off: Higham's γ_d (Accuracy, §3.1), doubled."""
    d = queries.shape[1]
    limits = np.finfo(dtype)
    norms = np.linalg.norm(_float64(queries, metric), axis=1)
    size = (norms + longest) ** 2 if metric == "l2" else norms * longest
    return np.asarray((d + 8) * (float(limits.eps) * size + float(limits.tiny)), np.float64)


def _exact(query: Vectors, rows: Vectors, metric: str) -> F64:
    """float64 distances of ``rows`` (m, d) to one query; what decides every order."""
    x, q = _known(rows).astype(np.float64), _known(query).astype(np.float64)
    if metric == "l2":
        x -= q
        x *= x
        return np.asarray(x.sum(axis=1))
    dots = (x * q).sum(axis=1)
    if metric == "ip":
        return np.asarray(-dots)
    lengths = np.sqrt((x * x).sum(axis=1)) * np.sqrt((q * q).sum())
    return np.asarray(1.0 - dots / lengths)


def _nearest(base: Vectors, query: Vectors, ids: I64, k: int, metric: str) -> tuple[I64, F64]:
    """The k nearest of the rows ``ids``, by (distance, id)."""
    ids = np.sort(ids)
    distances = _exact(query, base[ids], metric)
    order = np.argsort(distances, kind="stable")[:k]
    return ids[order], distances[order]


def _second_pass(base: Vectors, queries: Vectors, bounds: F64, k: int, metric: str, longest: float) -> tuple[I64, F64]:
    """Search again with float64 products, scoring exactly every row that may lie within ``bounds``."""
    bounds = bounds.copy()
    q64 = _float64(queries, metric)
    slack = _rounding(queries, longest, metric, np.float64)
    found_ids = [np.empty(0, np.int64) for _ in queries]
    found = [np.empty(0) for _ in queries]
    for start, block in _blocks(base, _BASE_BLOCK // 4):
        x64 = _float64(block, metric)
        scores = -(q64 @ x64.T)
        if metric == "l2":
            scores = 2 * scores + (x64 * x64).sum(axis=1) + (q64 * q64).sum(axis=1)[:, None]
        elif metric == "cosine":
            scores += 1.0
        for q, query in enumerate(queries):
            hits = np.flatnonzero(scores[q] <= bounds[q] + slack[q])
            if not len(hits):
                continue
            ids = np.concatenate([found_ids[q], hits + start])
            distances = np.concatenate([found[q], _exact(query, block[hits], metric)])
            order = np.lexsort((ids, distances))[:k]
            found_ids[q], found[q] = ids[order], distances[order]
            if len(order) == k:
                bounds[q] = min(bounds[q], distances[order[-1]])
    return np.stack(found_ids), np.stack(found)


def _key(base: Vectors, queries: Vectors, k: int, metric: str) -> str:
    digest = hashlib.blake2b(f"annvq groundtruth {_VERSION} {metric} {k}".encode(), digest_size=20)
    for x in (base, queries):
        digest.update(f" {x.dtype.str} {x.shape} ".encode())
        for _, block in _blocks(x, 16384):
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int], n: int) -> tuple[I64, F32] | None:
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        neighbors, distances = arrays["neighbors"], arrays["distances"]
    except (SafetensorError, KeyError, OSError) as error:
        _log.warning("ignoring the damaged cache file %s (%s)", path, error)
        return None
    ok = neighbors.shape == shape == distances.shape and neighbors.dtype == np.int64 and distances.dtype == np.float32
    return (neighbors, distances) if ok and neighbors.min() >= 0 and neighbors.max() < n else None


def _write(path: Path, neighbors: I64, distances: F32) -> None:
    from safetensors.numpy import save_file

    with cache.atomic_path(path) as temporary:
        save_file({"neighbors": neighbors, "distances": distances}, temporary)
