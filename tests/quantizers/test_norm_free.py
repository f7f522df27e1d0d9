"""Codes whose norm follows from them: no bits for it, and distances near those to the decoded vectors."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.kernels.encode import AdditiveEncoder
from annvq.norms import NormTerm
from annvq.quantizers import LinearMap, Rotation, Transformed
from annvq.quantizers.files import from_stored
from annvq.training import KMeans, Recipe
from annvq.training.learn.norms import NormFree, expected_offsets
from annvq.training.parts import LearnNormFree

KINDS = ("residual", "additive")
QUICK = Recipe((LearnNormFree((KMeans(5),), rounds=3),))


def uneven(n, d=12, seed=0):
    """Vectors whose norms vary much."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.gamma(2.0, 2.0, size=(n, 1)) + 3
    return x.astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return annvq.make(request.param, dim=12, M=3, nbits=5, norm_free=True).fit(uneven(3000), recipe=QUICK)


def squared(a):
    return np.square(a.astype(np.float64)).sum(-1)


def objective(x, codes, books, offsets, weight, origin=0.0, share=0.0):
    """‖x − x̂‖² + weight · (‖x̂ − origin‖² + share · ‖x − x̂‖² − Σ offsets)², float64."""
    first = np.cumsum([0] + [len(b) for b in books])
    decoded = sum(b[codes[:, m]].astype(np.float64) for m, b in enumerate(books))
    told = sum(offsets[first[m] + codes[:, m].astype(int)].astype(np.float64) for m in range(len(books)))
    errors = squared(x - decoded)
    return errors + weight * np.square(squared(decoded - origin) + share * errors - told)


@given(
    st.integers(0, 2**31),
    st.integers(1, 16),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.05, 2.0]),
    st.sampled_from([0.0, 0.5]),
)
def test_of_two_codebooks_the_best_pair_is_found(seed, first, second, weight, share):
    rng = np.random.default_rng(seed)
    books = [rng.normal(size=(s, 5)).astype(np.float32) + 1 for s in (first, second)]
    offsets = rng.normal(size=first + second).astype(np.float32)
    x = rng.normal(size=(12, 5)).astype(np.float32) * 2
    encoder = AdditiveEncoder(np.concatenate(books), (first, second))
    found = encoder.norm_free_search(x, encoder.residual(x, 1), offsets, weight, error_share=share)
    every = np.array(list(itertools.product(range(first), range(second))))
    terms = {"books": books, "offsets": offsets, "weight": weight, "share": share}
    best = [objective(np.repeat(row[None], len(every), 0), every, **terms).min() for row in x]
    np.testing.assert_allclose(objective(x, found, **terms), best, rtol=1e-3, atol=1e-3)


def test_codes_are_chosen_by_what_they_are_scored_with(fitted):
    x = uneven(500, seed=1)
    codes, plain = fitted.encode(x), fitted.plain_codes(x)
    books = [b.detach().numpy() for b in fitted.codebooks]
    offsets, weight = fitted.norm_offsets.numpy(), float(fitted.norm_weight)
    assert fitted.error_share == 0.5
    chosen, before = (objective(x, c, books, offsets, weight, fitted.origin, 0.5) for c in (codes, plain))
    assert (chosen <= before * (1 + 1e-4) + 1e-3).all()
    assert chosen.sum() < 0.9 * before.sum()
    missed = []
    for c in (codes, plain):
        kept = squared(fitted.decode(c) - fitted.origin) + 0.5 * squared(x - fitted.decode(c))
        missed.append(np.abs(fitted.offset_norms(c) - kept))
    assert np.median(missed[0]) < 0.3 * np.median(missed[1])


def test_an_index_stores_no_norm_and_scores_by_offsets(fitted, tmp_path):
    x, queries = uneven(400, seed=2), uneven(9, seed=3)
    index = annvq.FlatIndex(fitted).add(x)
    assert index.norm is None
    assert index.bits_per_vector == 15
    distances, ids = index.search(queries, 400)
    codes = fitted.encode(x)
    decoded, told = fitted.decode(codes).astype(np.float64), fitted.offset_norms(codes)
    queries_moved, decoded = queries.astype(np.float64) - fitted.origin, decoded - fitted.origin
    expected = squared(queries_moved)[:, None] - 2 * queries_moved @ decoded.T + told
    np.testing.assert_allclose(distances, np.take_along_axis(expected, ids, 1), rtol=1e-4, atol=0.05)
    index.save(tmp_path / "index")
    loaded = annvq.load_index(tmp_path / "index", mmap=True)
    assert loaded.quantizer.norm_free
    for a, b in zip(loaded.search(queries, 20), index.search(queries, 20), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(loaded.quantizer.encode(x), codes)


def test_lists_of_vectors_store_no_norm_and_lists_of_residuals_do(fitted):
    x, queries = uneven(600, seed=6), uneven(5, seed=7)
    flat = annvq.FlatIndex(fitted).add(x).search(queries, 50)
    lists = annvq.IVFIndex(fitted, nlist=4, residual=False).fit(x).add(x)
    assert lists.bits_per_vector == 15
    for a, b in zip(lists.search(queries, 50, nprobe=4), flat, strict=True):
        np.testing.assert_array_equal(a, b)
    residuals = annvq.IVFIndex(fitted, nlist=4, residual=True, norm="float32").fit(x).add(x)
    distances, ids = residuals.search(queries, 10, nprobe=4)
    rows = residuals.reconstruct(ids.ravel()).reshape(5, 10, -1)
    np.testing.assert_allclose(distances, squared(queries[:, None] - rows), rtol=1e-3, atol=0.1)


def test_faiss_gives_the_same_distances(fitted):
    pytest.importorskip("faiss")
    x, queries = uneven(300, seed=8), uneven(5, seed=9)
    for index in (annvq.FlatIndex(fitted), annvq.IVFIndex(fitted, nlist=2, residual=False, nprobe=2).fit(x)):
        index.add(x)
        theirs, _ = annvq.to_faiss(index).search(queries, 10)
        np.testing.assert_allclose(theirs, index.search(queries, 10)[0], rtol=1e-3, atol=0.1)


def test_recall_does_not_collapse_without_stored_norms(fitted):
    x, queries = uneven(1500, seed=4), uneven(100, seed=5)
    true = (squared(queries)[:, None] - 2 * queries @ x.T + squared(x)).argsort(1)[:, :10]
    plain = fitted.with_norm().set_codebooks([b.detach() for b in fitted.codebooks])
    found = {}
    for name, index in (("free", annvq.FlatIndex(fitted)), ("stored", annvq.FlatIndex(plain, norm="float32"))):
        ids = index.add(x).search(queries, 10)[1]
        found[name] = np.mean([len(set(a) & set(b)) for a, b in zip(ids, true, strict=True)]) / 10
    assert found["free"] > 0.6 * found["stored"]


def test_where_there_is_nothing_to_choose_offsets_are_exact():
    x = uneven(600)
    q = annvq.ResidualVQ(12, 1, 6, norm_free=True).fit(x)
    codes = q.encode(x)
    norms = squared(q.decode(codes) - q.origin)
    kept = norms + 0.5 * squared(x - q.decode(codes))
    # Least squares of one codebook: means, and with the weight of one more vector the norm and a mean half error.
    count = np.bincount(codes[:, 0])[codes[:, 0]]
    total = np.bincount(codes[:, 0], kept)[codes[:, 0]]
    expected = (total + norms + (kept - norms).mean()) / (count + 1)
    np.testing.assert_allclose(q.offset_norms(codes), expected, rtol=1e-3, atol=0.01)


def test_behind_a_rotation_codes_stay_norm_free_and_behind_other_maps_they_may_not_be():
    x = uneven(1500)
    inner = annvq.ResidualVQ(12, 3, 4, norm_free=True)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0].astype(np.float32)
    q = Transformed(Rotation.from_matrix(rotation), inner).fit(x)
    assert annvq.FlatIndex(q).bits_per_vector == 12
    index = annvq.FlatIndex(q).add(x)
    distances, ids = index.search(x[:20], 1)
    assert np.median(np.abs(distances[:, 0] - squared(x[:20] - index.reconstruct(ids[:, 0])))) < 0.2 * squared(x).mean()
    with pytest.raises(ValueError, match="norm_free"):
        Transformed(LinearMap(12), annvq.ResidualVQ(12, 3, 4, norm_free=True))


def test_errors_name_what_is_missing():
    plain, free = annvq.ResidualVQ(12, 2, 3), annvq.ResidualVQ(12, 2, 3, norm_free=True)
    with pytest.raises(ValueError, match="norm_free=True"):
        annvq.FlatIndex(plain, norm=None)
    with pytest.raises(ValueError, match="never be read"):
        annvq.FlatIndex(free, norm="uint8")
    with pytest.raises(TypeError, match="norm_free must be"):
        annvq.AdditiveVQ(12, 2, 3, norm_free=1)
    x = uneven(200)
    free.set_codebooks([x[:8], x[8:16]])
    for call in (free.encode, free.tables):
        with pytest.raises(NotFittedError, match="fit_norms"):
            call(x)
    free.fit_norms(x)
    assert free.encode(x).shape == (200, 2)
    with pytest.raises(ValueError, match="at least one row"):
        free.fit_norms(x[:0])
    assert free.norm_term.bits == 0
    with pytest.raises(ValueError, match=r"term must be of 8 bits .* got 0 bits"):
        plain.take_norm_term(free.norm_term)
    with pytest.raises(ValueError, match="term must be of codebooks"):
        free.encode(x, term=NormTerm.exact((8, 8, 8)))
    with pytest.raises(ValueError, match="norm_free=True"):
        plain.fit(x).offset_norms(plain.encode(x))


def test_a_file_with_a_negative_weight_is_refused_and_one_without_offsets_is_not(fitted):
    config, tensors = fitted.to_stored()
    with pytest.raises(FormatError, match="norm_weight is negative"):
        from_stored(config, tensors | {"norm_weight": np.array(-1e-30, np.float32)})
    unlearned = from_stored(config, tensors | {"norm_weight": np.array(0, np.float32)})
    with pytest.raises(NotFittedError, match="fit_norms"):
        unlearned.encode(uneven(5))


def test_exact_codes_and_large_units_keep_weights_finite():
    x = np.repeat(uneven(8), 30, 0)
    for factor in (2.0**-30, 2.0**20):
        q = annvq.ResidualVQ(12, 2, 3, norm_free=True).fit(x * np.float32(factor), recipe=QUICK)
        assert 0 < float(q.norm_weight) < np.inf
        np.testing.assert_allclose(q.decode(q.encode(x * np.float32(factor))), x * np.float32(factor), rtol=0.05)


def test_codes_do_not_depend_on_where_the_data_lie():
    x = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    books = annvq.ResidualVQ(8, 3, 4).fit(x, recipe=Recipe((KMeans(5),))).codebooks_copy().reshape(3, 16, 8)
    found = []
    for offset in (0, 64, 256):
        moved = books + np.float32([offset, 0, 0])[:, None, None]
        q = annvq.ResidualVQ(8, 3, 4, norm_free=True).set_codebooks(moved).fit_norms(x + np.float32(offset))
        codes = q.encode(x + np.float32(offset))
        missed = q.offset_norms(codes) - squared(q.decode(codes) - q.origin)
        found.append((squared(q.decode(codes) - np.float32(offset) - x).mean(), np.abs(missed).mean()))
    error, miss = np.array(found).T
    np.testing.assert_allclose(error, error[0], rtol=0.02)
    np.testing.assert_allclose(miss, miss[0], rtol=0.2)


def test_offsets_start_at_what_independent_codebooks_lead_one_to_expect():
    rng = np.random.default_rng(1)
    sizes = (3, 5, 2)
    entries = (rng.normal(size=(10, 4)) + 20).astype(np.float32)
    every = np.array(list(itertools.product(*map(range, sizes))))  # each entry with all others: independent
    decoded = entries[every[:, 0]] + entries[3 + every[:, 1]] + entries[8 + every[:, 2]]
    norms, offsets, first = squared(decoded), expected_offsets(every, entries, sizes), (0, 3, 8)
    for m, size in enumerate(sizes):
        means = np.array([norms[every[:, m] == k].mean() for k in range(size)])
        own = offsets[first[m] : first[m] + size]
        np.testing.assert_allclose(own - own[0], means - means[0], rtol=1e-4, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1e-20, 1e15])
def test_where_squares_leave_the_range_of_float32_codes_still_fit(kind, factor):
    x = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32) * np.float32(factor)
    q = annvq.make(kind, dim=8, M=2, nbits=4, norm_free=True).fit(x, recipe=QUICK)
    assert 0 < float(q.norm_weight) < np.inf
    assert np.isfinite(q.norm_offsets.numpy()).all()
    codes = q.encode(x)
    assert squared(q.decode(codes) - x).sum() < 0.6 * squared(x).sum()
    index = annvq.FlatIndex(q)
    if factor < 1:  # codes can be had of them; distances between them would all be zero
        with pytest.raises(ValueError, match="below 1e-19 distances vanish"):
            index.add(x)
    else:
        assert np.isfinite(index.add(x).search(x[:5], 3)[0]).all()


def test_codebooks_too_large_for_a_gram_matrix_fall_back(monkeypatch):
    monkeypatch.setattr(AdditiveEncoder, "has_gram", property(lambda self: False))
    x = uneven(300)
    learned = NormFree.of(x, np.zeros((300, 2), np.uint8), x[:8], (4, 4))
    learned.settle(3)
    assert np.isfinite(learned.offsets).all()
