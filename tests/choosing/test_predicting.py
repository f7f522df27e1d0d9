"""Recall in parts of a sample by brute force, and predictions where more vectors can be measured."""

import numpy as np
import pytest

from annvq import FlatIndex, IVFIndex, ProductVQ, RerankIndex
from annvq.benchmarks.metrics import RECALLS, hits, meaning
from annvq.choosing.predicting import Curve, K, curve_of, depth_of, kept_shares, names_of, order_of, predicted
from annvq.datasets import exact_neighbors
from annvq.training import KMeans, Recipe

NAMES = names_of(K)
WHOLE = dict.fromkeys(NAMES, 1.0)


def squared(a, b):
    return ((a[:, None, :].astype(np.float64) - b[None]) ** 2).sum(-1)


def coarse(x, seed=1):
    """Vectors as a code of some error would give them."""
    return x + 0.3 * np.random.default_rng(seed).standard_normal(x.shape)


def gaussian(n, nq, dim=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, dim)), rng.standard_normal((nq, dim))


def recalls(base, queries, rows, names):
    """Share of its neighbours that each query finds among some rows, by brute force."""
    true = squared(queries, base[rows])
    found = np.argsort(squared(queries, coarse(base)[rows]), axis=1)
    out = {}
    for name in names:
        wanted, among = meaning(name)
        limit = np.sort(true, axis=1)[:, wanted - 1 : wanted]
        out[name] = np.minimum((np.take_along_axis(true, found[:, :among], 1) <= limit).sum(1), wanted) / wanted
    return out


@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_parts_are_what_searching_them_finds(k):
    base, queries = gaussian(1700, 20)
    base[5] = base[3]  # as near as one another
    found = np.argsort(squared(queries, coarse(base)), axis=1)[:, :900]
    neighbors, distances = exact_neighbors(base, queries, 900)
    curve = curve_of(found, neighbors, distances, len(base), seed=7, k=k)
    assert curve.sizes.tolist() == [1700, 850, 425]
    part = np.random.default_rng(7).permutation(len(base))
    for level, parts in enumerate((1, 2, 4)):
        each = [recalls(base, queries, np.flatnonzero(part % parts == p), names_of(k)) for p in range(parts)]
        for name in names_of(k):
            np.testing.assert_allclose(curve.found[name][level], np.mean([r[name] for r in each], axis=0))


def test_of_many_neighbours_parts_are_as_large_as_their_recall_needs():
    base, queries = gaussian(4000, 5)
    neighbors, distances = exact_neighbors(base, queries, min(depth_of(100), 4000))
    assert curve_of(neighbors, neighbors, distances, 4000, k=100).sizes.tolist() == [4000, 2000, 1000]
    assert depth_of(10) == depth_of(1) == 1024
    few = neighbors[:, :1024], neighbors[:, :1024], distances[:, :1024], 4000
    assert curve_of(*few, k=100).sizes.tolist() == [4000, 2000]


def test_what_a_search_did_not_list_is_not_found():
    base, queries = gaussian(1000, 5)
    neighbors, distances = exact_neighbors(base, queries, 100)
    curve = curve_of(np.full((5, 100), -1), neighbors, distances, 1000)
    assert all((shares == 0).all() for shares in curve.found.values())
    perfect = curve_of(neighbors, neighbors, distances, 1000)
    assert all((shares == 1).all() for shares in perfect.found.values())


def test_more_vectors_find_what_was_predicted():
    base, queries = gaussian(32_000, 400)
    code, m = coarse(base), 4000
    neighbors, distances = exact_neighbors(base[:m], queries, 1024)
    curve = curve_of(exact_neighbors(code[:m], queries, 1024)[0], neighbors, distances, m)
    figures, far = predicted(curve, len(base), WHOLE), predicted(curve, 100 * len(base), WHOLE)
    counts = hits(exact_neighbors(code, queries, 100)[0], base, queries, exact_neighbors(base, queries, 10)[0], "l2")
    for name in NAMES:
        measured = counts[name].mean() / RECALLS[name][0]
        f = figures[name]
        assert f.low < measured < f.high
        assert f.value == pytest.approx(measured, abs=0.04)
        assert measured < curve.found[name][0].mean() - 0.05
        # The farther, the less is known.
        assert far[name].value < f.value < curve.found[name][0].mean()
        assert far[name].half > f.half


def curve(shares, sizes=(4000, 2000, 1000), nq=400):
    found = np.random.default_rng(0).random((len(sizes), nq)) < np.asarray(shares)[:, None]
    return Curve(np.asarray(sizes, float), {name: found.astype(float) for name in NAMES})


def test_what_the_search_itself_loses_is_lost_among_more():
    held = curve((0.5, 0.55, 0.6))
    own = held.found["recall@1"][0].mean() / 2
    shares = kept_shares(held, {"recall@1": own, "recall@10": 1.0})
    assert shares == pytest.approx({"recall@1": 0.5, "recall@10": 1.0, "10-recall@10": 1.0})
    whole, half = predicted(held, 100_000, WHOLE), predicted(held, 100_000, shares)
    for which in ("value", "low", "high"):
        assert getattr(half["recall@1"], which) == pytest.approx(getattr(whole["recall@1"], which) / 2)
    assert half["recall@10"] == whole["recall@10"]
    assert kept_shares(curve((0.0, 0.0, 0.0)), {"recall@1": 0.0})["recall@1"] == 1.0


def test_recall_is_not_said_to_rise():
    for f in predicted(curve((0.7, 0.65, 0.6)), 10**6, WHOLE).values():
        assert f.value < 0.72
        assert f.low < 0.6
        assert f.high > 0.75


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_and_nothing_have_intervals_too(share):
    for n in (1000, 4000, 10**9):
        for f in predicted(curve((share,) * 3), n, WHOLE).values():
            assert 0 <= f.low <= f.value <= f.high <= 1
            if n <= 4000:
                assert f.value == pytest.approx(share, abs=0.01)


def test_of_one_size_nothing_is_known_but_that_size():
    figures = predicted(curve((0.5,), sizes=(500,)), 500, WHOLE)
    assert figures["recall@1"].value == pytest.approx(0.5, abs=0.1)
    far = predicted(curve((0.5,), sizes=(500,)), 5_000_000, WHOLE)
    assert far["recall@1"].high - far["recall@1"].low > 0.5


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_orders_are_those_of_all_lists_and_long_shortlists(metric):
    base, queries = (x.astype(np.float32) for x in gaussian(2000, 10))
    q = ProductVQ(dim=8, M=4, nbits=4).fit(base, seed=0, recipe=Recipe((KMeans(4),)))
    flat = FlatIndex(q, metric).fit(base).add(base)
    lists = IVFIndex(q, 20, metric, residual=False, nprobe=1).fit(base)
    # Lists hold out fewer vectors, which they learn a length from and no share.
    lists.coding.length, lists.coding.share = flat.coding.length, flat.coding.share
    lists.add(base)
    raw = RerankIndex(FlatIndex(q, metric), "float32", shortlist=10).fit(base).add(base)
    order = flat.search(queries, 200)[1]
    np.testing.assert_array_equal(order_of(flat, queries, 200), order)
    np.testing.assert_array_equal(order_of(lists, queries, 200), order)
    true = exact_neighbors(base, queries, 500, metric=metric)[0]
    assert (order_of(raw, queries, 500) == true).mean() > 0.99
