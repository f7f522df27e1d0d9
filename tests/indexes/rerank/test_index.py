"""Re-ranking: updates, threads, files and refusals, whatever keeps the finer form."""

import threading

import numpy as np
import pytest

import annvq
from annvq import FlatIndex, IVFIndex, RerankIndex
from annvq.errors import NotFittedError
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))


def vectors(n, dim=20, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(15, dim)) * 30
    x = centers[rng.integers(15, size=n)] + rng.normal(size=(n, dim)) * 10
    return np.clip(np.rint(x), -120, 120).astype(np.float32)


def fitted(kind="residual", dim=20, M=2, x=None, **config):
    return annvq.make(kind, dim=dim, M=M, nbits=4, **config).fit(vectors(500, dim) if x is None else x, recipe=QUICK)


def test_updates():
    x = vectors(400)
    index = RerankIndex(IVFIndex(fitted(), 5), "float32", shortlist=400).fit(x).add(x[:200])
    index.upsert(x[300:320], np.arange(190, 210))
    assert len(index) == 210
    assert index.remove(np.arange(0, 100)) == 100
    index.add(x[:30])
    for row, i in ((305, 195), (0, 210), (150, 150)):
        d, found = index.search(x[row : row + 1], 3, nprobe=5)
        assert d[0, 0] == 0
        assert i in found[0]
    np.testing.assert_array_equal(index.reconstruct(np.array([195, 212])), x[[305, 2]])
    for ids in ([150, 150], [5]):
        with pytest.raises(ValueError):
            index.remove(np.array(ids))
    assert len(index) == 140
    allowed = np.array([150, 195, 7000])
    assert set(index.search(x[:1], 5, nprobe=5, filter=allowed)[1][0]) == {150, 195, -1}
    index.save("i")
    loaded = annvq.load_index("i", mmap=True)
    for change in (index, loaded):
        change.remove(np.array([150]))
        change.upsert(x[:2], np.array([195, 9000]))
    for a, b in zip(index.search(x[:9], 40, nprobe=5), loaded.search(x[:9], 40, nprobe=5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_refused_changes_change_nothing():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "float32", shortlist=300).fit(x).add(x[:100])
    before = index.search(x[:3], 100)
    bad = x[:2].copy()
    bad[1, 0] = np.nan
    for use in (
        lambda: index.add(bad),
        lambda: index.add(x[:2], np.array([1, 500])),
        lambda: index.upsert(bad, np.array([1, 2])),
        lambda: index.upsert(x[:2], np.array([1, 1])),
        lambda: index.remove(np.array([1, 500])),
    ):
        with pytest.raises(ValueError):
            use()
    for a, b in zip(before, index.search(x[:3], 100), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(index.refinement.store) == 100


def test_searching_while_another_thread_changes():
    x = vectors(600)
    head, fine = annvq.make("residual", dim=20, M=2, nbits=4), annvq.make("product", dim=20, M=5, nbits=4)
    index = RerankIndex(IVFIndex(head, 5, residual=True), fine, shortlist=100).fit(x, recipe=QUICK).add(x[:200])
    fixed = index.search(x[:4], 20, nprobe=5, filter=np.arange(100))
    failures = []

    def look():
        try:
            for _ in range(60):
                found = index.search(x[:4], 20, nprobe=5, filter=np.arange(100))
                np.testing.assert_array_equal(found[1], fixed[1])
                index.search(x[:4], 20, nprobe=5)
        except Exception as e:
            failures.append(e)

    thread = threading.Thread(target=look)
    thread.start()
    for i in range(200, 600, 20):
        index.add(x[i : i + 20])
        index.remove(np.arange(i - 60, i - 50))
        index.upsert(x[:10], np.arange(i, i + 10))
    thread.join()
    assert not failures


def test_saving_while_another_thread_adds():
    x = vectors(2000)
    index = RerankIndex(FlatIndex(fitted()), "float16", shortlist=50).fit(x).add(x[:20])
    stop = threading.Event()

    def add():
        for i in range(20, 2000, 2):
            index.add(x[i : i + 2])
            if stop.is_set():
                return

    thread = threading.Thread(target=add)
    thread.start()
    for _ in range(20):
        index.save("i")
        loaded = annvq.load_index("i")  # refuses a file whose codes and rows are not of the same vectors
        assert loaded.search(x[:1], 1)[0][0, 0] == 0
    stop.set()
    thread.join()


def test_a_function_is_asked_once_for_all_queries(monkeypatch):
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), shortlist=300).fit(x).add(x)
    expected = index.search(x[:9], 5, filter=np.arange(0, 300, 2))
    monkeypatch.setattr("annvq.indexes.rerank.index.chunks", lambda n, dim: [(0, 4), (4, n)])
    asked = []

    def even(ids):
        asked.append(ids)
        return ids % 2 == 0

    for a, b in zip(index.search(x[:9], 5, filter=even), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(asked) == 1


def test_files_that_do_not_fit_are_refused():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "float16").fit(x).add(x)
    config, tensors = index._to_stored()
    header = {"metric": "l2", "norm": "uint8", **config}
    wrong = [
        ({}, {"refine.rows": tensors["refine.rows"][:, :5]}),
        ({}, {"refine.ids": tensors["refine.ids"][::2]}),
        ({}, {"refine.held": np.full((2, 20), np.nan, np.float32)}),
        ({}, {"refine.extra": tensors["refine.ids"]}),
        ({"refine": {"kind": "pickle"}}, {}),
        ({"refine": {"kind": "raw", "dtype": "float64"}}, {}),
        ({"index": {**config["index"], "kind": "rerank"}}, {}),
        ({"refine": {"kind": ["raw"]}}, {}),
        ({"shortlist": "many"}, {}),
    ]
    for change, more in wrong:
        with pytest.raises((ValueError, TypeError, KeyError)):
            RerankIndex._from_stored(index.quantizer, {**header, **change}, {**tensors, **more}, mapped=False)
    RerankIndex._from_stored(index.quantizer, header, dict(tensors), mapped=False)


def test_refusals():
    x = vectors(300)
    q = fitted()
    index = RerankIndex(FlatIndex(q)).fit(x).add(x)
    cases = [
        (lambda: RerankIndex(q), TypeError, "index must be a flat index or inverted lists"),
        (lambda: RerankIndex(FlatIndex(q).add(x)), ValueError, "must be empty"),
        (lambda: RerankIndex(FlatIndex(q), "float64"), ValueError, "refine must be one of float32"),
        (lambda: RerankIndex(FlatIndex(q), [[1.0]]), TypeError, "refine must be a NumPy array"),
        (lambda: RerankIndex(FlatIndex(q), x[:, :9]), ValueError, "refine must be float32 of shape"),
        (lambda: RerankIndex(FlatIndex(q), x.astype(np.float64)), TypeError, "refine must hold"),
        (lambda: RerankIndex(FlatIndex(q), np.asfortranarray(x)), ValueError, "side by side"),
        (lambda: RerankIndex(FlatIndex(q), "float32", refines="rest"), ValueError, "refine is no quantizer"),
        (lambda: RerankIndex(FlatIndex(q), q, refines="all"), ValueError, "refines must be"),
        (lambda: RerankIndex(FlatIndex(q), annvq.make("product", dim=8, M=2)), ValueError, "of dimension 20"),
        (lambda: RerankIndex(FlatIndex(q), shortlist=0), ValueError, "shortlist"),
        (lambda: RerankIndex(FlatIndex(q), recall_target=0), ValueError, "recall_target"),
        (lambda: RerankIndex(FlatIndex(annvq.make("product", dim=20, M=2))).add(x), NotFittedError, "fit"),
        (lambda: RerankIndex(FlatIndex(q), annvq.make("product", dim=20, M=2)).add(x), NotFittedError, "fit"),
        (lambda: index.search(x[:1], 5, shortlist=4), ValueError, "shortlist must be"),
        (lambda: index.search(x[:1], 5, nprobe=4), ValueError, "nprobe must be None where a FlatIndex"),
        (lambda: index.tune(x[:0]), ValueError, "at least one row"),
        (lambda: index.reconstruct(np.array([300])), ValueError, "not there"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
