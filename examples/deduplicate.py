"""Near-duplicates of a collection: one vector of each group that lies within a radius stays.

python examples/deduplicate.py
"""

import argparse

import numpy as np

import annvq


def keepers(lims: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Which of n vectors stay, (n,) bool: those that are not near to an earlier one that stays.

    Args:
        lims, ids: what lies near each vector, as ``search_within`` gives it; ids are 0 … n−1.
    """
    keep = np.ones(len(lims) - 1, bool)
    for i in range(len(keep)):
        near = ids[lims[i] : lims[i + 1]]
        if keep[i]:
            keep[near[near > i]] = False
    return keep


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--copies", type=int, default=5_000, help="vectors that come again, slightly changed")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    n, dim = options.vectors, 64
    texts = rng.normal(size=(n, dim)).astype(np.float32)
    copies = texts[rng.permutation(n)[: options.copies]] + rng.normal(size=(options.copies, dim), scale=0.02)
    vectors = np.concatenate([texts, copies.astype(np.float32)])

    # Codes find candidates, far more than a group has, and the vectors decide.
    scanned = annvq.FlatIndex(annvq.ProductVQ(dim, 16), metric="cosine")
    index = annvq.RerankIndex(scanned, "float16").fit(vectors).add(vectors)
    lims, _, ids = index.search_within(vectors, 0.05, shortlist=50)  # 1 − cos of at most 0.05
    keep = keepers(lims, ids)

    copied = ~keep[n:]
    results = {"copies found": float(copied.mean()), "others dropped": float((~keep[:n]).mean())}
    print(f"{keep.sum():,} of {len(vectors):,} vectors stay")
    for what, share in results.items():
        print(f"{what:<16}{share:.1%}")
    return results


if __name__ == "__main__":
    main()
