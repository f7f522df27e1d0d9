"""The default index of document stores (`annvq.adapters.growing`): which share of the ten nearest it finds, and where
the others are lost.

    python benchmarks/stores.py [--dataset PATH] [--n 2000 10000 50000] [--learn 10000] [--metric l2 cosine]

Vectors are put into an empty store: the first rows of the data set, and Gaussian clusters of a hundred. It learns from
all of them, or from the first `--learn`, and the others come later. Queries are others. `probed` is the share of the
ten nearest that lie in the lists probed, `listed` the share of those that is on the shortlist, `found` the share of the
ten nearest among the ten results.
"""

import argparse

import numpy as np

import annvq
from annvq.adapters.growing import GrowingIndex

K = 10


def clusters(n: int, nq: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(max(1, n // 100), 64))
    x = centres[rng.integers(0, len(centres), n + nq)] + rng.normal(size=(n + nq, 64))
    return x[:n].astype(np.float32), x[n:].astype(np.float32)


def share(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, true, strict=True)])) / true.shape[1]


def measure(base: np.ndarray, queries: np.ndarray, metric: str, learn: int | None = None) -> str:
    n = len(base)
    exact = GrowingIndex(metric=metric, learn_at=None)
    exact.upsert(base, np.arange(n))
    nearest = exact.search(queries, K)[1]
    store = GrowingIndex(metric=metric, learn_at=None)
    store.upsert(base[:learn], np.arange(n)[:learn])
    store.learn()
    store.upsert(base[len(store) :], np.arange(len(store), n))
    index = store.index
    found = store.search(queries, K)[1]
    scanned = index.index
    every = scanned.find(index._seen(index.compared(queries, "queries")), n, wanted=K)[1]  # all in the lists probed
    listed = every[:, : index.shortlist]
    probed = share(every, nearest)
    return (
        f"probed {probed:.3f} ({scanned.nprobe} of {scanned.nlist}), listed {share(listed, nearest) / probed:.3f} "
        f"({index.shortlist} of {n}), found {share(found, nearest):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="HDF5 file with train and test")
    parser.add_argument("--n", type=int, nargs="+", default=[2_000, 10_000, 50_000], help="vectors")
    parser.add_argument("--learn", type=int, help="vectors to learn from [default: all]")
    parser.add_argument("--metric", nargs="+", default=["l2", "cosine"])
    parser.add_argument("--queries", type=int, default=500)
    arguments = parser.parse_args()
    held = annvq.datasets.load(arguments.dataset) if arguments.dataset else None
    for n in arguments.n:
        made = {"clusters of a hundred, d = 64": clusters(n, arguments.queries)}
        if held is not None:
            made[held.name] = (np.asarray(held.base[:n], np.float32), np.asarray(held.queries, np.float32))
        for name, (base, queries) in made.items():
            for metric in arguments.metric:
                what = measure(base, queries[: arguments.queries], metric, arguments.learn)
                print(f"{name}, {metric}, n = {n:,}: {what}", flush=True)


if __name__ == "__main__":
    main()
