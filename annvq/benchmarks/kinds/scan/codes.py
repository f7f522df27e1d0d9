"""Codes to scan, in a folder that workers read: real ones, learned and encoded, or random ones.

A folder holds ``queries.npy`` and, for each n asked, ``index-N.annvq``; the codes of the largest n, in ``codes.npy``
(n, M) uint8; ``centroids.npy`` (M, 256, d/M) of product codes, ``entries.npy`` (M, 256, d) and ``norms.npy`` (n,) of
sums of entries; and what libraries add by :meth:`annvq.benchmarks.roles.Scan.prepare`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annvq.benchmarks import rivals
from annvq.benchmarks.roles import Source
from annvq.indexes import FlatIndex
from annvq.kernels import squared_norms
from annvq.quantizers import ProductVQ, ResidualVQ, TableQuantizer
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe
from annvq.types import F32

_CHUNK = 100_000
LEARN = 20_000  # the codebooks need not be good ones: what is timed is their scan


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
    np.save(folder / "codes.npy", codes)
    books = np.stack([book.detach().numpy() for book in quantizer.codebooks])
    if kind == "product":
        np.save(folder / "centroids.npy", books)
    else:
        np.save(folder / "entries.npy", books)
        np.save(folder / "norms.npy", squared_norms(quantizer.decode(codes)))
    for scan in rivals.scans().values():
        scan.prepare(source, kind, M, max(sizes), folder, seed)


def _learn(quantizer: TableQuantizer, source: Source, seed: int) -> None:
    if source.learn is not None:
        quantizer.fit(source.learn, seed=seed, recipe=Recipe((KMeans(5),)))
        return
    rng = np.random.default_rng([seed, 2])
    shrink = 1.0 if isinstance(quantizer, ProductVQ) else quantizer.M**-0.5
    books = rng.standard_normal((quantizer.M, 256, quantizer.width), dtype=np.float32) * np.float32(shrink)
    quantizer.set_codebooks(books)
    quantizer.fit_norms(quantizer.decode(rng.integers(0, 256, (LEARN, quantizer.M), dtype=np.uint8)), seed=seed)


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
