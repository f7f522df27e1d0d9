"""Conditional codes: decoded and chosen natively, against plain float64, and the same bits at every level."""

import numpy as np
import pytest
from network_reference import NetworkReference

import annvq
from annvq import kernels
from annvq.kernels.network import NetworkCoder

SHAPES = [((16, 16, 16), 16, 32), ((5, 1, 40), 7, 19), ((300, 3), 33, 1), ((256,) * 8, 20, 40)]


def problem(seed, sizes, dim, hidden, n=60):
    rng = np.random.default_rng(seed)

    def some(*shape):
        return rng.normal(size=shape).astype(np.float32)

    entries = some(sum(sizes), dim)
    plain = entries + 0.1 * some(*entries.shape)
    parts = entries, plain, sizes, some(hidden, dim), some(hidden), some(dim, hidden) / hidden
    codes = np.stack([rng.integers(0, size, n) for size in sizes], axis=1).astype(np.uint16)
    return parts, codes, some(n, dim) * len(sizes) ** 0.5


@pytest.mark.parametrize(("sizes", "dim", "hidden"), SHAPES)
def test_decoded_vectors_and_hidden_units_are_those_of_the_formula(level, sizes, dim, hidden):
    parts, codes, _ = problem(0, sizes, dim, hidden)
    coder, right = NetworkCoder(*parts), NetworkReference(*parts)
    weights = np.random.default_rng(1).normal(size=hidden).astype(np.float32)
    np.testing.assert_allclose(coder.decode(codes), right.decode(codes), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(coder.hidden_units(codes), right.hidden_units(codes), rtol=1e-5, atol=1e-5)
    xhat, told = coder.decode_and_read(codes, weights)
    np.testing.assert_array_equal(xhat, coder.decode(codes))
    np.testing.assert_allclose(told, right.hidden_units(codes) @ weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("candidates", [1, 4, 64])
@pytest.mark.parametrize(("sizes", "dim", "hidden"), SHAPES)
def test_codes_are_chosen_as_the_formula_says(level, sizes, dim, hidden, candidates):
    parts, codes, x = problem(2, sizes, dim, hidden, n=30)
    coder, right = NetworkCoder(*parts), NetworkReference(*parts)
    kept = codes.copy()
    for sweeps in (1, 3):
        found = coder.sweep(x, codes, candidates=candidates, sweeps=sweeps)
        wanted, clear = right.sweep(x, codes, candidates, sweeps)
        assert clear.mean() > 0.8
        np.testing.assert_array_equal(found[clear], wanted[clear])
        assert (right.errors(x, found) <= right.errors(x, codes) * (1 + 1e-5)).all()
    np.testing.assert_array_equal(codes, kept)
    assert found.dtype == (np.uint8 if max(sizes) <= 256 else np.uint16)
    np.testing.assert_array_equal(coder.sweep(x, codes, candidates=candidates, sweeps=0), codes)


@pytest.mark.parametrize(("sizes", "dim", "hidden"), SHAPES)
def test_sums_to_aim_for_follow_the_gradient_of_the_error(level, sizes, dim, hidden):
    parts, codes, x = problem(7, sizes, dim, hidden)
    coder, right = NetworkCoder(*parts), NetworkReference(*parts)
    wanted, errors = coder.aim(x, codes, 0.7)
    np.testing.assert_allclose(errors, right.errors(x, codes), rtol=1e-4)
    np.testing.assert_allclose(wanted, right.aim(x, codes, 0.7), rtol=1e-3, atol=1e-3)


def test_a_network_without_a_correction_aims_at_the_vectors_themselves():
    entries, plain, sizes, inward, bias, outward = problem(8, (16, 16), 16, 32)[0]
    _, codes, x = problem(8, (16, 16), 16, 32)
    coder = NetworkCoder(entries, plain, sizes, inward, bias, 0 * outward)
    np.testing.assert_allclose(coder.aim(x, codes, 1.0)[0], x, rtol=1e-4, atol=1e-4)
    wanted, errors = coder.aim(coder.decode(codes), codes, 0.5)
    np.testing.assert_array_equal(wanted, coder.decode(codes))
    np.testing.assert_array_equal(errors, 0)


def everything(coder, x, codes):
    weights = np.linspace(-1, 1, coder.hidden_units(codes[:1]).shape[1], dtype=np.float32)
    found = coder.sweep(x, codes, candidates=4, sweeps=2)
    return found, *coder.decode_and_read(found, weights), coder.hidden_units(found), *coder.aim(x, codes, 0.7)


def test_every_level_gives_the_same_bits():
    for sizes, dim, hidden in SHAPES:
        parts, codes, x = problem(3, sizes, dim, hidden, n=130)
        before, results = kernels.simd_level(), []
        try:
            for name in kernels.available_levels():
                kernels.set_simd_level(name)
                results.append(everything(NetworkCoder(*parts), x, codes))
        finally:
            kernels.set_simd_level(before)
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_neither_batches_nor_threads_change_a_row():
    parts, codes, x = problem(4, (32, 17, 8), 21, 50, n=250)
    coder = NetworkCoder(*parts)
    one = everything(coder, x, codes)
    before = annvq.get_num_threads()
    try:
        annvq.set_num_threads(3)
        threaded = everything(NetworkCoder(*parts), x, codes)
    finally:
        annvq.set_num_threads(before)
    cut = [everything(coder, x[i : i + 7], codes[i : i + 7]) for i in range(0, 250, 7)]
    for whole, other, pieces in zip(one, threaded, zip(*cut, strict=True), strict=True):
        np.testing.assert_array_equal(whole, other)
        np.testing.assert_array_equal(whole, np.concatenate(pieces))


def test_rows_that_are_no_numbers_get_codes_all_the_same(level):
    parts, codes, x = problem(5, (16, 3), 8, 16)
    x[3], x[4, 2] = np.nan, np.inf
    found = NetworkCoder(*parts).sweep(x, codes, candidates=4, sweeps=2)
    assert (found < [16, 3]).all()
    rest = np.setdiff1d(np.arange(60), [3, 4])
    for result in NetworkCoder(*parts).aim(x, codes, 0.7):
        assert np.isfinite(result[rest]).all()
    np.testing.assert_array_equal(found[rest], NetworkCoder(*parts).sweep(x[rest], codes[rest], candidates=4, sweeps=2))
    assert NetworkCoder(*parts).decode(codes[:0]).shape == (0, 8)


def test_refusals():
    parts, codes, x = problem(6, (16, 3), 8, 16)
    coder = NetworkCoder(*parts)
    outside = codes.copy()
    outside[7, 1] = 3
    for call in (
        coder.decode,
        coder.hidden_units,
        lambda c: coder.sweep(x, c, candidates=1, sweeps=1),
        lambda c: coder.aim(x, c, 1),
    ):
        with pytest.raises(ValueError, match="beyond"):
            call(outside)
        with pytest.raises(ValueError, match="shape"):
            call(codes[:, :1].copy())
    with pytest.raises(ValueError, match="weights"):
        coder.decode_and_read(codes, np.zeros(15, np.float32))
    with pytest.raises(ValueError, match="codes"):
        coder.sweep(x[:5], codes, candidates=1, sweeps=1)
    with pytest.raises(ValueError, match="columns"):
        coder.sweep(x[:, :5], codes, candidates=1, sweeps=1)
    with pytest.raises(ValueError, match="codes"):
        coder.aim(x[:5], codes, 1.0)
    with pytest.raises(ValueError, match="columns"):
        coder.aim(x[:, :5], codes, 1.0)
    for reach in (0, -1, np.nan):
        with pytest.raises(ValueError, match="reach"):
            coder.aim(x, codes, reach)
    for candidates in (0, 65):
        with pytest.raises(ValueError, match="candidates"):
            coder.sweep(x, codes, candidates=candidates, sweeps=1)
    with pytest.raises(ValueError, match="sweeps"):
        coder.sweep(x, codes, candidates=1, sweeps=-1)
    entries, plain, sizes, inward, bias, outward = parts
    for wrong, name in (
        ((entries, plain[:, :4], sizes, inward, bias, outward), "plain"),
        ((entries, plain, sizes, inward[:, :4].copy(), bias, outward), "inward"),
        ((entries, plain, sizes, inward, bias, outward.T.copy()), "outward"),
        ((entries, plain, sizes, inward, bias[:0], outward), "bias"),
        ((entries[:4], plain, sizes, inward, bias, outward), "entries"),
    ):
        with pytest.raises(ValueError, match=name):
            NetworkCoder(*wrong)
