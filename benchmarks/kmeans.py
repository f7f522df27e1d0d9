"""K-means for the centroids of inverted lists beside FAISS': error and time, on the same rows and threads.

python benchmarks/kmeans.py FILE.hdf5:train --centroids 4096

Prints the mean squared distance to the nearest centroid, wall and processor time. Rounds take turns, with a seed each;
medians.
"""

import argparse
import time
from collections.abc import Callable

import faiss
import numpy as np

import annvq
from annvq.kernels._native import CoarseSearch
from annvq.training.learn.incremental import PASSES, cluster_incrementally


def by_faiss(x: np.ndarray, count: int, seed: int, iterations: int) -> np.ndarray:
    kmeans = faiss.Kmeans(
        x.shape[1], count, niter=iterations, seed=seed, max_points_per_centroid=1 << 30, min_points_per_centroid=1
    )
    kmeans.train(x)
    return np.asarray(kmeans.centroids)


def error(x: np.ndarray, centroids: np.ndarray) -> float:
    own = CoarseSearch(centroids).assign(x, annvq.get_num_threads())
    parts = [
        np.square(x[i : i + 65536].astype(np.float64) - centroids[own[i : i + 65536]]) for i in range(0, len(x), 65536)
    ]
    return sum(float(part.sum()) for part in parts) / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors")
    parser.add_argument("--rows", type=int, help="at most so many, drawn at random")
    parser.add_argument("--centroids", type=int, default=4096)
    parser.add_argument("--iterations", type=int, nargs="+", default=[10, 25], help="of FAISS")
    parser.add_argument("--passes", type=int, nargs="+", default=[5, PASSES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    read = annvq.datasets.load_vectors(options.vectors)
    n = int(read.shape[0])
    wanted = np.random.default_rng(0).permutation(n)[: options.rows or n]
    x = np.ascontiguousarray(np.asarray(read[np.sort(wanted)]), dtype=np.float32)
    annvq.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    ways: dict[str, Callable[[int], np.ndarray]] = {
        f"FAISS, {i} iterations": lambda seed, i=i: by_faiss(x, options.centroids, seed, i) for i in options.iterations
    } | {
        f"annvq, {p} passes": lambda seed, p=p: cluster_incrementally(x, options.centroids, seed, p)
        for p in options.passes
    }
    print(f"{x.shape[0]:,} x {x.shape[1]}, {options.centroids} centroids, {options.threads} threads")
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for seed in range(options.rounds):
        for name, learn in ways.items():
            begun, worked = time.perf_counter(), time.process_time()
            centroids = learn(seed)
            wall, worked = time.perf_counter() - begun, time.process_time() - worked
            rows[name].append((error(x, centroids), wall, worked))
    for name, measured in rows.items():
        mean, wall, worked = np.median(measured, axis=0)
        print(f"{name}: error {mean:,.1f}, {wall:.1f} s, {worked:.1f} s of processor time")


if __name__ == "__main__":
    main()
