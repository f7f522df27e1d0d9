"""Writes golden files of the current format version; run once per version, then never again for it.

python tests/golden/make.py tests/golden/v7
"""

import sys
from pathlib import Path

import numpy as np

import annvq
from annvq.training import KMeans, Recipe


def main(folder: Path) -> None:
    """Index files of every layout, with what a search in each gives."""
    rng = np.random.default_rng(0)
    x = rng.integers(-20, 20, size=(60, 8)).astype(np.float32)
    many = rng.integers(-20, 20, size=(700, 8)).astype(np.float32)
    learn = Recipe((KMeans(5),))

    def fitted(kind, nbits):
        return annvq.make(kind, dim=8, M=2, nbits=nbits).fit(many if nbits == 8 else x, recipe=learn)

    indexes = {name: annvq.FlatIndex(fitted(name, (3, 4))).add(x, np.arange(60) * 7) for name in KINDS}
    indexes["nibbles"] = annvq.FlatIndex(fitted("additive", 4)).add(many, rng.permutation(2000)[:700])
    indexes["bytes"] = annvq.FlatIndex(fitted("product", 8)).add(many)
    indexes["bytes-norm"] = annvq.FlatIndex(fitted("residual", 8)).add(many, rng.permutation(2000)[:700])
    indexes["float-norm"] = annvq.FlatIndex(fitted("residual", 5), norm="float32").add(x)
    wide = annvq.make("product", dim=8, M=2, nbits=(9, 2)).fit(many, recipe=learn)
    indexes["wide"] = annvq.FlatIndex(wide, metric="cosine").add(many)
    lists = annvq.IVFIndex(annvq.make("residual", dim=8, M=2, nbits=4), nlist=4, nprobe=2)
    indexes["lists"] = lists.fit(many, recipe=learn).add(many)
    # Norms so uneven that codes are chosen with their byte in mind.
    uneven = many * (1 + np.arange(700, dtype=np.float32)[:, None] % 90)
    lists = annvq.IVFIndex(annvq.make("residual", dim=8, M=2, nbits=4), nlist=4, nprobe=2)
    indexes["lists-uneven"] = lists.fit(uneven, recipe=learn).add(uneven)
    lists = annvq.IVFIndex(annvq.make("product", dim=8, M=2, nbits=8), nlist=3, nprobe=2, metric="ip")
    again = annvq.RerankIndex(lists, "float16", shortlist=20)
    indexes["reranked"] = again.fit(many, recipe=learn).add(many[:100], rng.permutation(2000)[:100])
    # Under cosine codes are chosen to have one length.
    groups = annvq.make("product-additive", dim=8, M=4, nbits=4, groups=2).fit(many, recipe=learn)
    indexes["groups"] = annvq.FlatIndex(groups, metric="cosine").fit(many).add(many)
    principal = annvq.make("principal-product", dim=8, M=2, nbits=4).fit(many)
    indexes["principal"] = annvq.FlatIndex(principal).add(many)
    # Or, where ‖x̂‖² is a sum of table entries, are scored with a share of what coding took away.
    principal = annvq.make("principal-product", dim=8, M=2, nbits=4).fit(many)
    indexes["share"] = annvq.FlatIndex(principal, metric="cosine").fit(many).add(many)
    lists = annvq.IVFIndex(annvq.make("residual", dim=8, M=2, nbits=4), nlist=4, nprobe=2, metric="cosine")
    indexes["lists-cosine"] = lists.fit(many, recipe=learn).add(many)
    # Sub-spaces of two, three and three dimensions.
    indexes["uneven"] = annvq.FlatIndex(annvq.make("product", dim=8, M=3, nbits=4).fit(many, recipe=learn)).add(many)
    lists = annvq.IVFIndex(annvq.make("residual", dim=8, M=2, nbits=4), nlist=4, nprobe=2).fit(many, recipe=learn)
    indexes["keyed"] = annvq.KeyedIndex(lists).add(many, [f"ключ {i}" for i in range(700)])
    indexes["keyed"].remove([f"ключ {i}" for i in range(100, 110)])

    expected = {"queries": x[:5]}
    for name, index in indexes.items():
        index.save(folder / f"{name}.annvq")
        expected[f"{name}.distances"], found = index.search(x[:5], 10)
        expected[f"{name}.ids"] = found.astype(str) if name == "keyed" else found
    np.savez(folder / "expected.npz", **expected)


KINDS = ("product", "residual", "additive")

if __name__ == "__main__":
    main(Path(sys.argv[1]))
