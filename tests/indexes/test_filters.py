"""A filter that is resolved once and used with several indexes."""

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import annvq
from annvq.kernels.store import CodeStore


@pytest.fixture(scope="module")
def indexes():
    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    flat = annvq.FlatIndex(annvq.ProductVQ(8, 2, 4)).fit(x).add(x)
    lists = annvq.IVFIndex(annvq.ProductVQ(8, 2, 4), 16, nprobe=4).fit(x).add(x)
    return x, [flat, lists, annvq.RerankIndex(annvq.FlatIndex(flat.quantizer)).fit(x).add(x)]


def test_finds_what_the_filter_itself_finds(indexes):
    x, all_indexes = indexes
    bitmap = np.random.default_rng(1).random(2000) < 0.05
    for filter in (bitmap, np.flatnonzero(bitmap)[::-1], torch.from_numpy(bitmap), np.empty(0, np.int64)):
        prepared = annvq.PreparedFilter(filter)
        for index in all_indexes:
            for queries in (x[:1], x[:40]):
                expected = index.search(queries, 7, filter=filter)
                for _ in range(2):
                    for a, b in zip(index.search(queries, 7, filter=prepared), expected, strict=True):
                        np.testing.assert_array_equal(a, b)


def test_keeps_what_it_was_given():
    bitmap = np.ones(3, bool)
    prepared = annvq.PreparedFilter(bitmap)
    bitmap[:] = False
    store = CodeStore(1, [4])
    store.append(np.zeros((3, 1), np.uint8), None, np.arange(3))
    found = store.search(np.zeros((1, 1, 4), np.float32), np.zeros(1, np.float32), 3, allowed=prepared)[1]
    np.testing.assert_array_equal(found, [[0, 1, 2]])


@pytest.mark.parametrize(
    ("filter", "error"), [(None, TypeError), (lambda ids: ids > 1, TypeError), (np.array([-1]), ValueError)]
)
def test_refuses_what_cannot_be_prepared(filter, error):
    with pytest.raises(error, match="filter must"):
        annvq.PreparedFilter(filter)


@pytest.mark.parametrize(
    ("filter", "got"), [({3, 6}, "set"), (np.ones(2, np.float32), "float32"), ({"id": 3}, "dict"), (["a"], "<U1")]
)
def test_says_which_filters_there_are(indexes, filter, got):
    x, (flat, *_) = indexes
    with pytest.raises(TypeError, match=rf"filter must be a bitmap \(bool\) or ids \(int64\) .*, got {got}$"):
        flat.search(x[:1], 2, filter=filter)


def test_integers_are_ids_whatever_their_type(indexes):
    x, (flat, *_) = indexes
    mask = np.zeros(2000, np.uint8)
    mask[7] = 1
    assert set(flat.search(x[:3], 2, filter=mask)[1].ravel().tolist()) == {0, 1}
    assert (flat.search(x[:3], 1, filter=mask.astype(bool))[1] == 7).all()
    assert len(flat.search(x[:1], 1, filter=[])[1]) == 1


def test_copies_allow_the_same(indexes):
    x, (flat, *_) = indexes
    prepared = annvq.PreparedFilter(np.arange(0, 2000, 3))
    for twin in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert type(twin) is annvq.PreparedFilter
        np.testing.assert_array_equal(flat.search(x[:3], 5, filter=twin)[1], flat.search(x[:3], 5, filter=prepared)[1])


def test_a_search_keeps_the_rows_that_it_began_with():
    rng = np.random.default_rng(0)
    quantizer = annvq.ProductVQ(8, 8, 8).set_codebooks(rng.normal(size=(8, 256, 1)).astype(np.float32))
    n, queries = 400_000, rng.normal(size=(8000, 8)).astype(np.float32)
    big = annvq.FlatIndex(quantizer).add(rng.normal(size=(n, 8)).astype(np.float32))
    small = annvq.FlatIndex(quantizer).add(queries[:100])
    prepared = annvq.PreparedFilter(np.arange(n) % 2 == 1)
    expected = big.search(queries, 10, filter=prepared)
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(big.search, queries, 10, filter=prepared)
        time.sleep(0.02)
        big.remove(np.arange(0, n, 2))  # what is left moves together
        small.search(queries[:1], 3, filter=prepared)  # the filter looks at another index
        overwritten = [np.full(n, 7, np.uint8) for _ in range(20)]
        found = searching.result()
    del overwritten
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def many():
    """A store of so many rows that it keeps the last filter, and what each row scores."""
    rng = np.random.default_rng(0)
    store = CodeStore(2, [256, 256])
    codes = rng.integers(0, 256, (70_000, 2)).astype(np.uint8)
    store.append(codes, None, np.arange(70_000))
    luts = rng.random((1, 2, 256), np.float32)
    return store, luts, luts[0, 0, codes[:, 0]] + luts[0, 1, codes[:, 1]]


def nearest(scores, allowed, k):
    order = np.lexsort((allowed, scores[allowed]))[:k]
    return allowed[order]


def found_in(store, luts, filter, k=20):
    return store.search(luts, np.zeros(1, np.float32), k, allowed=filter)[1][0]


@pytest.mark.parametrize("kind", ["bitmap", "ids", "ids in any order"])
@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_filter_that_comes_again_and_again(many, kind, share):
    store, luts, scores = many
    rng = np.random.default_rng(2)
    bitmap = rng.random(70_000 - 13) < share

    def given(bitmap):
        ids = np.flatnonzero(bitmap)
        return bitmap if kind == "bitmap" else ids if kind == "ids" else ids[::-1].copy()

    filter = given(bitmap)
    for _ in range(4):
        np.testing.assert_array_equal(found_in(store, luts, filter), nearest(scores, np.flatnonzero(bitmap), 20))
    # What was nearest goes, in the caller's own array, one after the other: each time few bytes differ.
    for _ in range(4):
        best = nearest(scores, np.flatnonzero(bitmap), 1)[0]
        bitmap[best] = False
        if kind != "bitmap":
            filter[filter == best] = np.flatnonzero(bitmap)[7]  # twice there: the same as once
        for _ in range(3):
            np.testing.assert_array_equal(found_in(store, luts, filter), nearest(scores, np.flatnonzero(bitmap), 20))
    for other in (given(~bitmap), given(np.roll(bitmap, 1)), filter, filter):
        allowed = np.flatnonzero(other) if kind == "bitmap" else np.unique(other)
        np.testing.assert_array_equal(found_in(store, luts, other), nearest(scores, allowed, 20))


def test_a_filter_that_comes_again_sees_changes_of_the_store(many):
    _, luts, scores = many
    store, rng = CodeStore(2, [256, 256]), np.random.default_rng(3)
    codes = rng.integers(0, 256, (70_000, 2)).astype(np.uint8)
    scores = luts[0, 0, codes[:, 0]] + luts[0, 1, codes[:, 1]]
    store.append(codes[:69_000], None, np.arange(69_000))
    filter = np.arange(0, 70_000, 50)
    for step in range(4):
        for _ in range(3):
            allowed = filter[store.contains(filter)]
            np.testing.assert_array_equal(found_in(store, luts, filter), nearest(scores, allowed, 20))
        if step == 0:
            store.remove(found_in(store, luts, filter, 3))
        elif step == 1:
            store.append(codes[69_000:], None, np.arange(69_000, 70_000))
        elif step == 2:  # so many that what is left moves together
            store.remove(np.setdiff1d(np.arange(40_000), filter))


def test_filters_that_come_again_from_several_threads(many):
    store, luts, scores = many
    filters = [np.flatnonzero(np.arange(70_000) % 100 == i) for i in range(3)]

    def one(i):
        allowed = filters[i // 8 % 3]
        np.testing.assert_array_equal(found_in(store, luts, allowed), nearest(scores, allowed, 20))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(300)))
