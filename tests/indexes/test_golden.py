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
    distances, ids = annvq.load_index(path, mmap=mmap).search(expected["queries"], 10)
    np.testing.assert_array_equal(ids, expected[f"{path.stem}.ids"])
    np.testing.assert_array_equal(distances, expected[f"{path.stem}.distances"])


def test_there_are_golden_files():
    assert {p.parent.name for p in FILES} == {"v1", "v2", "v3", "v4", "v5"}
    assert len(FILES) >= 45


@pytest.mark.parametrize("name", ["bytes-norm", "lists"])
@pytest.mark.parametrize("version", ["v3", "v4", "v5"])
def test_an_index_goes_on_storing_what_its_bytes_stood_for(version, name):
    index = annvq.load_index(FILES[0].parents[1] / version / f"{name}.annvq")
    byte = index._norm_byte if name == "lists" else index.quantizer.norm_byte
    assert byte.error.share == (0.5 if version == "v5" else 0.0)
    x = np.load(FILES[0].parents[1] / version / "expected.npz")["queries"]
    before = len(index)
    ids = index.add(x).search(x, 5)[1]
    assert len(index) == before + 5
    assert (ids >= 0).all()
