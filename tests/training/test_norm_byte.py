"""The one-byte norm: how near it comes to ‖x̂‖², and what folding it into tables means."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annvq
from annvq.errors import FormatError
from annvq.norms import NormTerm
from annvq.training import KMeans, Recipe
from annvq.training.learn.norms import fit_levels, fit_norm_byte


def test_a_value_that_is_a_sum_of_entries_is_kept_without_error():
    rng = np.random.default_rng(0)
    sizes = (4, 8, 3)
    truth = [rng.normal(size=s) * 1000 for s in sizes]
    codes = np.stack([rng.integers(s, size=4000) for s in sizes], 1)
    values = sum(t[codes[:, m]] for m, t in enumerate(truth)).astype(np.float32)
    byte = fit_norm_byte(codes, values, sizes)
    np.testing.assert_allclose(byte.values(codes, byte.keep(codes, values)), values, atol=2)


def test_it_beats_levels_alone_where_norms_vary_much():
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(6000, 16)) + rng.gamma(2.0, 20.0, size=(6000, 1))).astype(np.float32)
    q = annvq.ResidualVQ(16, 3, 5, beam=4).fit(x[:4000], recipe=Recipe((KMeans(5),)))
    codes = q.encode(x[4000:])
    exact = q.norms(codes)
    byte = q.norm_term
    error = np.square(byte.values(codes, byte.keep(codes, exact)) - exact.astype(np.float64)).mean()
    levels = fit_levels(q.norms(q.encode(x[:4000])), 256).astype(np.float64)
    plain = np.square(exact[:, None] - levels).min(1).mean()
    assert error < 0.25 * plain


@given(st.integers(0, 2**31), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_encode_takes_the_nearest_level_and_fold_adds_the_offsets(seed, sizes):
    rng = np.random.default_rng(seed)
    offsets = rng.normal(size=sum(sizes)).astype(np.float32)
    byte = NormTerm.byte(tuple(sizes), offsets, np.sort(rng.normal(size=256)).astype(np.float32))
    codes = np.stack([rng.integers(s, size=20) for s in sizes], 1)
    values = rng.normal(size=20).astype(np.float32)
    first = np.concatenate([[0], np.cumsum(sizes)])
    explained = np.array([sum(float(offsets[first[m] + c]) for m, c in enumerate(row)) for row in codes])
    distances = np.abs(values[:, None].astype(float) - explained[:, None] - byte.levels.astype(float))
    chosen = byte.keep(codes, values)
    np.testing.assert_allclose(distances[np.arange(20), chosen], distances.min(1))
    luts = rng.normal(size=(2, len(sizes), max(sizes))).astype(np.float32)
    folded = luts + byte.table_offsets()
    for m, size in enumerate(sizes):
        part = offsets[first[m] : first[m + 1]]
        np.testing.assert_array_equal(folded[:, m, :size], luts[:, m, :size] + part)
        np.testing.assert_array_equal(folded[:, m, size:], luts[:, m, size:])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_vectors_are_enough(n):
    values = np.float32([5.0, 7.0, 11.0])[:n]
    codes = np.arange(n)[:, None] % 2
    byte = fit_norm_byte(codes, values, (2,))
    assert np.isfinite(byte.levels).all()
    assert np.isfinite(byte.offsets).all()


def test_the_byte_is_as_fine_wherever_the_data_lie():
    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32) * np.float32(8)
    books = annvq.ResidualVQ(8, 3, 5).fit(x, recipe=Recipe((KMeans(5),))).codebooks_copy().reshape(3, 32, 8)
    errors = []
    for offset in (0, 1024):
        moved = books + np.float32([offset, 0, 0])[:, None, None]
        q = annvq.ResidualVQ(8, 3, 5).set_codebooks(moved).fit_norms(x[:600] + np.float32(offset))
        codes = q.encode(x[600:] + np.float32(offset))
        norms = np.square(q.decode(codes).astype(np.float64) - q.origin).sum(1)
        byte = q.norm_term
        told = byte.explained(codes) + byte.levels[byte.keep(codes, norms)]
        errors.append(np.abs(told - norms).mean())
    assert errors[1] < 1.5 * errors[0] + 1


def test_with_a_share_of_the_error_more_neighbours_are_found():
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(9000, 24)) * np.linspace(3, 0.3, 24)).astype(np.float32)
    learn, base, queries = x[:4000], x[4000:8500], x[8500:]
    truth = np.square(queries[:, None] - base).sum(2).argsort(1)[:, :10]
    q = annvq.ResidualVQ(24, 4, 5).fit(learn, recipe=Recipe((KMeans(5),)))
    share = {}
    for norm in ("uint8", "float32"):
        found = annvq.FlatIndex(q, norm=norm).add(base).search(queries, 10)[1]
        share[norm] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert share["uint8"] > 1.05 * share["float32"]


@pytest.mark.parametrize("wrong", [1.5, -0.1, np.nan])
def test_a_file_with_an_impossible_share_is_refused(wrong, tmp_path):
    x = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    q = annvq.ResidualVQ(8, 2, 4).fit(x, recipe=Recipe((KMeans(2),)))
    q.error_share.fill_(wrong)
    q.save(tmp_path / "q")
    with pytest.raises(FormatError, match="error_share"):
        annvq.load_quantizer(tmp_path / "q")
    q.error_share.fill_(0.5)
    index = annvq.IVFIndex(q, 4, residual=True).fit(x)
    index.coding.own_term = replace(index.coding.own_term, error_share=wrong)
    index.save(tmp_path / "i")
    with pytest.raises(FormatError, match="error_share"):
        annvq.load_index(tmp_path / "i")
