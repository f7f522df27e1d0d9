"""What a code finds under cosine, scored in several ways: the tables of docs/encoding.md and docs/embeddings.md.

    python benchmarks/cosine.py PATH additive:8 principal-product:48

PATH is an HDF5 file of the ann-benchmarks layout with `learn`; KIND:M names a quantizer and its codebooks of 8 bits,
KIND:M:OPTION=VALUE with a whole number for one of its options (residual:16:beam=16, principal-product:96:nbits=4).
KIND:M+KIND:M is a code that is scanned and another of what it leaves over, by which a shortlist is re-ranked.
"""

from time import perf_counter
from typing import Any

import click
import h5py
import numpy as np

import annvq
from annvq.arrays import normalized


def recalls(ids: Any, true: Any) -> str:
    """recall@1, recall@10 and 10-recall@10 of ids (nq, 10)."""
    found = [(row[0] == t[0], t[0] in row, len(np.intersect1d(row, t)) / 10) for row, t in zip(ids, true, strict=True)]
    return " / ".join(f"{share:.3f}" for share in np.mean(np.asarray(found, float), axis=0))


def nearest(scores: Any) -> Any:
    """Columns of the ten lowest scores, (nq, 10)."""
    few = np.argpartition(scores, 10, axis=1)[:, :10]
    return np.take_along_axis(few, np.argsort(np.take_along_axis(scores, few, 1), axis=1), 1)


def made(kind: str, dim: int) -> Any:
    """The quantizer of a KIND:M:OPTION=VALUE."""
    name, M, *rest = kind.split(":")
    options = {key: int(value) for key, value in (option.split("=") for option in rest)}
    return annvq.make(name, dim=dim, M=int(M), **options)


def shortlists(kind: str, index: Any, queries: Any, true: Any, lengths: tuple[int, ...]) -> None:
    for length in lengths:
        begun = perf_counter()
        found = index.search(queries, 10, shortlist=length)[1]
        each = (perf_counter() - begun) / len(queries) * 1e6
        print(f"{kind}, {length} decoded: {recalls(found, true)}, {each:.0f} µs a query", flush=True)


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.argument("kinds", nargs=-1, required=True)
@click.option("--threads", default=1, show_default=True)
def main(path: str, kinds: tuple[str, ...], threads: int) -> None:
    annvq.set_num_threads(threads)
    with h5py.File(path) as file:
        learn, base, queries = (
            normalized(np.asarray(file[name], np.float32), name) for name in ("learn", "train", "test")
        )
        true = np.asarray(file["neighbors"])[:, :10]
    for kind in kinds:
        scanned, _, rest = kind.partition("+")
        quantizer = made(scanned, base.shape[1])
        if rest:
            flat = annvq.FlatIndex(quantizer, metric="cosine")
            both = annvq.RerankIndex(flat, made(rest, base.shape[1]), refines="rest").fit(learn).add(base)
            shortlists(kind, both, queries, true, (100, 200, 500))
            continue
        index = annvq.FlatIndex(quantizer, metric="cosine").fit(learn).add(base)
        share = index.coding.share
        way = "one length" if share is None else f"scanned, a share of {share:.2f}"
        print(f"{kind}, {way}: {recalls(index.search(queries, 10)[1], true)}", flush=True)
        if share is not None:
            of_length = annvq.FlatIndex(quantizer, metric="cosine").add(base)
            print(f"{kind}, one length: {recalls(of_length.search(queries, 10)[1], true)}", flush=True)
        finer = annvq.RerankIndex(annvq.FlatIndex(quantizer, metric="cosine"), "decoded").fit(learn).add(base)
        shortlists(kind, finer, queries, true, (50, 100, 200))
        xhat = quantizer.decode(quantizer.encode(base))
        squares, errors = np.square(xhat).sum(1), np.square(base - xhat).sum(1)
        products = queries @ xhat.T
        for what, scores in (
            ("⟨q, x̂⟩", -products),
            ("‖q − x̂‖²", squares - 2 * products),
            ("‖q − x̂‖² + half of the error", squares + errors / 2 - 2 * products),
            ("⟨q, x̂⟩ / ‖x̂‖", -products / np.sqrt(squares)),
        ):
            print(f"{kind}, lengths as they come, {what}: {recalls(nearest(scores), true)}", flush=True)


if __name__ == "__main__":
    main()
