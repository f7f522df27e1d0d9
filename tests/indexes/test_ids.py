"""Ids that annvq gives by itself."""

import numpy as np
import pytest

import annvq


@pytest.mark.parametrize("kind", ["flat", "ivf", "rerank"])
def test_what_is_wrong_with_ids_is_said(small, kind):
    q, x = small("product")
    make = {
        "flat": lambda: annvq.FlatIndex(q),
        "ivf": lambda: annvq.IVFIndex(q, nlist=2, residual=False).set_centroids(x[:2]),
        "rerank": lambda: annvq.RerankIndex(annvq.FlatIndex(q), "float32"),
    }[kind]
    index = make().add(x[:10])
    for change in (index.upsert, index.add):
        with pytest.raises(ValueError, match=r"^ids must differ from one another; repeated: \[77\]$"):
            change(x[:3], [77, 5 if change == index.upsert else 78, 77])
    with pytest.raises(ValueError, match=r"^ids must be new and differ from one another; repeated: \[5, 77\]$"):
        index.add(x[:3], [77, 5, 77])
    assert len(index) == 10


def test_ids_reach_the_largest_by_themselves(small):
    q, x = small("residual")
    index = annvq.FlatIndex(q).add(x[:1], np.array([np.iinfo(np.int64).max - 2]))
    with pytest.raises(ValueError, match="fewer than 3 are left"):
        index.add(x[:3])
    index.add(x[:2])
    assert index.ids[-1] == np.iinfo(np.int64).max
