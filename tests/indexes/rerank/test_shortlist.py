"""How long shortlists are."""

import numpy as np
import pytest

import annvq
from annvq import FlatIndex, RerankIndex
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
