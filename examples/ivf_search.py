"""From vectors to inverted lists that are searched, filtered, updated, re-ranked and saved.

python examples/ivf_search.py                      # built-in vectors, no network
python examples/ivf_search.py vectors.hdf5         # any set of the ann-benchmarks layout
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import annvq


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """10-recall@10: the share of the true ten nearest neighbours that were found."""
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found[:, :10], true[:, :10], strict=True)]))


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="patches", help="a named data set or a file")
    parser.add_argument("--codebooks", type=int, default=7)
    parser.add_argument("--out", type=Path, help="where to save the index")
    options = parser.parse_args()

    data = annvq.datasets.load(options.data)
    n, dim = data.base.shape
    results = {}

    # Codes of what the coarse centroids leave over: 7 bytes and a norm byte, and one table per query for all lists.
    scanned = annvq.IVFIndex(annvq.ResidualVQ(dim, options.codebooks, beam=4), metric=data.metric)
    index = annvq.RerankIndex(scanned, "float16").fit(data.learn)
    index.add(data.base)  # (n, dim); ids are 0 … n−1 unless given
    print(f"{n:,} vectors in {scanned.nlist} lists, {index.scan_bits_per_vector} bits each to scan")

    # How many lists to probe and how many vectors to re-rank were measured in fit; both can be given.
    _, ids = scanned.search(data.queries, 10)  # (nq, 10)
    results["codes"] = recall(ids, data.neighbors)
    _, ids = index.search(data.queries, 10)
    results["re-ranked"] = recall(ids, data.neighbors)
    _, ids = index.search(data.queries, 10, nprobe=scanned.nlist, shortlist=500)
    results["all lists, 500 re-ranked"] = recall(ids, data.neighbors)

    # Filters: ids, a bitmap over ids, or a function of ids.
    _, ids = index.search(data.queries, 10, filter=lambda ids: ids % 10 == 3)
    assert (ids[ids >= 0] % 10 == 3).all()

    # Updates, also while other threads search.
    index.remove(np.arange(100))
    index.upsert(data.base[:100], np.arange(n, n + 100))

    with tempfile.TemporaryDirectory() as folder:
        path = options.out or Path(folder) / "index.annvq"
        index.save(path)
        again = annvq.load_index(path, mmap=True)  # opens in milliseconds, whatever its size
        assert np.array_equal(again.search(data.queries, 10)[1], index.search(data.queries, 10)[1])

    for what, value in results.items():
        print(f"{what:<26} 10-recall@10 {value:.3f}")
    return results


if __name__ == "__main__":
    main()
