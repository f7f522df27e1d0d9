"""Tables are float32 sums in dimension order, the same at every SIMD level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq import kernels
from annvq.codebooks import Codebooks


def codebooks(entries, sizes, starts, dim):
    return Codebooks(entries, tuple(sizes), tuple(starts), dim)


def _expected(queries, books, starts, squared, scale):
    width = books[0].shape[1]
    tables = np.full((len(queries), len(books), max(map(len, books))), np.inf, np.float32)
    for m, (book, start) in enumerate(zip(books, starts, strict=True)):
        total = np.zeros((len(queries), len(book)), np.float32)
        for j in range(width):
            x, c = queries[:, start + j, None], book[None, :, j]
            total = total + ((x - c) * (x - c) if squared else x * c)
        tables[:, m, : len(book)] = total if squared else np.float32(scale) * total
    return tables


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.sampled_from([1, 2, 15, 16, 17, 48, 100, 256]), min_size=1, max_size=4),
    width=st.integers(1, 33),
    nq=st.integers(0, 9),
    squared=st.booleans(),
    offset=st.sampled_from([0.0, 1e6]),
)
def test_every_level_sums_in_order(seed, sizes, width, nq, squared, offset):
    rng = np.random.default_rng(seed)
    books = [(offset + rng.standard_normal((size, width))).astype(np.float32) for size in sizes]
    starts = [int(rng.integers(0, 5)) for _ in sizes]
    queries = (offset + rng.standard_normal((nq, width + 5))).astype(np.float32)
    expected = _expected(queries, books, starts, squared, -2.0)
    before = kernels.simd_level()
    try:
        for level in kernels.available_levels():
            kernels.set_simd_level(level)
            made = codebooks(np.concatenate(books), sizes, starts, queries.shape[1])
            lazy = made.tables(queries, squared=squared, scale=-2.0)
            got = lazy.build()
            np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32), err_msg=level)
            offsets = rng.standard_normal(got.shape[1:], np.float32)
            np.testing.assert_array_equal(lazy.plus(offsets).build(), expected + offsets, err_msg=level)
            centred = made.centred.tables(queries, squared=squared).build()
            means = [book.mean(axis=0, dtype=np.float64).astype(np.float32) for book in books]
            about = [book - mean for book, mean in zip(books, means, strict=True)]
            np.testing.assert_array_equal(centred, _expected(queries, about, starts, squared, 1.0), err_msg=level)
            if not squared:
                np.testing.assert_array_equal(lazy.scaled(2).plus(offsets).build(), 2 * expected + offsets)
    finally:
        kernels.set_simd_level(before)


@pytest.mark.parametrize(
    ("sizes", "starts", "message"),
    [
        ([31], [0], "rows"),
        ([32], [1], "beyond"),
        ([32], [-1], "negative"),
        ([0, 32], [0, 0], "positive"),
        ([], [], "M"),
    ],
)
def test_refuses_codebooks_that_do_not_fit(sizes, starts, message):
    books = codebooks(np.zeros((32, 4), np.float32), sizes, starts, 4)
    with pytest.raises(ValueError, match=message):
        books.tables(np.zeros((1, 4), np.float32), squared=True)


def test_refuses_what_does_not_apply_to_tables():
    queries, book, offsets = np.zeros((1, 4), np.float32), np.zeros((32, 4), np.float32), np.zeros((1, 32), np.float32)
    squares = codebooks(book, [32], [0], 4).tables(queries, squared=True)
    with pytest.raises(ValueError, match="cannot be scaled"):
        squares.scaled(2)
    with pytest.raises(ValueError, match="offsets already"):
        squares.plus(offsets).plus(offsets)
    with pytest.raises(ValueError, match=r"offsets must have shape \(M, K\)"):
        squares.plus(offsets[:, :31].copy()).build()
    with pytest.raises(TypeError, match="builder must be a TableBuilder"):
        kernels.LazyTables(book, queries, True, 1.0)
