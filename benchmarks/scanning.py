"""Codes of 4 and 8 bits beside FastScan's of as many bytes: figures of docs/kernels.md.

    python benchmarks/scanning.py PATH 96x4 48x8 --k 10 --k 100 --queries 1000
    ANNVQ_SIMD=avx2 FAISS_SIMD_LEVEL=AVX2 python benchmarks/scanning.py PATH 96x4 48x8   # both held to AVX2

PATH is an HDF5 file of the ann-benchmarks layout with `learn`; MxB names codes of M codebooks of B bits: principal
product codes under cosine, with --l2 product codes under squared distance. Both sides are asked in turn, in batches and
one query a call, on one thread. Processor time, so that other processes count little: µs a query, median and least. The
index is saved and loaded first, so that nothing is asked of PyTorch.
"""

from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import click
import faiss
import h5py
import numpy as np

import annvq
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe

LEARN = 20_000  # the codebooks need not be good ones: what is timed is their scan
CHUNK = 100_000


def rows(data: Any, start: int = 0, stop: int | None = None) -> Any:
    return np.asarray(data[start:stop], np.float32)


def built(file: Any, M: int, bits: int, l2: bool, n: int | None) -> tuple[Any, Any]:
    """annvq's index and FastScan's of as many bytes, of the first n vectors."""
    learn, dim = rows(file["learn"], 0, LEARN), file["train"].shape[1]
    quantizer: Any = annvq.ProductVQ(dim, M, nbits=bits) if l2 else annvq.PrincipalProductVQ(dim, M, nbits=bits)
    own = annvq.FlatIndex(quantizer, "l2" if l2 else "cosine").fit(learn, recipe=Recipe((KMeans(5),)))
    other = faiss.IndexPQFastScan(dim, M * bits // 4, 4)
    other.train(learn[:8000])
    n = min(n or len(file["train"]), len(file["train"]))
    for start in range(0, n, CHUNK):
        base = rows(file["train"], start, min(start + CHUNK, n))
        own.add(base)
        other.add(base)
    with TemporaryDirectory() as folder:
        own.save(f"{folder}/index.annvq")
        return annvq.load_index(f"{folder}/index.annvq"), other


def seconds(index: Any, calls: list[Any], k: int) -> float:
    """Processor time of a query, of the queries (nq, d) of each call."""
    begun = process_time()
    for queries in calls:
        index.search(queries, k)
    return (process_time() - begun) / sum(map(len, calls))


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.argument("codes", nargs=-1, required=True)
@click.option("--l2", is_flag=True)
@click.option("--base", "n", type=int, help="Vectors searched; default: all.")
@click.option("--k", "ks", multiple=True, type=int, default=(10, 100), show_default=True)
@click.option("--queries", "count", default=200, show_default=True)
@click.option("--repeats", default=7, show_default=True)
def main(
    path: str, codes: tuple[str, ...], l2: bool, n: int | None, ks: tuple[int, ...], count: int, repeats: int
) -> None:
    annvq.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    with h5py.File(path) as file:
        queries = rows(file["test"], 0, count)
        for name in codes:
            M, bits = map(int, name.split("x"))
            sides = built(file, M, bits, l2, n)
            for k in ks:
                for single in (False, True):
                    some = max(1, count // 5)
                    calls = np.split(queries[:some], some) if single else [queries]
                    for side in sides:
                        seconds(side, calls[:20], k)
                    own, other = np.array([[seconds(s, calls, k) for s in sides] for _ in range(repeats)]).T
                    figures = " | ".join(f"{median(x) * 1e6:.1f} ({min(x) * 1e6:.1f})" for x in (own, other))
                    how = "one a call" if single else "batch"
                    print(f"{name}, k={k}, {how}: {figures} | {median(other / own):.2f} times", flush=True)


if __name__ == "__main__":
    main()
