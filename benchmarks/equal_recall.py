"""Whole indexes at equal recall: two tables of docs/embeddings.md.

    python benchmarks/equal_recall.py embeddings-index PATH --recall 0.95
    python benchmarks/equal_recall.py embeddings-flat PATH --recall 0   # codes alone, all of them

Builds the indexes of a suite one after another, and finds for each the fastest of its settings that reaches the recall
with queries that are held out of the learn vectors. Then the queries of PATH are asked, all indexes in turn, several
times over. Medians of processor time on one thread, so that other processes hardly count. PATH is an HDF5 file of the
ann-benchmarks layout with `learn`, searched by cosine.
"""

import itertools
from statistics import median
from time import process_time
from typing import Any

import click
import h5py
import numpy as np

from annvq.arrays import normalized
from annvq.benchmarks import load_suite, rivals

K = 10
HELD_OUT = 1000


def nearest(base: Any, queries: Any) -> Any:
    """Rows of ``base`` with the K largest inner products, (nq, K), without order."""
    return np.concatenate([np.argpartition(-(part @ base.T), K, axis=1)[:, :K] for part in np.array_split(queries, 8)])


def recall(found: Any, true: Any) -> float:
    """10-recall@10."""
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, true, strict=True)]))


def seconds(index: Any, queries: Any) -> tuple[float, Any]:
    """Processor time of one pass over the queries, and what it found."""
    begun = process_time()
    found = index.search(queries, K)
    return process_time() - begun, found


def fastest(index: Any, sweep: dict[str, Any], queries: Any, true: Any, least: float) -> dict[str, Any] | None:
    """The setting that reaches ``least`` in the least time, or None."""
    reaching = []
    for values in itertools.product(*sweep.values()):
        settings = dict(zip(sweep, values, strict=True))
        index.configure(settings)
        first, found = seconds(index, queries)
        if recall(found, true) >= least:
            reaching.append((min(first, seconds(index, queries)[0]), settings))
    return min(reaching, key=lambda one: one[0])[1] if reaching else None


@click.command()
@click.argument("suite")
@click.argument("path", type=click.Path(exists=True))
@click.option("--recall", "least", default=0.95, show_default=True, help="10-recall@10 on the held-out queries.")
@click.option("--repeats", default=7, show_default=True)
@click.option("--only", multiple=True, help="Systems whose label has this in it; may be repeated.")
def main(suite: str, path: str, least: float, repeats: int, only: tuple[str, ...]) -> None:
    with h5py.File(path) as file:
        learn, base, queries = (normalized(np.asarray(file[n], np.float32), n) for n in ("learn", "train", "test"))
    held, learn = learn[:HELD_OUT], learn[HELD_OUT:]
    true_held, true = nearest(base, held), nearest(base, queries)
    ready = []
    for entry in load_suite(suite).settings["systems"]:
        rival = rivals.rival(entry["use"])
        if only and not any(part in entry["label"] for part in only):
            continue
        if not rival.installed() or rival.index is None:
            print(f"{entry['label']}: {rival.package} is not installed", flush=True)
            continue
        begun = process_time()
        index = rival.index()
        index.set_threads(1)
        index.train(learn, base.shape[1], entry["spec"], 0)
        index.add(base)
        built = process_time() - begun
        settings = fastest(index, entry["sweep"], held, true_held, least)
        said = "does not reach it" if settings is None else settings or "no settings"
        print(f"{entry['label']}: built in {built:.0f} s, {said}", flush=True)
        if settings is not None:
            index.configure(settings)
            ready.append((entry, index, settings, built))
    times: list[list[float]] = [[] for _ in ready]
    found: list[Any] = [None] * len(ready)
    for _ in range(repeats):
        for at, (_, index, _, _) in enumerate(ready):
            took, found[at] = seconds(index, queries)
            times[at].append(took)
    print("| index | bytes | build s | setting | 10-recall@10 | queries/s | least | most |")
    print("|---|---:|---:|---|---:|---:|---:|---:|")
    for (entry, index, settings, built), took, ids in zip(ready, times, found, strict=True):
        bits = index.bits_per_vector()
        size = "" if bits is None else f"{bits / 8:.0f}"
        shown = ", ".join(f"{name} {value}" for name, value in settings.items())
        rates = [len(queries) / each for each in (median(took), max(took), min(took))]
        told = " | ".join(f"{rate:,.0f}" for rate in rates)
        print(f"| {entry['label']} | {size} | {built:.0f} | {shown} | {recall(ids, true):.3f} | {told} |")


if __name__ == "__main__":
    main()
