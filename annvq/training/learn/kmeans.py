"""K-means: of rows, of every sub-space, of residuals codebook after codebook."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from annvq.arrays import chunks
from annvq.kernels.encode import AdditiveEncoder, decode_additive
from annvq.training.learn.lloyd import shared_cluster, shared_cluster_progressively
from annvq.training.learn.shares import ALONE, Alone
from annvq.types import F32

WARM_BEAM = 16  # most codes of a vector whose residuals the next codebook is learned from
WARM_ROWS = 1 << 17  # residuals that are enough for a codebook, unless there are more vectors
QUICK_ROWS = 8192  # rows from which a quick look tells how much is left to each codebook

Seeds = Callable[..., int]
"""A seed of its own for each purpose, named by numbers (see :meth:`~annvq.training.data.TrainingData.seed`)."""


def cluster(x: F32, count: int, iterations: int, seed: int, processes: Alone = ALONE) -> F32:
    """``count`` centroids (count, d) of ``x`` (n, d), of which each of several processes may hold a share; n ≥ count in
    all."""
    if processes.shared:
        return shared_cluster(x, count, iterations, seed, processes)
    import faiss

    rows = np.ascontiguousarray(x)
    kmeans = faiss.Kmeans(
        x.shape[1], count, niter=iterations, seed=seed % (1 << 31), max_points_per_centroid=1 << 30,
        min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(rows)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def cluster_progressively(x: F32, count: int, iterations: int, seed: int, processes: Alone = ALONE) -> F32:
    """The same: k-means on ever more of the principal components, each time from the centroids before. In many
    dimensions it ends nearer to the best centroids than k-means from rows."""
    if processes.shared:
        return shared_cluster_progressively(x, count, iterations, seed, processes)
    import faiss

    if len(x) <= x.shape[1]:  # too few for principal components
        return cluster(x, count, iterations, seed)
    rows = np.ascontiguousarray(x)
    plan = faiss.ProgressiveDimClusteringParameters()
    plan.niter, plan.seed = iterations, seed % (1 << 31)
    plan.min_points_per_centroid = 1
    kmeans = faiss.ProgressiveDimClustering(x.shape[1], count, plan)
    # The C++ signature, which some versions of faiss wrap for arrays and others do not.
    train: Any = getattr(kmeans, "train_c", kmeans.train)
    train(len(rows), faiss.swig_ptr(rows), faiss.ProgressiveDimIndexFactory())
    return np.asarray(faiss.vector_to_array(kmeans.centroids).reshape(count, x.shape[1]), dtype=np.float32)


def product_kmeans(
    x: F32,
    sizes: Sequence[int],
    starts: Sequence[int],
    widths: Sequence[int],
    *,
    iterations: int,
    seed: Seeds,
    processes: Alone = ALONE,
) -> list[F32]:
    """Codebooks (K_m, w_m) of the sub-spaces that begin at ``starts``, each by k-means on its part of x (n, d)."""
    return [
        cluster(np.ascontiguousarray(x[:, start : start + width]), size, iterations, seed(m), processes)
        for m, (start, width, size) in enumerate(zip(starts, widths, sizes, strict=True))
    ]


def residual_kmeans(
    x: F32,
    sizes: Sequence[int],
    *,
    iterations: int,
    kept: int | None,
    progressive: bool,
    seed: Seeds,
    processes: Alone = ALONE,
) -> list[F32]:
    """Codebooks (K_m, d) by k-means on residuals, codebook after codebook, of the codes that a beam search over the
    codebooks so far keeps.

    Vectors count once for each code kept, as in FAISS: encoding will leave the best of many residuals to the next
    codebook, and where vectors are few, the more residuals the less a codebook learns by heart.

    Args:
        x: (n, d).
        kept, progressive: see :class:`~annvq.training.KMeans`.
    """
    suited = kept or suited_kept(sizes)
    beam = max(1, min(suited, WARM_BEAM, max(2, -(-WARM_ROWS // processes.span(len(x))[1]))))
    learn = cluster_progressively if progressive else cluster
    books: list[F32] = []
    residual = x
    for m, size in enumerate(sizes):
        books.append(learn(residual, size, iterations, seed(m), processes))
        if m + 1 < len(sizes):
            residual = _residuals(x, books, sizes[: m + 1], beam, seed(1 << 19, m), processes)
    return books


def suited_kept(sizes: Sequence[int]) -> int:
    """Codes of each vector that are worth keeping. Of small codebooks a wide beam would keep codes that no encoding
    ever chooses."""
    return max(1, min((min(sizes) // 64) ** 2, WARM_BEAM))


def quick_energies(x: F32, sizes: Sequence[int], seed: int) -> list[float]:
    """Variance of the entries of each codebook, summed over dimensions, of residual codebooks learned in a hurry:
    greedily, on the first :data:`QUICK_ROWS` rows of ``x`` (n, d)."""
    residual, energies = x[:QUICK_ROWS], []
    for m, size in enumerate(sizes):
        book = cluster(residual, size, 4, seed + m)
        codes = AdditiveEncoder(book, [size]).residual(residual)
        residual = residual - decode_additive(codes, book, [size])
        energies.append(float(book.var(0).sum()))
    return energies


def _residuals(x: F32, books: list[F32], sizes: Sequence[int], beam: int, seed: int, processes: Alone) -> F32:
    """What the kept codes of the rows ``x`` (n, d) leave over: all rows, or a sample of at least as many as rows."""
    entries = np.concatenate(books)
    encoder = AdditiveEncoder(entries, sizes)
    parts = []
    first, n = processes.span(len(x))
    share = min(1.0, max(n, WARM_ROWS) / (n * beam))
    rng = np.random.Generator(np.random.PCG64(seed).advance(first * beam))  # a number for each code of earlier rows
    for start, stop in chunks(len(x), x.shape[1] * beam):
        part = x[start:stop]
        codes = encoder.residual_beams(part, beam)
        row, kept = np.nonzero(rng.random(codes.shape[:2]) < share)
        parts.append(part[row] - decode_additive(codes[row, kept], entries, sizes))
    return np.concatenate(parts) if parts else x
