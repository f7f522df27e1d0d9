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
    assert {p.parent.name for p in FILES} == {"v1", "v2", "v3", "v4"}
    assert len(FILES) >= 35
