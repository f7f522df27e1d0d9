"""Warm starts: k-means for product codebooks, residual k-means for residual and additive ones."""

from dataclasses import dataclass

import numpy as np
import torch

from annvq.arrays import F32
from annvq.quantizers.base import TableQuantizer
from annvq.training.data import TrainingData

WARM_BEAM = 4


@dataclass(frozen=True)
class KMeans:
    """A recipe part: each codebook by k-means on what it has to quantize (through faiss).

    Product codebooks see their sub-vectors; residual and additive ones, codebook after codebook, what the ones
    before leave over under beam search with a small beam.
    """

    iterations: int = 25

    def __call__(self, quantizer: TableQuantizer, data: TrainingData) -> None:
        from annvq.training.rotation import in_own_coordinates

        quantizer, data = in_own_coordinates(quantizer, data)
        if quantizer.needs_norm:
            residual_kmeans(quantizer, data, self.iterations)
        else:
            product_kmeans(quantizer, data, self.iterations)


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


def product_kmeans(quantizer: TableQuantizer, data: TrainingData, iterations: int) -> None:
    """K-means in every sub-space."""
    books = []
    for m, (start, size) in enumerate(zip(quantizer.starts, quantizer.sizes, strict=True)):
        part = data.train[:, start : start + quantizer.width]
        books.append(cluster(part, size, iterations, data.seed(m)))
    quantizer.set_codebooks(books)


def residual_kmeans(quantizer: TableQuantizer, data: TrainingData, iterations: int) -> None:
    """K-means on residuals, codebook after codebook, codes found by beam search over the codebooks so far."""
    from annvq.quantizers.residual import ResidualVQ

    books: list[F32] = []
    residual = data.train
    for m, size in enumerate(quantizer.sizes):
        books.append(cluster(residual, size, iterations, data.seed(m)))
        if m + 1 < quantizer.M:
            bits = quantizer.bits_per_codebook[: m + 1]
            prefix = ResidualVQ(quantizer.dim, m + 1, bits, beam=WARM_BEAM).set_codebooks(books)
            residual = data.train - prefix.decode(prefix.encode(data.train))
    with torch.no_grad():
        quantizer.set_codebooks(books)
