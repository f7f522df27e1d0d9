"""Whole indexes at equal recall, or at each of their settings: tables of docs/embeddings.md and docs/indexes.md.

    python benchmarks/equal_recall.py embeddings-index PATH --recall 0.95
    python benchmarks/equal_recall.py embeddings-flat PATH --recall 0   # codes alone, all of them
    python benchmarks/equal_recall.py index PATH --every --keep FOLDER  # every setting of every index
    ANNVQ_SIMD=avx2 FAISS_SIMD_LEVEL=AVX2 python benchmarks/equal_recall.py …  # both held to AVX2

Builds the indexes of a suite one after another, and finds for each the fastest of its settings that reaches the recall
with queries that are held out of the learn vectors. Then the queries of PATH are asked, all indexes in turn, several
times over, each until a tenth of a second is spent. Medians of processor time on one thread, so that other processes
hardly count. PATH is a data set, or an HDF5 file of the ann-benchmarks layout with `learn`.
"""

import itertools
from hashlib import blake2b
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import click
import numpy as np

from annvq.benchmarks import load_suite, metrics, rivals
from annvq.benchmarks.vectors import Vectors, load_dataset, prepare
from annvq.datasets import exact_neighbors

K = 10
HELD_OUT = 1000
LEAST_S = 0.1  # of a turn
RECALLS = ("recall@1", "10-recall@10")


def recalls(data: Vectors, found: Any, queries: Any, true: Any) -> dict[str, Any]:
    """Both recalls of ``found`` (nq, K)."""
    return metrics.recalls(metrics.hits(found, data.base, queries, true, data.metric, RECALLS), RECALLS)


def seconds(index: Any, queries: Any, single: bool) -> tuple[float, Any]:
    """Processor time of one pass over the queries, and what it found."""
    parts = np.split(queries, len(queries)) if single else [queries]
    begun = process_time()
    found = [index.search(part, K) for part in parts]
    return process_time() - begun, np.concatenate(found)


def settings_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Every combination of an entry's ``sweep``."""
    sweep = entry["sweep"]
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def fastest(
    index: Any, entry: dict[str, Any], data: Vectors, held: Any, true: Any, least: float, single: bool
) -> dict[str, Any] | None:
    """The setting that reaches ``least`` in the least time, or None."""
    reaching = []
    for settings in settings_of(entry):
        index.configure(settings)
        first, found = seconds(index, held, single)
        if recalls(data, found, held, true)["10-recall@10"] >= least:
            reaching.append((min(first, seconds(index, held, single)[0]), settings))
    return min(reaching, key=lambda one: one[0])[1] if reaching else None


def built(entry: dict[str, Any], learn: Any, data: Vectors, keep: str | None) -> tuple[Any, float | None]:
    """An entry's index, and the seconds that building it took; of one that was kept None."""
    kind: Any = rivals.rival(entry["use"]).index
    said = f"{entry['use']} {sorted(entry['spec'].items())} {data.digest} {len(learn)}"
    path = Path(keep or "") / f"{blake2b(said.encode(), digest_size=8).hexdigest()}.index"
    index, took = kind(), None
    index.set_threads(1)
    if keep is None or not path.exists():
        begun = process_time()
        index.train(learn, data.base.shape[1], entry["spec"], 0)
        index.add(data.base)
        took = process_time() - begun
        if keep is None:
            return index, took
        Path(keep).mkdir(parents=True, exist_ok=True)
        index.save(path)
    index = kind()
    index.open(path, data.base.shape[1])
    return index, took


@click.command()
@click.argument("suite")
@click.argument("path")
@click.option("--recall", "least", multiple=True, type=float, default=(0.95,), show_default=True,
              help="10-recall@10 on the held-out queries; may be repeated.")  # fmt: skip
@click.option("--every", is_flag=True, help="All settings, whatever they find.")
@click.option("--single", is_flag=True, help="One query a call.")
@click.option("--queries", "nq", type=int, help="The first so many of the queries; all of them otherwise.")
@click.option("--keep", help="A folder where indexes are kept for the next run.")
@click.option("--repeats", default=7, show_default=True)
@click.option("--only", multiple=True, help="Systems whose label has this in it; may be repeated.")
def main(
    suite: str, path: str, least: tuple[float, ...], every: bool, single: bool, nq: int | None, keep: str | None,
    repeats: int, only: tuple[str, ...],
) -> None:  # fmt: skip
    data = prepare(load_dataset(path), {} if nq is None else {"queries": nq})
    held, learn = data.learn[:HELD_OUT], data.learn[HELD_OUT:]
    true_held = None if every else exact_neighbors(data.base, held, K, data.metric)[0]
    ready: list[tuple[Any, Any, Any, Any]] = []
    for entry in load_suite(suite).settings["systems"]:
        rival = rivals.rival(entry["use"])
        if only and not any(part in entry["label"] for part in only):
            continue
        if not rival.installed() or rival.index is None:
            print(f"{entry['label']}: {rival.package} is not installed", flush=True)
            continue
        index, took = built(entry, learn, data, keep)
        chosen: list[Any] = settings_of(entry)
        if not every:
            chosen = [fastest(index, entry, data, held, true_held, recall, single) for recall in least]
        told = ["does not reach it" if one is None else one or "no settings" for one in chosen]
        how = "kept" if took is None else f"built in {took:.0f} s"
        print(f"{entry['label']}: {how}, {', '.join(map(str, told))}", flush=True)
        ready += [(entry, index, one, took) for one in chosen if one is not None]
    times: list[list[float]] = [[] for _ in ready]
    found: list[Any] = [None] * len(ready)
    for _ in range(repeats):
        for at, (_, index, settings, _) in enumerate(ready):
            index.configure(settings)
            spent, found[at] = seconds(index, data.queries, single)
            more = int(LEAST_S / spent)  # passes
            spent += sum(seconds(index, data.queries, single)[0] for _ in range(more))
            times[at].append(spent / (1 + more))
    levels = {entry["use"]: rivals.rival(entry["use"]).levels()[0] for entry, *_ in ready}
    print(", ".join(f"{name} at {level}" for name, level in levels.items()))
    print("| index | bytes | build s | setting | recall@1 | 10-recall@10 | queries/s | least | most |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|")
    for (entry, index, settings, took), spent, ids in zip(ready, times, found, strict=True):
        bits = index.bits_per_vector()
        size, build = "" if bits is None else f"{bits / 8:.0f}", "" if took is None else f"{took:.0f}"
        shown = ", ".join(f"{name} {value}" for name, value in settings.items())
        told = [f"{value:.3f}" for value in recalls(data, ids, data.queries, data.neighbors).values()]
        told += [f"{len(data.queries) / each:,.0f}" for each in (median(spent), max(spent), min(spent))]
        print(f"| {entry['label']} | {size} | {build} | {shown} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
