"""A FAISS index searched by annvq, a learned rotation handed to FAISS: the same ids on both sides.

python examples/faiss_bridge.py [--base 20000] [--learn 20000]
"""

import argparse

import faiss
import numpy as np

import annvq


def main() -> dict[str, float]:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base", type=int, default=20_000, help="vectors in the index")
    arguments.add_argument("--learn", type=int, default=20_000, help="vectors to learn from")
    options = arguments.parse_args()
    data = annvq.datasets.load("patches")
    base, learn = (np.float32(x) for x in (data.base[: options.base], data.learn[: options.learn]))
    queries = np.float32(data.queries[:100])
    results = {}

    theirs = faiss.index_factory(base.shape[1], "OPQ8,PQ8x6np")
    theirs.train(learn)
    theirs.add(base)
    ours = annvq.from_faiss(theirs)
    results["same from FAISS"] = float((theirs.search(queries, 1)[1] == ours.search(queries, 1)[1]).mean())
    print(f"{type(theirs).__name__} -> {ours.quantizer.kind}: {results['same from FAISS']:.0%} of the nearest agree")

    index = annvq.FlatIndex(annvq.RotatedProductVQ(base.shape[1], M=8, nbits=6)).fit(learn).add(base)
    exported = annvq.to_faiss(index)
    results["same to FAISS"] = float((exported.search(queries, 1)[1] == index.search(queries, 1)[1]).mean())
    print(f"{index.quantizer.kind} -> {type(exported).__name__}: {results['same to FAISS']:.0%} of the nearest agree")

    for name, one in (("FAISS OPQ", ours), ("learned rotation", index)):
        results[name] = float(np.square(base - one.reconstruct(np.arange(len(base)))).sum(1).mean())
        print(f"{name}: mean squared error {results[name]:.0f} at {one.bits_per_vector} bits a vector")
    return results


if __name__ == "__main__":
    main()
