"""Codes to scan, in a folder that workers read: real ones, learned and encoded, or random ones.

A folder holds ``queries.npy``; for each n asked ``index-N.annvq``; and what FAISS' indexes over the same codes take:
``pq8-centroids.npy`` and ``pq8-codes.npy``, for FastScan ``pq4-…`` of as many bytes, for sums of entries
``entries.npy``, ``codes.npy`` and ``norms.npy``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.indexes import FlatIndex
from annvq.kernels import squared_norms
from annvq.quantizers import ProductVQ, ResidualVQ, TableQuantizer
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe
from annvq.types import F32

_CHUNK = 100_000
_LEARN = 20_000  # the codebooks need not be good ones: what is timed is their scan


@dataclass(frozen=True)
class Source:
    """Where codes come from: vectors to learn from and to encode, or, where ``learn`` is None, chance.

    ``base(start, stop)`` gives vectors; random codes have none but those that they decode to.
    """

    name: str
    dim: int
    n: int
    queries: F32
    learn: F32 | None
    base: Callable[[int, int], F32] | None


def random_source(dim: int, n: int, seed: int) -> Source:
    """Codes drawn uniformly; entries and queries from a normal distribution."""
    queries = np.random.default_rng([seed, 1]).standard_normal((200, dim), dtype=np.float32)
    return Source("random", dim, n, queries, None, None)


def make(source: Source, kind: str, M: int, sizes: Sequence[int], folder: Path, seed: int) -> None:
    """Fill ``folder`` with M bytes of codes per vector, of ``kind`` ``"product"`` or ``"residual"``.

    Raises:
        ValueError: M does not fit the dimension.
    """
    folder.mkdir(parents=True)
    np.save(folder / "queries.npy", source.queries)
    quantizer: TableQuantizer = ProductVQ(source.dim, M) if kind == "product" else ResidualVQ(source.dim, M, beam=1)
    _learn(quantizer, source, seed)
    codes = _add(quantizer, source, sizes, folder, seed)
    books = np.stack([book.detach().numpy() for book in quantizer.codebooks])
    if kind == "product":
        np.save(folder / "pq8-centroids.npy", books)
        np.save(folder / "pq8-codes.npy", codes)
        _four_bits(source, M, max(sizes), folder, seed)
    else:
        np.save(folder / "entries.npy", books)
        np.save(folder / "codes.npy", codes)
        np.save(folder / "norms.npy", squared_norms(quantizer.decode(codes)))


def _learn(quantizer: TableQuantizer, source: Source, seed: int) -> None:
    if source.learn is not None:
        quantizer.fit(source.learn[:_LEARN], seed=seed, recipe=Recipe((KMeans(5),)))
        return
    rng = np.random.default_rng([seed, 2])
    shrink = 1.0 if isinstance(quantizer, ProductVQ) else quantizer.M**-0.5
    books = rng.standard_normal((quantizer.M, 256, quantizer.width), dtype=np.float32) * np.float32(shrink)
    quantizer.set_codebooks(books)
    quantizer.fit_norms(quantizer.decode(rng.integers(0, 256, (_LEARN, quantizer.M), dtype=np.uint8)), seed=seed)


def _vectors(quantizer: TableQuantizer, source: Source, seed: int, bounds: Sequence[int]) -> Iterator[F32]:
    """Base in chunks that end at each of ``bounds``."""
    for first, last in zip((0, *bounds), bounds, strict=False):
        for start in range(first, last, _CHUNK):
            stop = min(last, start + _CHUNK)
            if source.base is not None:
                yield source.base(start, stop)
            else:
                rng = np.random.default_rng([seed, 3, start])
                yield quantizer.decode(rng.integers(0, 256, (stop - start, quantizer.M), dtype=np.uint8))


def _add(
    quantizer: TableQuantizer, source: Source, sizes: Sequence[int], folder: Path, seed: int
) -> npt.NDArray[np.uint8]:
    """Save a FlatIndex of each of ``sizes``; the codes of the largest."""
    index, codes = FlatIndex(quantizer), []
    for x in _vectors(quantizer, source, seed, sorted(sizes)):
        index.add(x)
        codes.append(quantizer.encode(x))
        if len(index) in sizes:
            index.save(folder / f"index-{len(index)}.annvq")
    return np.concatenate(codes)


def _four_bits(source: Source, M: int, n: int, folder: Path, seed: int) -> None:
    """Product codes of 2M sub-quantizers with 4 bits, by FAISS: what FastScan scans at equal bytes."""
    import faiss

    if source.dim % (2 * M):
        return  # such an index cannot be; its rows say so
    pq = faiss.ProductQuantizer(source.dim, 2 * M, 4)
    if source.learn is not None and source.base is not None:
        pq.train(source.learn[:_LEARN])
        parts: list[Any] = [pq.compute_codes(source.base(s, min(n, s + _CHUNK))) for s in range(0, n, _CHUNK)]
        codes = np.concatenate(parts)
    else:
        rng = np.random.default_rng([seed, 4])
        shape = (2 * M, 16, source.dim // (2 * M))
        faiss.copy_array_to_vector(rng.standard_normal(shape, dtype=np.float32).ravel(), pq.centroids)
        codes = rng.integers(0, 256, (n, M), dtype=np.uint8)
    centroids = faiss.vector_to_array(pq.centroids).reshape(2 * M, 16, -1)
    np.save(folder / "pq4-centroids.npy", centroids)
    np.save(folder / "pq4-codes.npy", codes)
