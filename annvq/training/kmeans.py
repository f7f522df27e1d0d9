"""Warm starts: k-means for product codebooks, residual k-means for residual and additive ones."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from annvq.arrays import chunks, positive_int
from annvq.kernels.encode import AdditiveEncoder, decode_additive
from annvq.quantizers.base import TableQuantizer
from annvq.training.data import TrainingData
from annvq.types import F32

WARM_BEAM = 16  # most codes of a vector whose residuals the next codebook is learned from
WARM_ROWS = 1 << 17  # residuals that are enough for a codebook, unless there are more vectors


@dataclass(frozen=True)
class KMeans:
    """A recipe part: each codebook by k-means on what it has to quantize (through faiss).

    Product codebooks see their sub-vectors; residual and additive ones, codebook after codebook, what the ones
    before leave over under beam search.

    Args:
        iterations: of k-means, for each codebook.
        kept: residual and additive codebooks learn from what so many codes of each vector leave over, those that a
            beam search keeps; None: as many as suits most data, up to 16 where codebooks have 256 entries and one where
            they have up to 64. More of them cover long tails. Never more than 131,072 residuals need, or two codes.
        progressive: residual and additive codebooks are learned on ever more principal components, as FAISS does: less
            error where directions are about equal, less recall where they are not.
    """

    iterations: int = 25
    kept: int | None = None
    progressive: bool = False

    def __post_init__(self) -> None:
        positive_int(self.iterations, "iterations")
        if self.kept is not None:
            positive_int(self.kept, "kept")

    def __call__(self, quantizer: TableQuantizer, data: TrainingData) -> None:
        from annvq.training.rotation import in_own_coordinates

        quantizer, data = in_own_coordinates(quantizer, data)
        if quantizer.sums:
            residual_kmeans(quantizer, data, self)
        else:
            product_kmeans(quantizer, data, self.iterations)


@dataclass(frozen=True)
class SubspaceKMeans:
    """A recipe part for additive codebooks: those of a product code, zero outside their sub-space.

    Additive codes contain product codes, so what is learned from here is never worse than a product code, not even on
    data without structure, where beam search and local search find little to hold on to.
    """

    iterations: int = 25

    def __call__(self, quantizer: TableQuantizer, data: TrainingData) -> None:
        bounds = np.linspace(0, quantizer.dim, quantizer.M + 1).astype(int)
        entries = np.zeros((sum(quantizer.sizes), quantizer.dim), np.float32)
        books = np.split(entries, quantizer.offsets[1:-1])
        for m, (start, stop) in enumerate(itertools.pairwise(bounds)):
            if start < stop:  # more codebooks than dimensions leave some at zero
                part = data.train[:, start:stop]
                books[m][:, start:stop] = cluster(part, quantizer.sizes[m], self.iterations, data.seed(m))
        with torch.no_grad():
            quantizer.set_codebooks(books)


def cluster(x: F32, count: int, iterations: int, seed: int) -> F32:
    """``count`` centroids (count, d) of ``x`` (n, d); n ≥ count."""
    import faiss

    rows = np.ascontiguousarray(x)
    kmeans = faiss.Kmeans(
        x.shape[1], count, niter=iterations, seed=seed % (1 << 31), max_points_per_centroid=1 << 30,
        min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(rows)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def cluster_progressively(x: F32, count: int, iterations: int, seed: int) -> F32:
    """``count`` centroids (count, d) of ``x`` (n, d); n ≥ count: k-means on ever more of the principal components, each
    time from the centroids before. In many dimensions it ends nearer to the best centroids than k-means from rows."""
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


def product_kmeans(quantizer: TableQuantizer, data: TrainingData, iterations: int) -> None:
    """K-means in every sub-space."""
    books = []
    for m, (start, size) in enumerate(zip(quantizer.starts, quantizer.sizes, strict=True)):
        part = data.train[:, start : start + quantizer.width]
        books.append(cluster(part, size, iterations, data.seed(m)))
    quantizer.set_codebooks(books)


def residual_kmeans(quantizer: TableQuantizer, data: TrainingData, plan: KMeans) -> None:
    """K-means on residuals, codebook after codebook, of the codes that a beam search over the codebooks so far keeps.

    Vectors count once for each code kept, as in FAISS: encoding will leave the best of many residuals to the next
    codebook, and where vectors are few, the more residuals the less a codebook learns by heart.
    """
    sizes, n = quantizer.sizes, len(data.train)
    # Of small codebooks a wide beam would keep codes that no encoding ever chooses.
    suited = plan.kept or (min(sizes) // 64) ** 2
    beam = max(1, min(suited, WARM_BEAM, max(2, -(-WARM_ROWS // n))))
    learn = cluster_progressively if plan.progressive else cluster
    books: list[F32] = []
    residual = data.train
    for m, size in enumerate(sizes):
        books.append(learn(residual, size, plan.iterations, data.seed(m)))
        if m + 1 < quantizer.M:
            residual = _residuals(data, books, sizes[: m + 1], beam, data.seed(1 << 19, m))
    with torch.no_grad():
        quantizer.set_codebooks(books)


def quick_energies(x: F32, sizes: Sequence[int], seed: int) -> list[float]:
    """Variance of the entries of each codebook, summed over dimensions, of residual codebooks learned in a hurry:
    greedily, on the first 8192 rows of ``x`` (n, d)."""
    residual, energies = x[:8192], []
    for m, size in enumerate(sizes):
        book = cluster(residual, size, 4, seed + m)
        codes = AdditiveEncoder(book, [size]).residual(residual)
        residual = residual - decode_additive(codes, book, [size])
        energies.append(float(book.var(0).sum()))
    return energies


def _residuals(data: TrainingData, books: list[F32], sizes: Sequence[int], beam: int, seed: int) -> F32:
    """What the kept codes of the training rows leave over: all rows, or a sample of at least as many as rows."""
    entries = np.concatenate(books)
    encoder = AdditiveEncoder(entries, sizes)
    parts = []
    n = len(data.train)
    share = min(1.0, max(n, WARM_ROWS) / (n * beam))
    rng = np.random.default_rng(seed)
    for start, stop in chunks(n, data.train.shape[1] * beam):
        x = data.train[start:stop]
        codes = encoder.residual_beams(x, beam)
        row, kept = np.nonzero(rng.random(codes.shape[:2]) < share)
        parts.append(x[row] - decode_additive(codes[row, kept], entries, sizes))
    return np.concatenate(parts)
