"""Tables are float32 sums in dimension order, the same at every SIMD level."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq import kernels


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
            lazy = kernels.TableCache().tables(
                queries, np.concatenate(books), sizes, starts, squared=squared, scale=-2.0
            )
            got = lazy.build()
            np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32), err_msg=level)
            offsets = rng.standard_normal(got.shape[1:], np.float32)
            np.testing.assert_array_equal(lazy.plus(offsets).build(), expected + offsets, err_msg=level)
            cache = kernels.TableCache()
            centred = cache.tables(queries, np.concatenate(books), sizes, starts, squared=squared, centred=True).build()
            means = [book.mean(axis=0, dtype=np.float64).astype(np.float32) for book in books]
            about = [book - mean for book, mean in zip(books, means, strict=True)]
            np.testing.assert_array_equal(centred, _expected(queries, about, starts, squared, 1.0), err_msg=level)
            if not squared:
                np.testing.assert_array_equal(lazy.scaled(2).plus(offsets).build(), 2 * expected + offsets)
    finally:
        kernels.set_simd_level(before)


def test_a_cache_follows_codebooks_that_change_in_place():
    rng = np.random.default_rng(0)
    book, queries = rng.random((32, 4), np.float32), rng.random((3, 4), np.float32)
    cache = kernels.TableCache()
    first = cache.tables(queries, book, [32], [0], squared=True).build()
    book[31, 3] += 1
    np.testing.assert_array_equal(
        cache.tables(queries, book, [32], [0], squared=True).build(), _expected(queries, [book], [0], True, 1)
    )
    halves = cache.tables(queries, book, [16, 16], [0, 0], squared=True).build()
    np.testing.assert_array_equal(halves, _expected(queries, [book[:16], book[16:]], [0, 0], True, 1))
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.tables(queries, book, [32], [0], squared=True).build()[0, 0, 0] == first[0, 0, 0]


def test_a_cache_follows_a_parameter():
    rng = np.random.default_rng(0)
    queries = rng.random((3, 4), np.float32)
    cache = kernels.TableCache()

    def check(weight):
        for _ in range(2):
            got = cache.of_parameter(queries, weight, [32], [0], squared=True).build()
            np.testing.assert_array_equal(got, _expected(queries, [weight.detach().numpy()], [0], True, 1))

    weight = torch.nn.Parameter(torch.rand(32, 4))
    check(weight)
    with torch.no_grad():
        weight[31, 3] += 1
    check(weight)
    weight.data[0, 0] += 1  # which PyTorch does not count as a change
    check(weight)
    weight.detach().numpy()[1, 1] += 1
    check(weight)
    weight.sum().backward()
    torch.optim.Adam([weight], lr=0.1).step()
    check(weight)
    for _ in range(20):  # memory that is let go may be used again
        weight.data = torch.rand(32, 4)
        check(weight)
    check(torch.nn.Parameter(torch.rand(32, 4)))
    with torch.inference_mode():
        made_there = torch.rand(32, 4)
        check(made_there)
        made_there += 1
        check(made_there)


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
    with pytest.raises(ValueError, match=message):
        kernels.TableCache().tables(
            np.zeros((1, 4), np.float32), np.zeros((32, 4), np.float32), sizes, starts, squared=True
        ).native()


def test_refuses_what_does_not_apply_to_tables():
    queries, book, offsets = np.zeros((1, 4), np.float32), np.zeros((32, 4), np.float32), np.zeros((1, 32), np.float32)
    squares = kernels.TableCache().tables(queries, book, [32], [0], squared=True)
    with pytest.raises(ValueError, match="cannot be scaled"):
        squares.scaled(2)
    with pytest.raises(ValueError, match="offsets already"):
        squares.plus(offsets).plus(offsets)
    with pytest.raises(ValueError, match=r"offsets must have shape \(M, K\)"):
        squares.plus(offsets[:, :31].copy()).build()
