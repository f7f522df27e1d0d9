"""From what a set consists of to a checked :class:`Dataset`: metric, neighbours, learn vectors."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import as_float32
from annvq.datasets import files, groundtruth, hdf5, vecs
from annvq.datasets.dataset import Dataset, Vectors, as_vectors, check_metric, check_positive
from annvq.rows import LazyRows

_log = logging.getLogger("annvq.datasets")

#: Training vectors drawn from base where a set has none of its own.
DEFAULT_LEARN_SIZE = 100_000

_BLOCK = 16384
_TOLERANCE = 1e-3

#: How files state distances → annvq's definition of the metric, in the order they are tried.
_CONVERSIONS: dict[str, tuple[Any, ...]] = {
    "l2": (np.square, lambda t: t),
    "cosine": (lambda t: t,),
    "ip": (lambda t: t, np.negative, lambda t: t - 1),
}


def from_hdf5(path: Path, *, name: str, metric: str | None, info: dict[str, Any], **options: Any) -> Dataset:
    """A set from a file of the ann-benchmarks layout; ``metric`` overrides the file's."""
    held = hdf5.read(path)
    chosen = metric or held.metric
    if chosen is None:
        raise ValueError(f"{path}: no attribute 'distance' in it; pass metric='l2', 'ip' or 'cosine'")
    return assemble(
        name,
        chosen,
        held.base,
        held.queries,
        learn=held.learn,
        # What the file calls nearest under one metric says nothing about another.
        neighbors=held.neighbors if metric in (None, held.metric) else None,
        distances=held.distances if metric in (None, held.metric) else None,
        source=str(path),
        info=info,
        **options,
    )


def from_folder(folder: Path, *, metric: str | None, **options: Any) -> Dataset:
    """A set from a folder of vector files named as TEXMEX names them, of any format."""
    base = _only(folder, "base", tuple(files.READERS))
    queries = _only(folder, "query", tuple(files.READERS))
    learn = _only(folder, "learn", tuple(files.READERS), optional=True)
    truth = _only(folder, "groundtruth", vecs.ID_SUFFIXES, optional=True)
    assert base is not None  # _only raises
    assert queries is not None
    return assemble(
        folder.resolve().name,
        metric or "l2",
        _read(base),
        _read(queries),
        learn=None if learn is None else _read(learn),
        neighbors=vecs.read_ids(truth) if truth is not None and metric in (None, "l2") else None,
        source=str(folder),
        **options,
    )


def assemble(
    name: str,
    metric: str,
    base: Vectors,
    queries: Vectors,
    *,
    learn: Vectors | None = None,
    neighbors: npt.NDArray[Any] | None = None,
    distances: npt.NDArray[Any] | None = None,
    source: str = "",
    info: dict[str, Any] | None = None,
    k: int = 100,
    learn_size: int | None = None,
    seed: int = 0,
    recompute: bool = False,
    progress: bool | None = None,
) -> Dataset:
    """Check the parts of a set, add those it lacks, and make the :class:`Dataset`.

    ``source`` (a path, where there is one) names the set in errors.
    """
    check_metric(metric)
    check_positive("k", k)
    where = source or name
    base, queries = as_vectors(base, f"{where}: base"), as_vectors(queries, f"{where}: queries")
    _same_dimension(where, base, queries=queries, learn=learn)
    if metric == "cosine":
        base, queries, dropped = _without_zeros(where, base, queries)
        neighbors = None if dropped else neighbors
    k = min(k, len(base))
    if neighbors is None or recompute or neighbors.shape[1] < k:
        neighbors, distances = groundtruth.cached_neighbors(base, queries, k, metric, progress=progress)
    else:
        neighbors, distances = _checked_truth(where, base, queries, neighbors, distances, metric)
    sampled = learn is None
    return Dataset(
        name=name,
        metric=metric,
        base=base,
        learn=training_vectors(learn, base, queries, size=learn_size, seed=seed),
        queries=queries,
        neighbors=neighbors,
        distances=distances,
        learn_is_base_sample=sampled,
        source=source,
        info=info or {},
    )


def training_vectors(
    learn: Vectors | None, base: Vectors, queries: Vectors, *, size: int | None = None, seed: int = 0
) -> Vectors:
    """The vectors to train on: ``learn``, or without it a seeded sample of ``base``.

    Rows equal to a query are left out. ``size`` bounds how many there are; None means all of ``learn``, or
    ``DEFAULT_LEARN_SIZE`` of base.
    """
    if size is not None:
        check_positive("learn_size", size)
    if learn is not None:
        learn = as_vectors(learn, "learn")
    pool = base if learn is None else learn
    wanted = size or (DEFAULT_LEARN_SIZE if learn is None else len(pool))
    if wanted < len(pool):
        # Rows in file order: reading them from a memory map is then one pass.
        pool = pool[np.sort(np.random.default_rng(seed).choice(len(pool), wanted, replace=False))]
    asked = _row_hashes(queries)
    keep = np.concatenate(
        [~np.isin(_row_hashes(pool[start : start + _BLOCK]), asked) for start in range(0, len(pool), _BLOCK)]
    )
    if keep.all():
        return pool
    if not keep.any():
        raise ValueError("no training vectors are left: every one of them is also a query")
    return np.ascontiguousarray(pool[keep])


def _without_zeros(where: str, base: Vectors, queries: Vectors) -> tuple[Vectors, Vectors, int]:
    """Base and queries without zero vectors, which have no direction, and how many there were."""
    keep_base, keep_queries = _nonzero_rows(base), _nonzero_rows(queries)
    zeros = int((~keep_base).sum()), int((~keep_queries).sum())
    if not keep_base.any() or not keep_queries.any():
        raise ValueError(f"{where}: all base vectors or all queries are zero, which have no direction (cosine)")
    if any(zeros):
        _log.warning("%s: left out zero vectors: %d of base, %d queries (metric cosine)", where, *zeros)
    return (
        np.ascontiguousarray(base[keep_base]) if zeros[0] else base,
        np.ascontiguousarray(queries[keep_queries]) if zeros[1] else queries,
        sum(zeros),
    )


def _nonzero_rows(x: Vectors) -> npt.NDArray[np.bool_]:
    return np.concatenate([(as_float32(x[i : i + _BLOCK]) != 0).any(axis=1) for i in range(0, len(x), _BLOCK)])


def _row_hashes(x: Vectors) -> npt.NDArray[Any]:
    # + 0.0 makes −0.0 and 0.0 one value; equal vectors then have equal bytes in whatever type they are
    # stored.
    rows = as_float32(x) + np.float32(0)
    return np.array([hashlib.blake2b(row, digest_size=16).digest() for row in rows], dtype="V16")


def _same_dimension(where: str, base: Vectors, **others: Vectors | None) -> None:
    for what, x in others.items():
        if x is not None and (x.ndim != 2 or x.shape[1] != base.shape[1]):
            raise ValueError(f"{where}: base has dimension {base.shape[1]}, {what} has shape {x.shape}")


def _checked_ids(where: str, neighbors: npt.NDArray[Any], nq: int, n: int) -> npt.NDArray[np.int64]:
    if len(neighbors) != nq:
        raise ValueError(f"{where}: neighbours of {len(neighbors)} queries, but there are {nq} queries")
    ids = np.asarray(neighbors).astype(np.int64)
    if ids.min() < 0 or ids.max() >= n:
        raise ValueError(
            f"{where}: neighbour ids must lie in [0, {n}), they lie in [{ids.min()}, {ids.max()}]; "
            "recompute=True ignores them and computes new ones"
        )
    return ids


def _checked_truth(
    where: str,
    base: Vectors,
    queries: Vectors,
    neighbors: npt.NDArray[Any],
    stated: npt.NDArray[Any] | None,
    metric: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The given neighbours with distances computed from the vectors, by (distance, id).

    What a file states as distances only serves as a check: its definition, rounding and order of ties are its
        own.
    """
    ids = _checked_ids(where, neighbors, len(queries), len(base))
    true = groundtruth.distances_to(base, queries, ids, metric)
    scale = np.abs(true).max() or 1.0
    if (np.diff(true, axis=1) < -_TOLERANCE * scale).any():
        raise ValueError(
            f"{where}: its neighbours are not in order of the distance {metric!r}; they belong to another "
            "metric or to other vectors (recompute=True ignores them and computes new ones)"
        )
    if stated is not None:
        _check_stated(where, stated, true, metric, scale)
    order = np.lexsort((ids, true), axis=1)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(true, order, axis=1).astype(np.float32)


def _check_stated(
    where: str, stated: npt.NDArray[Any], true: npt.NDArray[np.float64], metric: str, scale: float
) -> None:
    if stated.shape != true.shape:
        raise ValueError(f"{where}: neighbors has shape {true.shape}, distances has {stated.shape}")
    for convert in _CONVERSIONS[metric]:
        # Median: stated distances often come from float32 products, which are rough near zero.
        if np.median(np.abs(convert(stated.astype(np.float64)) - true)) <= _TOLERANCE * scale:
            return
    raise ValueError(
        f"{where}: its distances do not agree with its vectors under the metric {metric!r} "
        f"(first query: stated {stated[0, 0]:.6g}, computed {true[0, 0]:.6g}); recompute=True ignores them "
        "and computes new ones"
    )


def _read(path: Path) -> Vectors:
    """The vectors of a file; in memory where it cannot be mapped, as neighbours are looked up row by row."""
    x = files.read_vectors(path)
    return x[:] if isinstance(x, LazyRows) else x


def _only(folder: Path, role: str, suffixes: tuple[str, ...], *, optional: bool = False) -> Path | None:
    found = sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.stem.rpartition("_")[2] == role)
    if len(found) > 1:
        raise ValueError(f"{folder}: more than one file ending in _{role}: {', '.join(p.name for p in found)}")
    if not found and not optional:
        raise ValueError(f"{folder}: no file ending in _{role}{{{','.join(suffixes)}}}")
    return found[0] if found else None
