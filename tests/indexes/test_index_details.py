"""Promises of an index that lie outside its contract's common cases."""

import numpy as np
import pytest

import annvq
from annvq.indexes.contract import registered
from annvq.training.norms import fit_levels


def make(name, q):
    return annvq.RerankIndex(annvq.FlatIndex(q)) if name == "rerank" else registered()[name](q)


@pytest.mark.parametrize("name", sorted(registered()))
def test_refused_add_changes_nothing(name, small):
    q, x = small("residual")
    index = make(name, q).fit(x)
    index.add(x[:20], np.arange(20))
    before = index.search(x[:3], 20)
    bad = x[:2].copy()
    bad[1, 0] = np.nan
    for rows, ids in ((bad, [50, 51]), (x[:2], [60, 60]), (x[:2], [5, 61]), (x[:2], [-1, 62])):
        with pytest.raises(ValueError):
            index.add(rows, np.array(ids))
    assert len(index) == 20
    for a, b in zip(before, index.search(x[:3], 20), strict=True):
        np.testing.assert_array_equal(a, b)


def test_levels_are_means_of_the_values_nearest_to_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.gamma(2.0, size=60)
        levels = fit_levels(values.astype(np.float32), 4).astype(float)
        nearest = np.abs(values[:, None] - levels).argmin(1)
        assert len(np.unique(nearest)) > 1
        for level in np.unique(nearest):
            np.testing.assert_allclose(levels[level], values[nearest == level].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(registered()))
def test_the_largest_id_is_an_id_like_others(name, small, tmp_path):
    q, x = small("residual")
    index = make(name, q).fit(x)
    last = np.iinfo(np.int64).max
    index.add(x[:2], np.array([3, last]))
    with pytest.raises(ValueError, match="ids must be given"):
        index.add(x[:1])
    assert len(index) == 2
    index.save(tmp_path / "i")
    for mmap in (False, True):
        again = annvq.load_index(tmp_path / "i", mmap=mmap)
        assert again.search(x[1:2], 1)[1][0, 0] == last
        with pytest.raises(ValueError, match="ids must be given"):
            again.add(x[:1])
        again.add(x[:1], np.array([4]))


def test_ids_reach_the_largest_by_themselves(small):
    q, x = small("residual")
    index = annvq.FlatIndex(q).add(x[:1], np.array([np.iinfo(np.int64).max - 2]))
    with pytest.raises(ValueError, match="fewer than 3 are left"):
        index.add(x[:3])
    index.add(x[:2])
    assert index.ids[-1] == np.iinfo(np.int64).max
