"""Writes golden files of the current format version; run once per version, then never again for it.

python tests/golden/make.py tests/golden/v2
"""

import sys
from pathlib import Path

import numpy as np

import annvq
from annvq.training import KMeans, Recipe


def main(folder: Path) -> None:
    """One index file of each quantizer, with what a search in it gives."""
    rng = np.random.default_rng(0)
    x = rng.integers(-20, 20, size=(60, 8)).astype(np.float32)
    expected = {"queries": x[:5]}
    for name in ("product", "residual", "additive"):
        q = annvq.make(name, dim=8, M=2, nbits=(3, 4)).fit(x, recipe=Recipe((KMeans(5),)))
        index = annvq.FlatIndex(q).add(x, np.arange(60) * 7)
        index.save(folder / f"{name}.annvq")
        expected[f"{name}.distances"], expected[f"{name}.ids"] = index.search(x[:5], 10)
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
