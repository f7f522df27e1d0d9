"""The native sums of re-ranking, and the rows that it keeps, against NumPy."""

import numpy as np
import pytest
import torch
from exact_distances import distances_to, ordered
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq.kernels import _native, available_levels, set_simd_level, simd_level

DTYPES = ("float32", "float16", "bfloat16", "uint8", "int8")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.sampled_from(DTYPES),
    st.sampled_from(["l2", "ip", "cosine", "unit"]),
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(0, 10**6),
)
def test_distances_equal_the_reference_at_every_level(dim, dtype, metric, n, k, seed):
    rng = np.random.default_rng(seed)
    low = 0 if dtype == "uint8" else -120
    whole = rng.integers(low, 120, size=(n, dim))
    scale = np.exp2(rng.integers(-20, 6, size=(n, 1))) if "float" in dtype else 1
    values = np.where((whole == 0).all(1, keepdims=True), 1, whole) * scale
    if dtype == "bfloat16":
        x = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
        exact = torch.from_numpy(values).bfloat16().float().numpy()
    else:
        x = values.astype(dtype)
        exact = x.astype(np.float32)
    q = rng.normal(size=(3, dim)).astype(np.float32)
    ids = rng.permutation(1000)[:n]
    store = _native.RowStore(x.itemsize * dim)
    store.append(ids, x.view(np.uint8).reshape(n, -1))
    asked = np.concatenate([np.tile(ids, (3, 1)), np.full((3, 2), -1), np.full((3, 1), 2000)], axis=1)
    expected = ordered(distances_to(q, exact, metric), ids, k)
    by_row = ordered(distances_to(q, exact, metric), np.arange(n), k)
    current = simd_level()
    try:
        for level in available_levels():
            set_simd_level(level)
            found = _native.rerank_rows(store, dtype, q, asked, k, metric, 1)
            for a, b, pad in zip(found, expected, (np.inf, -1), strict=True):
                np.testing.assert_array_equal(a[:, :n], b)
                assert (a[:, n:] == pad).all()
            rows = np.tile(np.arange(n), (3, 1))
            wide = np.zeros((n, dim + 5), x.dtype)
            wide[:, :dim] = x
            for a, b in zip(_native.rerank_array(wide[:, :dim], dtype, q, rows, k, metric, 2), by_row, strict=True):
                np.testing.assert_array_equal(a[:, :n], b)
    finally:
        set_simd_level(current)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([1, 8, 16]),
    st.sampled_from([0, 8, 16]),
    st.sampled_from(["l2", "ip", "unit"]),
    st.integers(0, 10**6),
)
def test_product_codes_equal_the_reference_at_every_level(blocks, width, scanned, metric, seed):
    rng = np.random.default_rng(seed)
    dim, n, k = 16 * blocks, 30, 12
    x, parts = np.zeros((n, dim), np.float32), []
    for w in (scanned, width) if scanned else (width,):
        books = rng.normal(size=(dim // w, 256, w)).astype(np.float32)
        codes = rng.integers(0, 256, (n, dim // w)).astype(np.uint8)
        x += books[np.arange(dim // w), codes].reshape(n, dim)
        sizes, starts = np.full(dim // w, 256, np.int32), np.arange(0, dim, w, dtype=np.int32)
        parts.append((_native.SumBooks(books.reshape(-1, w), sizes, starts, dim, False), codes))
    (fine, codes), (coarse, coarse_codes) = parts[-1], parts[0] if scanned else (None, np.empty((0, 1), np.uint8))
    store, ids = _native.RowStore(dim // width), rng.permutation(1000)[:n]
    store.append(ids, codes)
    q = rng.normal(size=(3, dim)).astype(np.float32)
    expected = ordered(distances_to(q, x, metric), ids, k)
    given = coarse, np.tile(coarse_codes, (3, 1)), np.empty((0, 1), np.float32), np.empty(0, np.int32)
    current = simd_level()
    try:
        for level in available_levels():
            set_simd_level(level)
            found = _native.rerank_codes(store, fine, q, np.tile(ids, (3, 1)), k, metric, *given, 1)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=level)
    finally:
        set_simd_level(current)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("arux"), st.integers(0, 30), st.integers(1, 8)), max_size=25))
def test_rows_are_those_of_a_dictionary(steps):
    store, held = _native.RowStore(6), {}
    for count, (what, first, n) in enumerate(steps):
        ids = np.arange(first, first + n)
        rows = (np.arange(n * 6).reshape(n, 6) + count).astype(np.uint8)
        if what == "r":
            assert store.remove(ids) == sum(held.pop(i, None) is not None for i in ids.tolist())
        elif what == "a" and any(i in held for i in ids.tolist()):
            with pytest.raises(ValueError, match="already stored"):
                store.append(ids, rows)
        elif what == "x" and not held and len(store.export()[0]) == 0 and count == 0:
            store.adopt(ids, rows)
            held.update(zip(ids.tolist(), rows, strict=True))
        else:
            store.append(ids, rows, True)
            held.update(zip(ids.tolist(), rows, strict=True))
        assert len(store) == len(held)
    ids, rows = store.export()
    assert ids.tolist() == sorted(held)
    for i, row in zip(ids.tolist(), rows, strict=True):
        np.testing.assert_array_equal(row, held[i])
    np.testing.assert_array_equal(store.get(ids), rows)
    with pytest.raises(ValueError, match="not there"):
        store.get(np.array([99]))
