"""The closed-form codebook update and its alternation with local search, against dense float64 algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annvq
from annvq.kernels import encode
from annvq.training import KMeans, Recipe
from annvq.training.learn import least_squares
from annvq.training.learn.alternating import Alternation, mean_squared_error, train_additive


def problem(seed, n, d, sizes):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    entries = rng.normal(size=(sum(sizes), d)).astype(np.float32)
    codes = np.stack([rng.integers(0, s, n) for s in sizes], 1).astype(np.uint8)
    return x, codes, entries


def dense(codes, sizes):
    return np.concatenate([np.eye(s)[codes[:, m]] for m, s in enumerate(sizes)], 1)


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(1, 60), st.integers(1, 5), st.sampled_from([1e-2, 1.0]), st.integers(0, 2**31))
def test_matches_dense_ridge_regression(sizes, n, d, weight, seed):
    x, codes, entries = problem(seed, n, d, sizes)
    B = dense(codes, sizes)
    want = entries + np.linalg.solve(B.T @ B + weight * np.eye(sum(sizes)), B.T @ (x - B @ entries))
    found = least_squares.least_squares_entries(x, codes, entries, sizes, regularisation=weight)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_conjugate_gradients_agree_with_cholesky():
    sizes = [30, 40, 20]
    x, codes, entries = problem(3, 2000, 6, sizes)
    B = least_squares.indicator(codes, sizes)
    normal = B.T @ B
    right = B.T @ (x - B @ entries.astype(np.float64))
    found = least_squares.conjugate_gradients(normal, right, 1e-2, steps=200)
    want = np.linalg.solve(normal.toarray() + 1e-2 * np.eye(sum(sizes)), right)
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_unused_entries_stay():
    sizes = [5, 5]
    x, codes, entries = problem(1, 50, 3, sizes)
    codes[codes == 4] = 0
    found = least_squares.least_squares_entries(x, codes, entries, sizes)
    np.testing.assert_allclose(found[[4, 9]], entries[[4, 9]], rtol=1e-6)
    assert not np.allclose(found[:4], entries[:4])


def test_revived_entries_code_a_bad_vector_exactly():
    sizes = [5, 5]
    x, codes, entries = problem(1, 50, 3, sizes)
    codes[codes == 4] = 0
    revived, count = least_squares.revive_unused(x, codes, entries, sizes, np.random.default_rng(0))
    assert count == 2
    for m in range(2):
        moved = codes.copy()
        moved[:, m] = 4
        error = ((x - encode.decode_additive(moved, revived, sizes)) ** 2).sum(1)
        assert error.min() < 1e-8
    assert least_squares.revive_unused(x, codes % 4, entries[:8], [4, 4], np.random.default_rng(0))[1] == 0


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_alternation_learns(temperature):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(1500, 12)) @ rng.normal(size=(12, 12))).astype(np.float32)
    sizes = [32, 16, 32]
    plan = Alternation(iterations=30, rounds=3, temperature=temperature)
    entries, history = train_additive(x, sizes, plan, seed=1)
    assert len(history.mse) == 30
    residual = annvq.ResidualVQ(12, 3, [5, 4, 5], beam=8).fit(x, recipe=Recipe((KMeans(),)))
    before = ((x - residual.decode(residual.encode(x))) ** 2).sum(1).mean()
    codes = encode.AdditiveEncoder(entries, sizes).additive(x, 8)
    assert mean_squared_error(x, codes, entries, sizes) < before
    again, _ = train_additive(x, sizes, plan, seed=1)
    np.testing.assert_array_equal(again, entries)
    other, _ = train_additive(x, sizes, plan, seed=2)
    assert not np.array_equal(other, entries)


def test_recipe_part():
    from annvq.training.parts import Alternate

    rng = np.random.default_rng(0)
    x = (rng.normal(size=(6000, 8)) @ rng.normal(size=(8, 8)) + 3).astype(np.float32)
    learned, plain = (
        annvq.AdditiveVQ(8, 3, 4).fit(x, seed=0, recipe=Recipe(parts))
        for parts in ((KMeans(), Alternate(Alternation(iterations=30, rounds=3))), (KMeans(),))
    )
    errors = [((x - q.decode(q.encode(x))) ** 2).sum(1).mean() for q in (learned, plain)]
    assert errors[0] < errors[1]


@settings(max_examples=20, deadline=None)
@given(SIZES, st.integers(0, 50), st.integers(0, 2**31))
def test_pair_counts(sizes, n, seed):
    _, codes, _ = problem(seed, n, 2, sizes)
    B = dense(codes, sizes)
    np.testing.assert_array_equal(least_squares.pair_counts(codes, sizes), B.T @ B)
