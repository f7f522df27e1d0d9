"""Codes chosen with the norm byte in mind, against the best of all codes by brute force in float64."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annvq
from annvq.kernels.encode import AdditiveEncoder
from annvq.norms import NormTerm
from annvq.training import KMeans, Recipe


def objective(x, codes, books, byte, centres=0.0):
    """‖x − x̂‖² + |error of the byte|, which holds ‖C + x̂‖² − ‖C‖² + share · ‖x − x̂‖²; float64."""
    decoded = sum(b[codes[:, m]].astype(np.float64) for m, b in enumerate(books))
    errors = np.square(x - decoded).sum(1)
    held = np.square(decoded).sum(1) + 2 * (decoded * centres).sum(1) + byte.error_share * errors
    left = held - byte.explained(codes)
    return errors + np.abs(left[:, None] - byte.levels.astype(np.float64)).min(1)


def problem(seed, sizes, far=0.0, share=0.0):
    rng = np.random.default_rng(seed)
    books = [(rng.normal(size=(s, 5)) + far).astype(np.float32) for s in sizes]
    offsets, levels = rng.normal(size=sum(sizes)).astype(np.float32), np.float32([-2.0, 0.5, 3.0, 9.0])
    byte = NormTerm.byte(tuple(sizes), offsets, levels, error_share=share)
    x = (rng.normal(size=(12, 5)) * 2 + far * len(sizes)).astype(np.float32)
    encoder = AdditiveEncoder(np.concatenate(books), sizes)
    return x, books, byte, encoder


SHARES = [0.0, 0.5, 1.0]


@given(st.integers(0, 2**31), st.integers(1, 16), st.integers(1, 40), st.booleans(), st.sampled_from(SHARES))
def test_of_two_codebooks_the_best_pair_is_found(seed, first, second, centred, share):
    x, books, byte, encoder = problem(seed, (first, second), share=share)
    centres = np.random.default_rng(seed).normal(size=x.shape).astype(np.float32) if centred else None
    start = encoder.residual(x, 1)
    # Either codebook may come first, and of the first 16 entries are tried: one order tries all pairs.
    found = encoder.norm_search(x, start, byte.offsets, byte.levels, error_share=byte.error_share, centres=centres)
    every = np.array(list(itertools.product(range(first), range(second))))
    about = centres if centred else np.zeros_like(x)
    best = [objective(row, every, books, byte, c).min() for row, c in zip(x, about, strict=True)]
    np.testing.assert_allclose(objective(x, found, books, byte, about), best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("about", [None, 0.0, 10.0])
@pytest.mark.parametrize("far", [0.0, 30.0])
@pytest.mark.parametrize("sizes", [(4, 32, 256), (17, 3, 8, 2)])
def test_it_lowers_what_it_minimises_and_gives_valid_codes(sizes, far, about, share):
    x, books, byte, encoder = problem(7, sizes, far, share)
    centres = None if about is None else (np.random.default_rng(1).normal(size=x.shape) + about).astype(np.float32)
    start = encoder.residual(x, 4)
    kept = start.copy()
    found = encoder.norm_search(x, start, byte.offsets, byte.levels, error_share=byte.error_share, centres=centres)
    np.testing.assert_array_equal(start, kept)
    assert (found < np.array(sizes)).all()
    before, after = (objective(x, c, books, byte, 0.0 if centres is None else centres) for c in (start, found))
    assert (after <= before * (1 + 1e-5) + 0.05).all()
    assert after.sum() < before.sum()


@given(st.integers(0, 2**31), st.integers(1, 16), st.integers(1, 40), st.booleans())
def test_what_others_add_to_the_norm_counts(seed, first, second, centred):
    """Of two codebooks the best pair is found whose norm, with a rest of each vector's own, comes near zero."""
    x, books, _, encoder = problem(seed, (first, second))
    rng = np.random.default_rng(seed)
    rest = rng.normal(size=len(x)).astype(np.float32) * 9
    centres = rng.normal(size=x.shape).astype(np.float32) if centred else None
    none = np.zeros(first + second, np.float32)
    found = encoder.norm_free_search(x, encoder.residual(x, 1), none, 0.5, centres=centres, rest=rest)
    every = np.array(list(itertools.product(range(first), range(second))))

    def cost(row, codes, more, about):
        decoded = sum(b[codes[:, m]].astype(np.float64) for m, b in enumerate(books))
        held = np.square(decoded).sum(1) + 2 * (decoded * about).sum(1) + more
        return np.square(row - decoded).sum(1) + 0.5 * np.square(held)

    about = np.zeros_like(x) if centres is None else centres
    best = [cost(row, every, more, c).min() for row, more, c in zip(x, rest, about, strict=True)]
    found_costs = [cost(x[i], found[i : i + 1], rest[i], about[i])[0] for i in range(len(x))]
    np.testing.assert_allclose(found_costs, best, rtol=1e-3, atol=1e-3)


def test_bad_arguments_are_refused():
    x, _, byte, encoder = problem(0, (4, 4))
    codes = encoder.residual(x, 1)
    for offsets, levels in ((byte.offsets[:-1], byte.levels), (byte.offsets, byte.levels[:0])):
        with pytest.raises(ValueError):
            encoder.norm_search(x, codes, offsets, levels)
    with pytest.raises(ValueError):
        encoder.norm_search(x, codes + 4, byte.offsets, byte.levels)
    with pytest.raises(ValueError, match="error_share"):
        encoder.norm_search(x, codes, byte.offsets, byte.levels, error_share=1.5)
    with pytest.raises(ValueError, match="rest"):
        encoder.norm_search(x, codes, byte.offsets, byte.levels, rest=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="centres"):
        encoder.norm_search(x, codes, byte.offsets, byte.levels, centres=x[:-1])


def test_codes_weigh_the_norm_only_where_the_byte_is_coarse():
    rng = np.random.default_rng(3)
    even = rng.normal(size=(3000, 8)).astype(np.float32)
    uneven = even * rng.lognormal(0, 0.05, size=(3000, 1)).astype(np.float32)
    uneven[:, 0] += rng.gamma(1.0, 300.0, size=3000)
    for x, expected in ((even, False), (uneven, True)):
        q = annvq.ResidualVQ(8, 3, 5, beam=4).fit(x, recipe=Recipe((KMeans(5),)))
        term = q.norm_term
        assert term.weighed is expected
        plain, codes = q.encode(x), q.encode(x, term=term)
        if not expected:
            np.testing.assert_array_equal(codes, plain)
        kept = np.square(q.decode(codes) - q.origin.astype(np.float64)).sum(1)
        kept += 0.5 * np.square(x - q.decode(codes).astype(np.float64)).sum(1)
        left = np.abs(kept[:, None] - term.explained(codes)[:, None] - term.levels.astype(np.float64))
        chosen = left[np.arange(len(x)), q.keep(term, x, codes)]
        np.testing.assert_allclose(chosen, left.min(1), atol=1e-5 * np.abs(kept).max())
        books = [b.detach().numpy() for b in q.codebooks]
        assert objective(x, codes, books, term).sum() <= objective(x, plain, books, term).sum()
