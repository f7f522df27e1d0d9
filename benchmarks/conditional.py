"""Conditional codes on rows of `learn` that are not learned from: tables of docs/conditional.md.

    python benchmarks/conditional.py PATH            # shortlists, and searches of ever more codes
    python benchmarks/conditional.py PATH --behind   # the same additive codes, decoded by a network
    python benchmarks/conditional.py PATH --lists 512   # in inverted lists, beside additive codes of as many bits

PATH is an HDF5 file of the ann-benchmarks layout with `learn`, whose last rows are the queries. Times are processor
times, of one thread unless --threads says otherwise. --saved FOLDER keeps what is learned there, and goes on from it.
"""

from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import click
import h5py
import numpy as np

import annvq
from annvq.datasets.groundtruth import exact_neighbors


def recalls(ids: Any, true: Any) -> str:
    """recall@1, recall@10 and 10-recall@10 of ids (nq, 10)."""
    found = [(row[0] == t[0], t[0] in row, len(np.intersect1d(row, t)) / 10) for row, t in zip(ids, true, strict=True)]
    return " / ".join(f"{share:.3f}" for share in np.mean(np.asarray(found, float), axis=0))


def timed(what: Any, count: int) -> tuple[Any, float]:
    """What is returned, and µs for each of ``count``."""
    begun = process_time()
    found = what()
    return found, (process_time() - begun) / count * 1e6


def report(name: str, quantizer: Any, base: Any, queries: Any, true: Any, lengths: tuple[int, ...]) -> Any:
    """Print error, recalls and times; returns the codes of ``base``."""
    codes, each = timed(lambda: quantizer.encode(base), len(base))
    error = np.square(base - quantizer.decode(codes), dtype=np.float64).sum(1).mean()
    print(f"{name}: error {error:.0f}, {each:.0f} µs to encode", flush=True)
    index = annvq.RerankIndex(annvq.FlatIndex(quantizer), "decoded").add(base)
    for length in lengths:
        found, each = timed(lambda length=length: index.search(queries, 10, shortlist=length)[1], len(queries))
        print(f"{name}, {length} decoded: {recalls(found, true)}, {each:.0f} µs", flush=True)
    return codes


def fitted(name: str, make: Callable[[], Any], learn: Any, saved: str | None) -> Any:
    """What ``make`` gives, learned, or as it was saved under that name."""
    path = None if saved is None else Path(saved) / f"{name}.annvq"
    if path is not None and path.exists():
        return annvq.load_quantizer(path).eval()
    q, took = timed(lambda: make().fit(learn), 1)
    print(f"{name}: learned in {took / 1e6:.0f} s", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        q.save(path)
    return q.eval()


def in_lists(codes: dict[str, Any], count: int, learn: Any, base: Any, queries: Any, true: Any) -> None:
    """Print recalls and times of the same codes in a flat index and in ``count`` lists, by lists probed."""
    for name, q in codes.items():
        flat = annvq.FlatIndex(q)
        lists = annvq.IVFIndex(q, count)
        for where, index, probes in (("flat", flat, [{}]), ("lists", lists, [{"nprobe": n} for n in (4, 8, 16, 32)])):
            whole = annvq.RerankIndex(index, "decoded", shortlist=200).fit(learn).add(base)
            for probed in probes:
                told = f"{name}, {where} {probed.get('nprobe', '')}".rstrip()
                for what, search in (
                    ("scan alone", lambda whole=whole, probed=probed: whole.index.search(queries, 10, **probed)[1]),
                    ("200 decoded", lambda whole=whole, probed=probed: whole.search(queries, 10, **probed)[1]),
                ):
                    runs = [timed(search, len(queries)) for _ in range(3)]
                    each = np.median([run[1] for run in runs])
                    print(f"{told}, {what}: {recalls(runs[0][0], true)}, {each:.0f} µs a query", flush=True)


def searches(quantizer: Any, codes: Any, queries: Any) -> None:
    """Print times of searches of ``codes`` (n, M) and others like them."""
    rng = np.random.default_rng(0)
    for n in (200_000, 1_000_000):
        many = codes[np.arange(n) % len(codes)].copy()
        many[np.arange(n), rng.integers(0, quantizer.M, n)] = rng.integers(0, 256, n)  # few are the same
        index = annvq.RerankIndex(annvq.FlatIndex(quantizer), "decoded")
        for start in range(0, n, 100_000):
            index.add(quantizer.decode(many[start : start + 100_000]))
        for what, search in (
            ("the scan alone", lambda index=index: index.index.search(queries, 10)),
            *(
                (f"{length} decoded", lambda index=index, length=length: index.search(queries, 10, shortlist=length))
                for length in (100, 200, 300, 500)
            ),
        ):
            search()
            each = np.median([timed(search, len(queries))[1] for _ in range(3)])
            print(f"{n} codes, {what}: {each:.0f} µs a query", flush=True)


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option("--behind", is_flag=True, help="Additive codes, and the same with a network behind them.")
@click.option("--lists", type=int, help="Inverted lists to search in, beside additive codes.")
@click.option("--saved", type=click.Path(file_okay=False), help="Folder to keep what is learned in.")
@click.option("-M", "--codebooks", default=8, show_default=True)
@click.option("--hidden", type=int, help="Hidden units of the network.")
@click.option("--learn", "learned", default=95_000, show_default=True, help="Learn rows.")
@click.option("--base", "count", default=100_000, show_default=True, help="Rows of the base.")
@click.option("--threads", default=1, show_default=True)
def main(
    path: str,
    behind: bool,
    lists: int | None,
    saved: str | None,
    codebooks: int,
    hidden: int | None,
    learned: int,
    count: int,
    threads: int,
) -> None:
    annvq.set_num_threads(threads)
    with h5py.File(path) as file:
        learn, base = np.asarray(file["learn"], np.float32), np.asarray(file["train"][:count], np.float32)
    learn, queries = learn[:learned], learn[learned:][-1500:]
    true = exact_neighbors(base, queries, 10)[0]
    dim = learn.shape[1]
    if behind or lists:
        additive = fitted("additive", lambda: annvq.AdditiveVQ(dim, codebooks, norm_free=True), learn, saved)
    if behind:
        report("additive", additive, base, queries, true, (200,))
        q, took = timed(lambda: annvq.ConditionalVQ.behind(additive, learn, hidden=hidden), 1)
        print(f"network learned in {took / 1e6:.0f} s", flush=True)
        report("the same codes, a network behind them", q.eval(), base, queries, true, (50, 100, 200, 500))
        return
    q = fitted("conditional", lambda: annvq.ConditionalVQ(dim, codebooks, norm_free=True, hidden=hidden), learn, saved)
    if lists:
        in_lists({"additive": additive, "conditional": q}, lists, learn, base, queries, true)
        return
    codes = report("conditional", q, base, queries, true, (50, 100, 200, 500, 1000))
    searches(q, codes, queries[:500])


if __name__ == "__main__":
    main()
