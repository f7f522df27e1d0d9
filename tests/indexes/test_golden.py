"""Files of every format version load for ever and give what they gave."""

from pathlib import Path

import numpy as np
import pytest

import annvq

FILES = sorted((Path(__file__).parents[1] / "golden").glob("v*/*.annvq"))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_golden(path, mmap):
    expected = np.load(path.parent / "expected.npz")
    index = annvq.load_index(path, mmap=mmap)
    distances, ids = index.search(expected["queries"], 10)
    np.testing.assert_array_equal(ids, expected[f"{path.stem}.ids"])
    given = expected[f"{path.stem}.distances"]  # squared ones below zero were returned as they were summed
    np.testing.assert_array_equal(distances, np.maximum(given, 0) if index.metric == "l2" else given)


def test_there_are_golden_files():
    assert {p.parent.name for p in FILES} == {"v1", "v2", "v3", "v4", "v5", "v6", "v7"}
    assert len(FILES) >= 60


@pytest.mark.parametrize("name", ["bytes-norm", "lists"])
@pytest.mark.parametrize("version", ["v3", "v4", "v5", "v6", "v7"])
def test_an_index_goes_on_storing_what_its_bytes_stood_for(version, name):
    index = annvq.load_index(FILES[0].parents[1] / version / f"{name}.annvq")
    byte = index.coding.own_term if name == "lists" else index.quantizer.norm_term
    assert byte.error_share == (0.5 if version >= "v5" else 0.0)
    x = np.load(FILES[0].parents[1] / version / "expected.npz")["queries"] * np.float32(1.5)
    ids = np.arange(5000, 5005)
    codes, bytes, *_ = index.add(x, ids)._store.rows(ids)
    lists, targets = index.coding.targets(x) if name == "lists" else (None, x)
    decoded = index.quantizer.decode(codes).astype(np.float64)
    if name == "lists":
        held = (decoded * (decoded + 2 * index.centroids[lists])).sum(1)
    else:
        held = np.square(decoded - index.quantizer.origin).sum(1)
    held += (0.5 if version >= "v5" else 0.0) * np.square(targets - decoded).sum(1)
    levels = np.sort(byte.levels)
    clipped = np.clip(held - byte.explained(codes), levels[0], levels[-1])
    np.testing.assert_allclose(byte.levels[bytes], clipped, atol=np.diff(levels).max() / 2 + 0.01)
