"""How many lists to probe."""

import numpy as np
import pytest

import annvq
from annvq import IVFIndex, RerankIndex
from annvq.indexes.ivf.coarse import Coarse
from annvq.indexes.ivf.probing import Probing, reach_of, widened


def test_reach():
    coarse = Coarse(np.array([[0.0], [1.0], [5.0]], np.float32), "l2")
    lists = np.array([[0, 1], [2, -1]], np.int32)
    reach = reach_of(coarse, np.array([[0.1], [0.2]], np.float32), lists)
    np.testing.assert_allclose(reach, [1 / 3, 2 / 3, 1])
    probing = Probing(None, 0.5)
    assert probing.usual(64) == 4  # nothing was measured
    probing.measured(reach, 0.5)
    assert (probing.usual(3), probing.lists_for(1.0, 3)) == (2, 3)
    assert Probing(7, 0.5).usual(5) == 5


def test_narrow_filters_widen_by_the_root_of_their_share():
    assert widened(8, 100, 10, 1000) == 80
    assert widened(8, 100, 1000, 1000) == 8
    assert widened(8, 100, 0, 1000) == widened(8, 100, 1, 1000) == 100


def test_lists_for_many_neighbors():
    probing = Probing(None, 0.9)
    probing.measured(np.linspace(0.25, 1, 100, dtype=np.float32) ** 0.1, 0.9)
    usual = probing.usual(100)
    assert [probing.for_neighbors(k, 100, 10_000) for k in (1, 10)] == [usual, usual]
    lists = [probing.for_neighbors(k, 100, 10_000) for k in (11, 100, 1000, 9999, 10_000)]
    assert usual < lists[0] < lists[1] < lists[2] <= lists[3] == lists[4] == 100
    assert lists[1] == np.ceil(usual * (100 / usual) ** (1 / 3))  # a third of the way from 10 to all
    probing.measured(probing.reach, 0.9, neighbors=100)
    assert probing.for_neighbors(100, 100, 10_000) == usual < probing.for_neighbors(101, 100, 10_000)
    assert Probing(7, 0.9).for_neighbors(1000, 100, 10_000) == 7


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(100, 8)) * 5
    x = (centers[rng.integers(100, size=8100)] + rng.normal(size=(8100, 8))).astype(np.float32)
    index = IVFIndex(annvq.ProductVQ(8, 4, 6)).fit(x[:8000]).add(x[:8000])
    return index, x[:8000], x[8000:]


@pytest.mark.parametrize("k", [10, 30, 100, 1000])
def test_the_recall_target_holds_for_more_neighbors(clustered, k):
    index, x, queries = clustered
    nearest = np.square(queries[:, None].astype(np.float64) - x).sum(2).argsort(1)[:, :k]
    lists = index.coarse.assign(x)
    probed = index.coarse.probe(queries, index.probing.for_neighbors(k, index.nlist, len(x)))[0]
    reached = np.mean([np.isin(lists[near], some).mean() for near, some in zip(nearest, probed, strict=True)])
    assert reached > index.recall_target - 0.03


def test_default_searches_find_what_is_there(clustered):
    index, x, queries = clustered
    for k in (100, 1000, 8000, 9000):
        distances, ids = index.search(queries, k)
        assert ((ids >= 0).sum(1) == min(k, 8000)).all()
        assert (np.isfinite(distances) == (ids >= 0)).all()
        for row in (0, 57):  # a query's results are its own
            np.testing.assert_array_equal(index.search(queries[row : row + 1], k)[1][0], ids[row])
    few = np.random.default_rng(0).choice(8000, 40, replace=False)
    beside = np.argsort(index.coarse.assign(x), kind="stable")[:40]  # in few lists, far from most queries
    for allowed in (few, beside):
        for k in (10, 40, 50):
            ids = index.search(queries, k, filter=allowed)[1]
            assert ((ids >= 0).sum(1) == min(k, 40)).all()
            assert np.isin(ids, [*allowed, -1]).all()
    assert (index.search(queries, 5, filter=np.empty(0, np.int64))[1] == -1).all()


def test_a_given_number_of_lists_stays_as_it_is(clustered):
    index, _, queries = clustered
    assert (index.search(queries, 1000, nprobe=1)[1] == -1).any()
    given = IVFIndex(index.quantizer, metric="l2", residual=False, nprobe=1).set_centroids(index.centroids)
    given.take(index)
    for a, b in zip(given.search(queries, 1000), index.search(queries, 1000, nprobe=1), strict=True):
        np.testing.assert_array_equal(a, b)


def test_defaults_for_ten_are_those_of_the_usual_lists(clustered):
    index, _, queries = clustered
    for k in (1, 10):
        for a, b in zip(index.search(queries, k), index.search(queries, k, nprobe=index.nprobe), strict=True):
            np.testing.assert_array_equal(a, b)


def test_measured_for_other_numbers_of_neighbors(clustered, tmp_path):
    index, _, queries = clustered
    index.save(tmp_path / "i")
    tuned = annvq.load_index(tmp_path / "i").tune(queries, 200)
    tuned.save(tmp_path / "j")
    again = annvq.load_index(tmp_path / "j")
    usual = [one.probing.for_neighbors(200, one.nlist, 8000) for one in (tuned, again)]
    assert usual == [tuned.nprobe, again.nprobe]
    assert again.nprobe > index.nprobe


def test_re_ranking_finds_what_is_there(clustered):
    index, x, queries = clustered
    refined = RerankIndex(IVFIndex(annvq.ProductVQ(8, 4, 6)), "float32").fit(x).add(x)
    for k in (10, 100, 1000, 8000):
        assert (refined.search(queries, k)[1] >= 0).all()
    beside = np.argsort(index.coarse.assign(x), kind="stable")[:40]
    assert (refined.search(queries, 40, filter=beside)[1] >= 0).all()
    shortlist = refined.shortlist
    same = refined.search(queries, 10, shortlist=shortlist, nprobe=refined.index.nprobe)
    for a, b in zip(refined.search(queries, 10), same, strict=True):
        np.testing.assert_array_equal(a, b)
