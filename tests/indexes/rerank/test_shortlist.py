"""How long shortlists are."""

import numpy as np
import pytest

import annvq
from annvq import FlatIndex, IVFIndex, RerankIndex
from annvq.indexes.rerank import shortlist
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))


def vectors(n, dim=20, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(15, dim)) * 30
    x = centers[rng.integers(15, size=n)] + rng.normal(size=(n, dim)) * 10
    return np.clip(np.rint(x), -120, 120).astype(np.float32)


def fitted(kind="residual", dim=20, M=2, x=None, **config):
    return annvq.make(kind, dim=dim, M=M, nbits=4, **config).fit(vectors(500, dim) if x is None else x, recipe=QUICK)


def test_shortlists_by_recall_target():
    x = vectors(3000)
    index = RerankIndex(FlatIndex(fitted(x=x)), "float32", recall_target=0.8).fit(x[:2000]).add(x[:2000])
    queries = x[2000:]
    true = np.argsort(((queries[:, None] - x[None, :2000]) ** 2).sum(2), axis=1)[:, :10]

    def recall(found):
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)])

    assert 10 < index.shortlist < 1000
    assert recall(index.search(queries, 10)[1]) == pytest.approx(0.8, abs=0.08)
    low = index.shortlist
    index.tune(queries[:200], recall=0.97)
    assert index.shortlist > low
    assert recall(index.search(queries, 10)[1]) == pytest.approx(0.97, abs=0.03)
    assert index.search(queries[:2], 100)[1].shape == (2, 100)
    assert RerankIndex(FlatIndex(fitted()), shortlist=33).shortlist == 33


def clustered(n, queries, dim=16):
    """Base and queries in clusters of forty, so that the neighbours after these are anywhere."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(n // 40, dim)) * 4
    x = (centres[rng.integers(0, len(centres), n + queries)] + rng.normal(size=(n + queries, dim))).astype(np.float32)
    return x[:n], x[n:]


def share_found(index, base, queries, k):
    true = np.argsort(((queries[:, None] - base) ** 2).sum(2), axis=1)[:, :k]
    found = index.search(queries, k)[1]
    return np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, true, strict=True)])


def test_shortlists_for_many_neighbours_reach_the_target():
    base, queries = clustered(4000, 60)
    code = annvq.ProductVQ(16, 4, 4).fit(base, recipe=QUICK)
    index = RerankIndex(FlatIndex(code), "float32", recall_target=0.9).fit(base).add(base)
    ten = index.shortlist
    for k in (20, 40, 100, 300):
        assert share_found(index, base, queries, k) > 0.86
    assert share_found(index, base, queries, 100) < 0.99  # and are no longer than that takes
    assert index.shortlist == ten  # that for ten neighbours is as it was
    lists = RerankIndex(IVFIndex(code, nlist=12, nprobe=12), "float32", recall_target=0.9).fit(base).add(base)
    assert share_found(lists, base, queries, 100) > 0.86


def test_shortlists_are_measured_once_for_many_neighbours(tmp_path):
    base, queries = clustered(3000, 5)
    index = RerankIndex(FlatIndex(annvq.ProductVQ(16, 4, 4).fit(base, recipe=QUICK)), "float32").fit(base).add(base)
    calls, ranks = [], index._ranks
    index._ranks = lambda queries, depth, k: calls.append(k) or ranks(queries, depth, k)
    index.search(queries, 10)
    assert calls == [10]
    for k in (18, 12, 20, 11):
        index.search(queries, k)
    assert set(calls) == {10, 20}
    first = list(calls)
    expected = index.search(queries, 15)
    again = annvq.load_index(index.to_bytes())
    for part, other in zip(again.search(queries, 15), expected, strict=True):
        np.testing.assert_array_equal(part, other)
    assert again._shortlist.longer == index._shortlist.longer
    assert calls == first
    index.search(queries, 3000)  # all of them take no measuring
    assert calls == first
    index.search(queries, 150)
    assert calls[len(first)] == 160
    index.add(base[:1000]).add(base).add(base)  # the index has grown
    index.search(queries, 15)
    assert calls[-1] == 20
    index.tune(queries)
    assert index._shortlist.longer == ()


def test_deep_shortlists_are_found(monkeypatch):
    """Where neighbours lie deeper than was looked at first, more is looked at."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(2000, 16)).astype(np.float32)
    code = annvq.ProductVQ(16, 1, 1).fit(base, recipe=QUICK)  # which says next to nothing
    lengths = {}
    for deepest in (4096, 60):
        monkeypatch.setattr(shortlist, "_DEEPEST", deepest)
        monkeypatch.setattr(shortlist, "_TIMES", 3)
        index = RerankIndex(FlatIndex(code), "float32").fit(base).add(base)
        index.search(base[:2], 20)
        lengths[deepest] = index._shortlist.longer[-1]
    assert lengths[4096] > 1000
    assert 300 < lengths[60] <= 32 * 20


def test_steps_of_many_neighbours():
    for k in (*range(11, 3000), 10**5, 10**7):
        step = shortlist._step(k)
        assert shortlist._neighbors(step) >= k
        assert step == 1 or shortlist._neighbors(step - 1) < k


def test_without_held_vectors_shortlists_grow_with_k():
    base, queries = clustered(400, 2)
    index = RerankIndex(FlatIndex(annvq.ProductVQ(16, 4, 4).fit(base, recipe=QUICK)), "float32").add(base)
    assert index._shortlist.length(10, 400, index._ranks) == 100
    assert index._shortlist.length(30, 400, index._ranks) == 300
    assert index.search(queries, 30)[1].shape == (2, 30)
