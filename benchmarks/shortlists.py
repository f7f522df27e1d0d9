"""Shortlists by the default rule, for many neighbours: how long they are, how long they should be, what they hold.

    python benchmarks/shortlists.py [--n 50000] [--target 0.95]

Vectors in clusters of a hundred, Gaussian ones, and such as lie on a bent surface of six dimensions; product codes of
8 codebooks of 4 bits, scanned flat and in lists, re-ranked by the vectors. Queries are others than those that lengths
are measured on.
"""

import argparse

import numpy as np

import annvq

KS = (10, 20, 30, 100, 300, 1000)


def data(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n // 100, 32)) * 3
    low = rng.normal(size=(n, 6))
    made = {
        "clusters of 100, d = 32": centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, 32)),
        "Gaussian, d = 16": rng.normal(size=(n, 16)),
        "6 dimensions bent in 64": np.tanh(low @ rng.normal(size=(6, 64))) + 0.01 * rng.normal(size=(n, 64)),
    }
    return {name: x.astype(np.float32) for name, x in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000, help="vectors")
    parser.add_argument("--target", type=float, default=0.95, help="recall target")
    arguments = parser.parse_args()
    n, asked = arguments.n, 200
    for name, x in data(n + asked).items():
        base, queries = x[:n], x[n:]
        squares = (queries**2).sum(1)[:, None] - 2 * queries @ base.T + (base**2).sum(1)
        nearest = np.argsort(squares, axis=1)[:, : max(KS)]
        code = annvq.ProductVQ(x.shape[1], 8, 4)
        for scanned in (annvq.FlatIndex(code), annvq.IVFIndex(code)):
            index = annvq.RerankIndex(scanned, "float32", recall_target=arguments.target).fit(base).add(base)
            order = index.index.search(queries, n, **({} if scanned.kind == "flat" else {"nprobe": scanned.nlist}))[1]
            ranks = np.argsort(order, axis=1)  # ids are 0 … n − 1
            for k in KS:
                deep = np.sort(np.take_along_axis(ranks, nearest[:, :k], 1).ravel())
                found = index.search(queries, k)[1]
                share = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, nearest[:, :k], strict=True)]) / k
                length = index._shortlist.length(k, n, index._ranks)
                needed = int(deep[int(np.ceil(arguments.target * len(deep))) - 1]) + 1
                print(f"{name}, {scanned.kind}, k = {k}: {length} long, {needed} of all needed, recall {share:.3f}")


if __name__ == "__main__":
    main()
