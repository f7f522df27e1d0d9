"""How many of the largest inner products codes find, alone and re-ranked: docs/embeddings.md.

    python benchmarks/inner_products.py PATH principal-product:48 principal-product:47 --spread 0.3

PATH is an HDF5 file of the ann-benchmarks layout with `learn`; KIND:M names a quantizer and its codebooks of 8 bits,
with options as benchmarks/cosine.py takes them. With --spread vectors are given lengths whose logarithms are normal
with that deviation; without they are as they are. Prints recall@1, recall@10 and 10-recall@10.
"""

from time import process_time
from typing import Any

import click
import h5py
import numpy as np
from cosine import made, nearest, recalls

import annvq


def with_lengths(x: Any, spread: float | None, seed: int) -> Any:
    if spread is None:
        return x
    lengths = np.exp(spread * np.random.default_rng(seed).normal(size=(len(x), 1)))
    return (x / np.linalg.norm(x, axis=1, keepdims=True) * lengths).astype(np.float32)


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.argument("kinds", nargs=-1, required=True)
@click.option("--spread", type=float, help="Deviation of the logarithm of lengths; default: lengths as they are.")
@click.option("--threads", default=1, show_default=True)
def main(path: str, kinds: tuple[str, ...], spread: float | None, threads: int) -> None:
    annvq.set_num_threads(threads)
    with h5py.File(path) as file:
        learn, base, queries = (np.asarray(file[name], np.float32) for name in ("learn", "train", "test"))
    learn, base = with_lengths(learn, spread, 1), with_lengths(base, spread, 2)
    true = nearest(-(queries @ base.T))
    for kind in kinds:
        quantizer = made(kind, base.shape[1])
        for refine in ("length", "decoded"):
            index = annvq.RerankIndex(annvq.FlatIndex(quantizer, "ip"), refine).fit(learn).add(base)
            if refine == "length":
                print(f"{kind}, {index.scan_bits_per_vector} bits: {recalls(index.index.search(queries, 10)[1], true)}")
            begun = process_time()
            found = recalls(index.search(queries, 10, shortlist=200)[1], true)
            each = (process_time() - begun) / len(queries) * 1e6
            print(f"{kind}, {index.bits_per_vector} bits, {refine}: {found}, {each:.0f} µs a query", flush=True)


if __name__ == "__main__":
    main()
