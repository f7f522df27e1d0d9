"""From a file of vectors to a searchable index, and its recall.

    python examples/sift_to_index.py sift-128-euclidean      # downloads SIFT1M
    python examples/sift_to_index.py my-vectors.hdf5 --bits 72

Any HDF5 file of the ann-benchmarks layout will do, and so will the built-in set ``patches``.
"""

import argparse

import annvq


def main() -> dict[int, float]:
    """Build and measure; returns recall@R by R."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="patches")
    parser.add_argument("--codebooks", type=int, default=7)
    parser.add_argument("--learn", type=int, default=100_000, help="learn vectors to use")
    parser.add_argument("--out", default="index.annvq")
    args = parser.parse_args()

    data = annvq.datasets.load(args.data)
    quantizer = annvq.AdditiveVQ(data.base.shape[1], M=args.codebooks)
    index = annvq.FlatIndex(quantizer, metric=data.metric)
    index.fit(data.learn[: args.learn], progress=True)
    index.add(data.base)
    index.save(args.out)

    _, ids = annvq.load_index(args.out).search(data.queries, 100)
    recall = {r: float((ids[:, :r] == data.neighbors[:, :1]).any(1).mean()) for r in (1, 10, 100)}
    print(f"{len(index)} vectors of {index.bits_per_vector} bits in {args.out}")
    print("  ".join(f"recall@{r} {value:.3f}" for r, value in recall.items()))
    return recall


if __name__ == "__main__":
    main()
