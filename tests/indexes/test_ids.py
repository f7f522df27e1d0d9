"""Ids that annvq gives by itself."""

import numpy as np
import pytest

import annvq


def test_ids_reach_the_largest_by_themselves(small):
    q, x = small("residual")
    index = annvq.FlatIndex(q).add(x[:1], np.array([np.iinfo(np.int64).max - 2]))
    with pytest.raises(ValueError, match="fewer than 3 are left"):
        index.add(x[:3])
    index.add(x[:2])
    assert index.ids[-1] == np.iinfo(np.int64).max
