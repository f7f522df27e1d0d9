"""Encoders, native ones and beam search in torch, against brute force in float64."""

from itertools import product as cartesian

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import annvq
import annvq.quantizers.modules.beam as beam_module
from annvq.kernels import available_levels, encode, set_simd_level, simd_level
from annvq.quantizers.modules.beam import additive_beam, residual_beam

SIZES = st.lists(st.sampled_from([1, 2, 3, 8, 16, 17, 40, 256, 300]), min_size=1, max_size=5)


def problem(seed, n, width, sizes, offset=0.0):
    rng = np.random.default_rng(seed)
    entries = rng.normal(size=(sum(sizes), width)).astype(np.float32)
    x = (rng.normal(size=(n, width)) * np.sqrt(len(sizes)) + offset).astype(np.float32)
    return x, entries


def split(entries, sizes):
    return np.split(entries.astype(np.float64), np.cumsum(sizes)[:-1])


def errors(x, codes, entries, sizes):
    books = split(entries, sizes)
    xhat = sum(book[codes[:, m].astype(int)] for m, book in enumerate(books))
    return ((x - xhat) ** 2).sum(1)


def beam_reference(x, books, beam, any_order):
    """Beam search on one vector, with residuals, in float64; the codes of the best sum."""
    M = len(books)
    beams = [(float(x @ x), {}, x)]
    for step in range(M):
        found = {}
        for _, chosen, residual in beams:
            for m in range(M) if any_order else [step]:
                if m in chosen:
                    continue
                distances = ((residual - books[m]) ** 2).sum(1)
                for k in np.argsort(distances, kind="stable")[:beam]:
                    key = tuple(sorted({**chosen, m: int(k)}.items()))
                    if key not in found or distances[k] < found[key][0]:
                        found[key] = (distances[k], dict(key), residual - books[m][k])
        beams = sorted(found.values(), key=lambda b: b[0])[:beam]
    return [beams[0][1][m] for m in range(M)]


def reference_codes(x, entries, sizes, beam, any_order):
    """Of centred codebooks, as the encoders do: a codebook not used yet stands at its mean."""
    means = [book.mean(0) for book in split(entries, sizes)]
    centred = [book - mean for book, mean in zip(split(entries, sizes), means, strict=True)]
    return np.array([beam_reference(v - sum(means), centred, beam, any_order) for v in x.astype(np.float64)])


@pytest.fixture
def threads():
    before = annvq.get_num_threads()
    yield annvq.set_num_threads
    annvq.set_num_threads(before)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(0, 60), st.integers(0, 2**31))
def test_product_codes_are_the_nearest_entries(sizes, width, n, seed):
    rng = np.random.default_rng(seed)
    entries = rng.normal(size=(sum(sizes), width)).astype(np.float32)
    x = rng.normal(size=(n, width * len(sizes))).astype(np.float32)
    codes = encode.ProductEncoder(entries, sizes, np.arange(len(sizes)) * width).encode(x)
    assert codes.shape == (n, len(sizes))
    assert codes.dtype == (np.uint16 if max(sizes) > 256 else np.uint8)
    for m, book in enumerate(split(entries, sizes)):
        part = x[:, m * width : (m + 1) * width]
        distances = ((part[:, None] - book) ** 2).sum(2)
        chosen = np.take_along_axis(distances, codes[:, m : m + 1].astype(int), 1)[:, 0]
        np.testing.assert_allclose(chosen, distances.min(1), rtol=1e-5, atol=1e-5)


def test_ties_go_to_the_lower_index(level):
    entries = np.zeros((40, 3), dtype=np.float32)
    x = np.ones((5, 3), dtype=np.float32)
    assert not encode.ProductEncoder(entries, [40], [0]).encode(x).any()
    assert not encode.AdditiveEncoder(entries, [20, 20]).residual(x, beam=4).any()


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(1, 12), st.sampled_from([1, 2, 5]), st.integers(0, 2**31), st.booleans())
def test_residual_beam_search(sizes, width, beam, seed, gram):
    x, entries = problem(seed, 7, width, sizes)
    encoder = encode.AdditiveEncoder(entries, sizes, **({} if gram else {"gram_limit": 0}))
    assert encoder.has_gram == gram
    codes = encoder.residual(x, beam)
    want = reference_codes(x, entries, sizes, beam, False)
    np.testing.assert_allclose(errors(x, codes, entries, sizes), errors(x, want, entries, sizes), rtol=1e-3, atol=1e-3)
    if width >= 4:  # in fewer dimensions many sums lie within rounding of one another
        assert (codes == want).all(1).mean() > 0.8


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 5, 16, 20]), min_size=1, max_size=4),
    st.sampled_from([1, 3, 8]),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_any_order_beam_search(sizes, beam, seed, gram):
    x, entries = problem(seed, 6, 6, sizes)
    encoder = encode.AdditiveEncoder(entries, sizes, **({} if gram else {"gram_limit": 0}))
    codes = encoder.additive(x, beam)
    want = reference_codes(x, entries, sizes, beam, True)
    np.testing.assert_allclose(errors(x, codes, entries, sizes), errors(x, want, entries, sizes), rtol=1e-3, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 5, 16, 20]), min_size=1, max_size=4),
    st.sampled_from([1, 3, 8]),
    st.integers(0, 30),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_beam_search_in_torch(sizes, beam, n, seed, any_order):
    x, entries = problem(seed, n, 6, sizes)
    means = [book.mean(0) for book in split(entries, sizes)]
    centred = entries - np.repeat(means, sizes, axis=0)
    offsets = (0, *np.cumsum(sizes).tolist())
    search = additive_beam if any_order else residual_beam
    found = search(torch.tensor(x - sum(means)).float(), torch.tensor(centred).float(), offsets, beam)
    assert found.shape == (n, len(sizes))
    if n == 0:
        return
    codes, want = found.numpy(), reference_codes(x, entries, sizes, beam, any_order)
    np.testing.assert_allclose(errors(x, codes, entries, sizes), errors(x, want, entries, sizes), rtol=1e-3, atol=1e-3)


def test_beam_search_in_torch_does_not_depend_on_what_is_searched_together(monkeypatch):
    x, entries = problem(5, 40, 6, [16, 8, 20])
    together = additive_beam(torch.tensor(x), torch.tensor(entries), (0, 16, 24, 44), 4)
    monkeypatch.setattr(beam_module, "_CACHED_SCORES", 1)
    assert torch.equal(additive_beam(torch.tensor(x), torch.tensor(entries), (0, 16, 24, 44), 4), together)


def test_wide_beams_find_the_optimum(level):
    sizes = [3, 4, 5]
    x, entries = problem(3, 20, 8, sizes)
    every = np.array(list(cartesian(*map(range, sizes))))
    best = np.min([errors(x, np.tile(c, (len(x), 1)), entries, sizes) for c in every], axis=0)
    encoder = encode.AdditiveEncoder(entries, sizes)
    for codes in (
        encoder.residual(x, 60),
        encoder.additive(x, 60),
        encoder.local_search(x, np.zeros((20, 3), np.uint8), rounds=30, open=3, width=16),
    ):
        np.testing.assert_allclose(errors(x, codes, entries, sizes), best, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(1, 4), st.integers(1, 16), st.integers(0, 2**31), st.booleans())
def test_local_search_never_hurts(sizes, opened, width, seed, gram):
    x, entries = problem(seed, 9, 7, sizes)
    rng = np.random.default_rng(seed)
    start = np.stack([rng.integers(0, s, 9) for s in sizes], axis=1).astype(np.uint16)
    kept = start.copy()
    encoder = encode.AdditiveEncoder(entries, sizes, **({} if gram else {"gram_limit": 0}))
    found = encoder.local_search(x, start, rounds=6, open=opened, width=width, seed=seed)
    np.testing.assert_array_equal(start, kept)
    assert (found < np.array(sizes)).all()
    assert (errors(x, found, entries, sizes) <= errors(x, start, entries, sizes) + 1e-3).all()


def test_residual_beams_are_all_that_the_beam_kept():
    sizes = [3, 4]
    x, entries = problem(8, 6, 5, sizes)
    encoder = encode.AdditiveEncoder(entries, sizes)
    beams = encoder.residual_beams(x, 12)
    assert beams.shape == (6, 12, 2)
    np.testing.assert_array_equal(beams[:, 0], encoder.residual(x, 12))
    for row, codes in zip(x, beams, strict=True):
        assert len({tuple(code) for code in codes.tolist()}) == 12
        assert (np.diff(errors(np.tile(row, (12, 1)), codes, entries, sizes)) > -1e-4).all()
    few = encoder.residual_beams(x, 20)
    np.testing.assert_array_equal(few[:, :12], beams)
    np.testing.assert_array_equal(few[:, 12:], np.repeat(beams[:, :1], 8, axis=1))


def test_icm_reaches_a_coordinate_optimum():
    sizes = [32, 20, 50]
    x, entries = problem(5, 40, 10, sizes)
    encoder = encode.AdditiveEncoder(entries, sizes)
    start = encoder.residual(x)
    codes = encoder.local_search(x, start, rounds=90, open=1)
    reached = errors(x, codes, entries, sizes)
    assert reached.mean() < errors(x, start, entries, sizes).mean()
    for m, size in enumerate(sizes):
        for k in range(size):
            moved = codes.copy()
            moved[:, m] = k
            assert (errors(x, moved, entries, sizes) >= reached - 1e-3).all()


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31), st.sampled_from([1.0, 1e-4, 1e5]))
def test_iterated_search_never_hurts(sizes, perturbed, sweeps, seed, scale):
    x, entries = problem(seed, 9, 7, sizes)
    x, entries = x * np.float32(scale), entries * np.float32(scale)
    rng = np.random.default_rng(seed)
    start = np.stack([rng.integers(0, s, 9) for s in sizes], axis=1).astype(np.uint16)
    kept = start.copy()
    encoder = encode.AdditiveEncoder(entries, sizes)
    found = encoder.iterated_search(x, start, iterations=6, perturbed=perturbed, sweeps=sweeps, seed=seed)
    np.testing.assert_array_equal(start, kept)
    assert (found < np.array(sizes)).all()
    before, after = errors(x, start, entries, sizes), errors(x, found, entries, sizes)
    assert (after <= before + 1e-5 * scale**2 * 50).all()


def test_iterated_search_finds_the_optimum_of_small_problems(level):
    sizes = [6, 5, 4]
    x, entries = problem(4, 60, 8, sizes)
    every = np.array(list(cartesian(*map(range, sizes))))
    best = np.min([errors(x, np.tile(code, (len(x), 1)), entries, sizes) for code in every], axis=0)
    start = np.zeros((60, 3), dtype=np.uint8)
    found = errors(x, encode.AdditiveEncoder(entries, sizes).iterated_search(x, start, iterations=60), entries, sizes)
    # Scores are rounded to 16 bits, so two sums that are this close may be taken for one another.
    np.testing.assert_allclose(found, best, atol=0.02)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_iterated_search_by_pairs_in_bytes(scale, level):
    """Codebooks of 256 entries and equal energy: sums of three of them are found again."""
    sizes = [256, 256, 256]
    _, entries = problem(9, 1, 24, sizes)
    rng = np.random.default_rng(9)
    codes = rng.integers(0, 256, (50, 3))
    x = sum(book[codes[:, m]] for m, book in enumerate(split(entries, sizes))).astype(np.float32)
    x, entries = x * np.float32(scale), entries * np.float32(scale)
    start = rng.integers(0, 256, (50, 3)).astype(np.uint8)
    found = encode.AdditiveEncoder(entries, sizes).iterated_search(x, start, iterations=60)
    assert (found == codes).mean() > 0.95


def test_iterated_search_of_equal_entries():
    """No pair of entries has any product once codebooks are centred."""
    sizes = [256, 256]
    entries = np.ones((512, 4), dtype=np.float32)
    start = np.full((5, 2), 7, dtype=np.uint8)
    found = encode.AdditiveEncoder(entries, sizes).iterated_search(np.ones((5, 4), np.float32), start, iterations=3)
    np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize("sizes", [[40, 40, 40], [256, 256]])
def test_iterated_search_of_vectors_beyond_the_range_of_its_scores(sizes):
    """Far outside what the codebooks can make, scores saturate; codes still are no worse than those given."""
    x, entries = problem(6, 30, 8, sizes)
    x *= np.float32(1000)
    encoder = encode.AdditiveEncoder(entries, sizes)
    start = encoder.residual(x, 4)
    found = encoder.iterated_search(x, start, iterations=10)
    before, after = errors(x, start, entries, sizes), errors(x, found, entries, sizes)
    assert (after <= before * (1 + 1e-6)).all()


def test_iterated_search_without_a_gram_matrix():
    sizes = [40, 40, 40]
    x, entries = problem(6, 30, 8, sizes)
    encoder = encode.AdditiveEncoder(entries, sizes, gram_limit=0)
    start = encoder.residual(x, 1)
    found = encoder.iterated_search(x, start, iterations=10)
    assert errors(x, found, entries, sizes).mean() < errors(x, start, entries, sizes).mean()


def every_code(x, entries, sizes):
    encoder = encode.AdditiveEncoder(entries, sizes)
    start = encoder.residual(x, 3)
    width = entries.shape[1] // len(sizes)
    return [
        encode.ProductEncoder(np.ascontiguousarray(entries[:, :width]), sizes, np.arange(len(sizes)) * width).encode(x),
        start,
        encoder.additive(x, 4),
        encoder.local_search(x, start, rounds=8, open=2),
        encoder.iterated_search(x, start, iterations=9),
        encode.AdditiveEncoder(entries, sizes, gram_limit=0).additive(x, 4),
        encode.AdditiveEncoder(entries, sizes, gram_limit=0).local_search(x, start, rounds=4, open=3),
    ]


@pytest.mark.parametrize("sizes", [[64, 17, 256, 5], [256, 512, 256]], ids=["uneven", "pairs in bytes"])
def test_codes_do_not_depend_on_level_threads_or_batch(sizes, threads):
    x, entries = problem(11, 700, 33, sizes)
    before = simd_level()
    threads(1)
    set_simd_level("generic")
    try:
        want = every_code(x, entries, sizes)
        for level in available_levels():
            set_simd_level(level)
            for count in (1, 3):
                threads(count)
                for got, expected in zip(every_code(x, entries, sizes), want, strict=True):
                    np.testing.assert_array_equal(got, expected)
        parts = [every_code(part, entries, sizes) for part in np.split(x, [1, 200, 431])]
        for i, expected in enumerate(want):
            np.testing.assert_array_equal(np.concatenate([p[i] for p in parts]), expected)
    finally:
        set_simd_level(before)


def test_far_from_the_origin():
    """Cancellation: vectors at 1000 with a spread of 1 are encoded as well as those at 0."""
    sizes = [64, 64, 64]
    x, entries = problem(2, 200, 16, sizes)
    far = entries.copy()
    far[:64] += 1000
    near_error = errors(x, encode.AdditiveEncoder(entries, sizes).residual(x, 4), entries, sizes).mean()
    codes = encode.AdditiveEncoder(far, sizes).residual(x + np.float32(1000), 4)
    assert errors(x + np.float32(1000), codes, far, sizes).mean() < near_error * 1.01


def test_large_codebooks():
    rng = np.random.default_rng(0)
    entries = rng.normal(size=(2 * 65536, 4)).astype(np.float32)
    x = rng.normal(size=(8, 4)).astype(np.float32)
    sizes = [65536, 65536]
    encoder = encode.AdditiveEncoder(entries, sizes)
    assert not encoder.has_gram
    codes = encoder.residual(x, 2)
    assert codes.dtype == np.uint16
    first = ((x[:, None].astype(np.float64) - entries[None, :65536]) ** 2).sum(2)
    greedy = encoder.residual(x, 1)
    np.testing.assert_array_equal(greedy[:, 0], first.argmin(1))
    found = encoder.local_search(x, codes, rounds=2, open=2)
    assert (errors(x, found, entries, sizes) <= errors(x, codes, entries, sizes) + 1e-6).all()


@pytest.mark.parametrize("M", [64, 65, 128, 150])
@pytest.mark.parametrize("gram", [True, False])
def test_many_codebooks(M, gram):
    sizes = [4] * M
    x, entries = problem(1, 4, 32, sizes)
    encoder = encode.AdditiveEncoder(entries, sizes, **({} if gram else {"gram_limit": 0}))
    for any_order in (False, True):
        codes = encoder.additive(x, 2) if any_order else encoder.residual(x, 2)
        assert codes.shape == (4, M)
        want = reference_codes(x, entries, sizes, 2, any_order)
        found, expected = errors(x, codes, entries, sizes), errors(x, want, entries, sizes)
        assert found.mean() == pytest.approx(expected.mean(), rel=0.02)  # rounding decides near ties
        if gram:
            swept = encoder.iterated_search(x, codes, iterations=3)
            assert (errors(x, swept, entries, sizes) <= found * (1 + 1e-5)).all()
        better = encoder.local_search(x, codes, rounds=40, open=3)
        assert errors(x, better, entries, sizes).mean() < errors(x, codes, entries, sizes).mean()


def test_nothing_to_encode():
    x, entries = problem(0, 0, 6, [4, 4])
    for codes in every_code(x, entries, [4, 4]):
        assert codes.shape == (0, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite_are_refused(bad):
    entries = np.zeros((8, 3), np.float32)
    entries[5, 1] = bad
    for make in (lambda: encode.AdditiveEncoder(entries, [8]), lambda: encode.ProductEncoder(entries, [8], [0])):
        with pytest.raises(ValueError, match="entries must be finite"):
            make()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("sizes", [(256, 256, 256), (7, 300, 16), (2, 2)])
def test_vectors_that_are_not_finite_get_some_code(level, bad, sizes):
    """Callers check values; whatever comes, codes name entries that are there."""
    rng = np.random.default_rng(0)
    entries, x = rng.normal(size=(sum(sizes), 6)).astype(np.float32), rng.normal(size=(70, 6)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = bad
    encoder = encode.AdditiveEncoder(entries, sizes)
    offsets, levels = np.zeros(sum(sizes), np.float32), np.linspace(-1, 1, 256, dtype=np.float32)
    start = encoder.residual(np.zeros_like(x))
    found = [
        encode.ProductEncoder(entries, sizes, [0] * len(sizes)).encode(x),
        encoder.residual(x, 7),
        encoder.additive(x, 7),
        encoder.residual_beams(x, 5).reshape(-1, len(sizes)),
        encoder.local_search(x, start, rounds=4),
        encoder.iterated_search(x, start, iterations=4),
        encoder.norm_search(x, start, offsets, levels, error_share=0.5),
        encoder.norm_free_search(x, start, offsets, 1.0, error_share=0.5),
    ]
    for codes in found:
        assert (codes < np.array(sizes)).all()


def test_overflow_still_gives_codes():
    x, entries = problem(0, 3, 4, [4, 4])
    x *= np.float32(1e30)
    entries *= np.float32(1e30)
    for codes in every_code(x, entries, [4, 4]):
        assert (codes < 4).all()


def test_refusals():
    x, entries = problem(0, 5, 4, [4, 4])
    encoder = encode.AdditiveEncoder(entries, [4, 4])
    with pytest.raises(ValueError, match=r"sum\(sizes\) rows"):
        encode.AdditiveEncoder(entries, [4, 5])
    with pytest.raises(ValueError, match="as many columns"):
        encoder.residual(x[:, :3], 1)
    with pytest.raises(ValueError, match="beam must lie"):
        encoder.residual(x, 0)
    with pytest.raises(ValueError, match="beyond the codebooks"):
        encoder.local_search(x, np.full((5, 2), 4), rounds=1)
    with pytest.raises(ValueError, match="beyond the codebooks"):
        encoder.iterated_search(x, np.full((5, 2), 4), iterations=1)
    with pytest.raises(ValueError, match="perturbed and sweeps"):
        encoder.iterated_search(x, np.zeros((5, 2)), iterations=1, perturbed=0)
    with pytest.raises(ValueError, match="iterations must not be negative"):
        encoder.iterated_search(x, np.zeros((5, 2)), iterations=-1)
    with pytest.raises(ValueError, match="width must lie"):
        encoder.local_search(x, np.zeros((5, 2)), rounds=1, width=17)
    with pytest.raises(ValueError, match="offsets reach beyond"):
        encode.ProductEncoder(entries[:, :2].copy(), [4, 4], [0, 3]).encode(x)
    with pytest.raises(ValueError, match="at most 1024 codebooks"):
        encode.AdditiveEncoder(np.zeros((1025, 4), np.float32), [1] * 1025)


def test_every_pair_is_opened_before_any_comes_again():
    schedule = encode.open_schedule(5, 2, 20, seed=1)
    assert schedule.shape == (20, 2)
    for half in (schedule[:10], schedule[10:]):
        assert len({frozenset(pair) for pair in half.tolist()}) == 10
    assert not np.array_equal(schedule, encode.open_schedule(5, 2, 20, seed=2))
    assert encode.open_schedule(64, 8, 5, seed=0).shape == (5, 8)
