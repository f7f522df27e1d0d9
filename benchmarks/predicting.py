"""Recall that `annvq choose` predicts from samples, beside what is measured among all vectors.

The table of docs/choose.md:

    python benchmarks/predicting.py PATH product:64 residual:64 --sizes 10000,30000 [--n 1000000]

PATH is whatever holds vectors; queries are held out of them, as `choose` does, and learn vectors too. KIND:BITS names a
code, KIND:BITS:decoded one that is re-ranked by what its codes stand for. Samples are parts of the base vectors; codes
are the same for all.
"""

from typing import Any

import click
import numpy as np

from annvq.arrays import as_float32, normalized
from annvq.benchmarks import environment, metrics
from annvq.benchmarks.rivals.annvq import FlatCode, make
from annvq.benchmarks.roles import Budget
from annvq.benchmarks.vectors import load_dataset
from annvq.choosing.predicting import curve_of, depth_of, names_of, predicted
from annvq.datasets import exact_neighbors
from annvq.indexes import RerankIndex

PART = 50_000


def split(path: str, n: int, nq: int, n_learn: int) -> tuple[Any, Any, Any, str]:
    """Base, learn and query vectors, disjoint rows of a data set, and its metric."""
    data = load_dataset(path)
    x = as_float32(data.base)
    if data.metric == "cosine":
        x = normalized(x, "x")
    queries, learn, rest = np.split(np.random.default_rng(0).permutation(len(x)), [nq, nq + n_learn])
    return x[rest[:n]], x[learn], x[queries], data.metric


def report(name: str, code: FlatCode, sizes: list[int], base: Any, queries: Any, true: Any, k: int) -> None:
    """One line for each size and recall: predicted, measured, and their difference."""
    index = code.index
    names, depth = names_of(k), depth_of(k)
    hits = metrics.hits(code.search(queries, 100), base, queries, true, index.metric, names)
    recalls = metrics.recalls(hits, names)
    more = {"shortlist": 4 * depth} if isinstance(index, RerankIndex) else {}
    for m in sizes:
        neighbors, distances = exact_neighbors(base[:m], queries, depth, metric=index.metric)
        found = index.search(queries, depth, filter=np.arange(m), **more)[1]
        curve = curve_of(found, neighbors, distances, m, k=k)
        for which, figure in predicted(curve, len(base), dict.fromkeys(names, 1.0)).items():
            own, seen = curve.found[which][0].mean(), recalls[which]
            held = "within" if figure.low <= seen <= figure.high else "outside"
            print(
                f"{name} | {which} | {m:,}: {own:.3f} | predicted {figure.value:.3f} ± {figure.half:.3f} "
                f"| {len(base):,}: {seen:.3f} | {figure.value - seen:+.3f} | {held}",
                flush=True,
            )


@click.command()
@click.argument("path")
@click.argument("codes", nargs=-1, required=True)
@click.option("--sizes", default="10000,30000", show_default=True, help="Of samples.")
@click.option("--n", default=1_000_000, show_default=True, help="Base vectors at most.")
@click.option("--queries", "nq", default=500, show_default=True)
@click.option("--learn", default=20_000, show_default=True)
@click.option("--effort", default=0.5, show_default=True, help="Share of the usual iterations of training.")
@click.option("--k", default=10, show_default=True, help="Of the recalls.")
@click.option("--threads", default=1, show_default=True)
def main(
    path: str, codes: tuple[str, ...], sizes: str, n: int, nq: int, learn: int, effort: float, k: int, threads: int
) -> None:
    with environment.pinned_threads(threads):
        base, learned, queries, metric = split(path, n, nq, learn)
        true = exact_neighbors(base, queries, 100, metric=metric)[0]
        for name in codes:
            kind, bits, *how = name.split(":")
            options = {"effort": effort, **dict.fromkeys(how, True)}
            code = make(kind, Budget(base.shape[1], int(bits), metric), options, 0)
            code.fit(learned)
            for start in range(0, len(base), PART):
                code.add(base[start : start + PART])
            report(name, code, [int(size) for size in sizes.split(",")], base, queries, true, k)


if __name__ == "__main__":
    main()
