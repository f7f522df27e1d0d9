"""The scan of a store equals the NumPy reference bit for bit, at every SIMD level."""

import numpy as np
import pytest
import scan_reference as reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import annvq
from annvq.kernels.pooling import near_labels
from annvq.kernels.store import CodeStore

SHAPES = ("normal", "constant", "offset", "heavy", "coarse", "huge", "infinite", "negative")


def _tables(rng, kind, shape):
    luts = rng.standard_normal(shape).astype(np.float32)
    if kind == "constant":
        luts[:] = 3
    elif kind == "offset":
        luts += np.float32(1e6)
    elif kind == "heavy":
        luts = (luts**9).astype(np.float32)
    elif kind == "coarse":
        luts = np.round(luts)
    elif kind == "huge":
        luts = np.clip(luts, -3, 3) * np.float32(1e38)
    elif kind == "infinite":
        luts[rng.random(shape) < 0.3] = np.inf
    elif kind == "negative":
        luts = -np.abs(luts) * 1000
    return np.ascontiguousarray(luts, dtype=np.float32)


@pytest.fixture
def threads():
    before = annvq.get_num_threads()
    yield annvq.set_num_threads
    annvq.set_num_threads(before)


def _store(codes, K, norms=None, ids=None, relabel=None):
    """A store of one list; norms are uint8 levels or float32."""
    norm = None if norms is None else str(norms.dtype)
    store = CodeStore(codes.shape[1], [K] * codes.shape[1], norm=norm, relabel=relabel)
    store.append(codes, norms, np.arange(len(codes)) if ids is None else ids)
    return store


def _same(got, expected):
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[0].view(np.uint32), expected[0].view(np.uint32))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.one_of(st.integers(0, 40), st.sampled_from([511, 512, 513, 1024, 3000])),
    M=st.one_of(st.integers(1, 24), st.sampled_from([31, 32, 48, 64, 192])),
    nbits=st.integers(1, 8),
    k=st.sampled_from([1, 2, 10, 100, 3001]),
    nq=st.sampled_from([1, 2, 17, 33]),
    kind=st.sampled_from(SHAPES),
    norm=st.sampled_from([None, "levels", "floats"]),
    filtered=st.sampled_from([None, "removed", "listed", "bitmap"]),
    relabelled=st.booleans(),
    count=st.integers(1, 3),
)
def test_equals_the_reference(level, threads, seed, n, M, nbits, k, nq, kind, norm, filtered, relabelled, count):
    rng = np.random.default_rng(seed)
    K = 2**nbits
    codes = rng.integers(0, K, (n, M), dtype=np.uint8)
    if n and rng.random() < 0.3:
        codes[:] = codes[rng.integers(0, min(n, 5), n)]  # duplicates
    luts, bias = _tables(rng, kind, (nq, M, K)), rng.standard_normal(nq).astype(np.float32)
    levels = np.sort(rng.standard_normal(256).astype(np.float32) * 3) if norm == "levels" else None
    stored = rng.integers(0, 256, n, dtype=np.uint8) if norm == "levels" else None
    stored = rng.standard_normal(n).astype(np.float32) * 3 if norm == "floats" else stored
    ids = rng.permutation(10 * n)[:n].astype(np.int64)
    keep = rng.random(n) < 0.3 if filtered else None
    with np.errstate(over="ignore", invalid="ignore"):
        norms = levels[stored] if norm == "levels" else stored
        expected = reference.scan(codes, luts, bias, k, norms=norms, ids=ids, keep=keep)
    relabel = np.argsort(rng.random((M, 256)), axis=1).astype(np.uint8) if relabelled else None
    store = _store(codes, K, stored, ids, relabel)  # without labels, up to 16 entries lie two to a byte
    allowed = None
    if filtered == "removed":
        store.remove(ids[~keep])
    elif filtered == "listed":
        allowed = rng.permutation(ids[keep])
    elif filtered == "bitmap":
        allowed = np.zeros(10 * n, np.bool_)
        allowed[ids[keep]] = True
    threads(count)
    _same(store.search(luts, bias, k, norm_levels=levels, allowed=allowed), expected)


def _near_codes(rng, n, M):
    """Codes of clustered values and tables of distances along a line, as trained codebooks give them."""
    books = np.sort(rng.standard_normal((M, 256)), axis=1).astype(np.float32)
    centres = rng.standard_normal((50, M))
    values = centres[rng.integers(0, 50, n)] + 0.2 * rng.standard_normal((n, M))
    codes = np.stack([np.searchsorted(books[m, 1:], values[:, m]) for m in range(M)], 1).astype(np.uint8)
    queries = values[rng.integers(0, n, 5)].astype(np.float32)
    return codes, (queries[:, :, None] - books) ** 2, books


@pytest.mark.parametrize("norm", [None, "levels", "floats"])
@pytest.mark.parametrize("near", [True, False], ids=["near", "random"])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_long_scans_that_settle_on_a_filter(level, near, norm, k):
    # Enough superblocks that thresholds fall, tables are made anew and other filters are tried.
    rng = np.random.default_rng(k)
    n, M = 70_001, 6
    codes, luts, books = _near_codes(rng, n, M)
    if not near:
        luts = rng.random(luts.shape).astype(np.float32)
    levels = np.sort(rng.random(256).astype(np.float32)) if norm == "levels" else None
    stored = {None: None, "levels": rng.integers(0, 256, n).astype(np.uint8), "floats": rng.random(n, np.float32)}[norm]
    bias = rng.standard_normal(len(luts)).astype(np.float32)
    values = levels[stored] if norm == "levels" else stored
    expected = reference.scan(codes, luts, bias, k, norms=values)
    store = _store(codes, 256, stored, relabel=near_labels(list(books[:, :, None])))
    _same(store.search(luts, bias, k, norm_levels=levels), expected)
    alone = [part[2:3] for part in expected]  # a query by itself takes more superblocks at a time
    _same(store.search(luts[2:3], bias[2:3], k, norm_levels=levels), alone)


@pytest.mark.parametrize("norm", [None, "levels", "floats"])
@pytest.mark.parametrize("nearer", [0, 20_000])
@pytest.mark.parametrize("k", [1, 100])
def test_thousands_about_as_near_as_the_nearest(level, nearer, norm, k):
    # Lowest sums are then no longer scored first; from row `nearer` on they would be worth it again.
    rng = np.random.default_rng(5)
    n, M = 30_000, 8
    codes = rng.integers(0, 256, (n, M), dtype=np.uint8)
    codes[rng.random(n) < 0.3] = 7  # at distances that norms alone tell apart, or all alike
    codes[nearer::50] = rng.integers(0, 6, (len(codes[nearer::50]), M))
    luts = rng.uniform(2, 9, (3, M, 256)).astype(np.float32)
    luts[:, :, :6] = rng.uniform(0, 2, (3, M, 6))
    luts[:, :, 7] = 2
    levels = np.linspace(0, 0.5, 256, dtype=np.float32) if norm == "levels" else None
    stored = rng.integers(0, 256, n, dtype=np.uint8) if norm == "levels" else None
    stored = rng.uniform(0, 0.5, n).astype(np.float32) if norm == "floats" else stored
    bias, ids = np.zeros(3, np.float32), np.arange(n)
    expected = reference.scan(codes, luts, bias, k, norms=levels[stored] if norm == "levels" else stored, ids=ids)
    _same(_store(codes, 256, stored).search(luts, bias, k, norm_levels=levels), expected)


@pytest.mark.parametrize("spread", ["even", "graded", "one"])
@pytest.mark.parametrize("norm", [None, "levels", "floats"])
@pytest.mark.parametrize(("M", "nbits"), [(21, 8), (48, 8), (192, 8), (300, 8), (45, 4), (192, 4)])
@pytest.mark.parametrize("k", [10, 100])
def test_many_codebooks(level, M, nbits, k, norm, spread):
    # So many that their sums are taken in groups: of equal spread, from much to little, and one above all others.
    rng = np.random.default_rng([M, k])
    n, K = 3000, 2**nbits
    codes = rng.integers(0, K, (n, M), dtype=np.uint8)
    codes[::7] = codes[0]  # near one another, and in part alike
    codes[::7, : M // 8] = rng.integers(0, K, codes[::7, : M // 8].shape, dtype=np.uint8)
    luts = rng.standard_normal((3, M, K)).astype(np.float32)
    luts[:, np.arange(M), codes[0]] -= np.float32(1.5)  # near the queries too
    scale = {"even": np.ones(M), "graded": 0.9 ** np.arange(M), "one": np.where(np.arange(M) == M // 2, 30.0, 1.0)}
    luts *= scale[spread].astype(np.float32)[:, None]
    levels = np.sort(rng.random(256).astype(np.float32) * 20) if norm == "levels" else None
    stored = {None: None, "levels": rng.integers(0, 256, n).astype(np.uint8), "floats": rng.random(n, np.float32)}[norm]
    values = levels[stored] if norm == "levels" else stored
    bias = rng.standard_normal(3).astype(np.float32)
    store = _store(codes, K, stored)
    expected = reference.scan(codes, luts, bias, k, norms=values)
    _same(store.search(luts, bias, k, norm_levels=levels), expected)


@pytest.mark.parametrize("M", [2, 5, 48])
@pytest.mark.parametrize("k", [10, 700])
def test_thousands_on_the_threshold(level, M, k):
    # Rows of many superblocks come through at once, most of them as far as the k-th; the lowest ids count.
    rng = np.random.default_rng([M, k])
    n = 40_001
    codes = rng.integers(0, 256, (n, M), dtype=np.uint8)
    codes[:, 2:] = codes[:, 2:] % 7
    luts = rng.integers(0, 3, (2, M, 256)).astype(np.float32)
    luts[:, 2:, :7] = 1
    ids, bias = rng.permutation(n).astype(np.int64), np.zeros(2, np.float32)
    expected = reference.scan(codes, luts, bias, k, ids=ids)
    assert np.count_nonzero(luts[0, :2].min(1).sum() + M - 2 == expected[0][0]) == k  # all as near as can be
    _same(_store(codes, 256, ids=ids).search(luts, bias, k), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_rows_alike(level, threads, count):
    codes = np.full((20_000, 3), 7, np.uint8)
    ids = np.random.default_rng(0).permutation(20_000).astype(np.int64)
    luts, bias = np.full((2, 3, 256), 0.1, np.float32), np.zeros(2, np.float32)
    threads(count)
    distances, found = _store(codes, 256, ids=ids).search(luts, bias, 30)
    np.testing.assert_array_equal(found, np.tile(np.arange(30), (2, 1)))
    assert np.unique(distances).size == 1


@pytest.mark.parametrize("k", [1, 30])
def test_a_query_shared_by_threads(level, threads, k):
    # So many bytes of codes that one query's superblocks are shared out and merged.
    rng = np.random.default_rng(k)
    codes = rng.integers(0, 256, (100_000, 64), dtype=np.uint8)
    codes[50_000:] = codes[:50_000]  # ties across the parts
    luts, bias = rng.random((1, 64, 256)).astype(np.float32), np.ones(1, np.float32)
    expected = reference.scan(codes, luts, bias, k)
    store = _store(codes, 256)
    for count in (1, 2, 3):
        threads(count)
        _same(store.search(luts, bias, k), expected)


@pytest.mark.parametrize("nbits", [1, 2, 3, 4])
@pytest.mark.parametrize("M", [1, 2, 7, 16])
def test_codes_two_to_a_byte(level, nbits, M):
    rng = np.random.default_rng(M)
    codes = rng.integers(0, 2**nbits, (30_000, M), dtype=np.uint8)
    luts = rng.random((3, M, 2**nbits)).astype(np.float32)
    stored, bias = rng.random(30_000, np.float32), np.zeros(3, np.float32)
    store = _store(codes, 2**nbits, stored)
    row = (M + 1) // 2 + 1 + 4  # with a byte and four of the norm
    assert row * 30_000 <= store.nbytes <= row * 30_000 * 1.02
    _same(store.search(luts, bias, 20), reference.scan(codes, luts, bias, 20, norms=stored))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_refuses_nan_and_minus_infinity(level, bad):
    luts = np.zeros((2, 3, 16), np.float32)
    luts[1, 2, 5] = bad
    with pytest.raises(ValueError, match="no NaN and no -inf"):
        _store(np.zeros((600, 3), np.uint8), 16).search(luts, np.zeros(2, np.float32), 4)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_refuses_a_bias_without_meaning(level, bad):
    store, bias = _store(np.zeros((600, 3), np.uint8), 16), np.zeros(2, np.float32)
    bias[1] = bad
    with pytest.raises(ValueError, match="no NaN and no -inf"):
        store.search(np.zeros((2, 3, 16), np.float32), bias, 4)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_refuses_norms_without_meaning(bad):
    with pytest.raises(ValueError, match="norms must hold no NaN and no -inf"):
        _store(np.zeros((3, 2), np.uint8), 16, np.array([0, bad, 1], np.float32))


@pytest.mark.parametrize(
    ("relabel", "message"),
    [(np.zeros((2, 256), np.uint8), "permutations"), (np.zeros((1, 256), np.uint8), "shape")],
)
def test_refuses_labels_that_lose_codes(relabel, message):
    with pytest.raises(ValueError, match=message):
        CodeStore(2, [256, 256], relabel=relabel)


def test_refuses_codes_that_do_not_fit_two_to_a_byte():
    with pytest.raises(ValueError, match="codes must lie in"):
        _store(np.full((3, 2), 16, np.uint8), 16)


def test_refuses_codes_beyond_the_tables(level):
    store = _store(np.full((3, 2), 16, np.uint8), 17)
    with pytest.raises(ValueError, match="codes reach beyond the tables"):
        store.search(np.zeros((1, 2, 16), np.float32), np.zeros(1, np.float32), 1)


@pytest.mark.parametrize("norm", [None, "levels"])
@pytest.mark.parametrize(("M", "nbits"), [(3, 8), (16, 8), (48, 8), (7, 4), (96, 4)])
def test_queries_of_one_pass_that_differ(level, M, nbits, norm):
    # Two queries share look-ups where their filters and groups of columns are alike. Some here are twins, others have
    # tables on another scale or vary in a few columns; one can find nothing, one has nothing but +inf, and one finds
    # its nearest at once, so that no row can enter any more.
    rng = np.random.default_rng([M, nbits])
    n, K, nq, k = 9_000, 2**nbits, 20, 10
    codes = rng.integers(0, K, (n, M), dtype=np.uint8)
    codes[rng.permutation(n)[:200]] = codes[0]
    luts = rng.random((nq, M, K)).astype(np.float32)
    luts[1] = luts[0]
    luts[3] *= 1000
    luts[5, : M // 2] *= np.float32(1e-3)
    luts[6, M // 2 :] *= np.float32(1e-3)
    luts[8] = np.inf
    luts[9, np.arange(M), codes[0]] = -5
    luts[10:12, -1] *= 50
    bias = rng.standard_normal(nq).astype(np.float32)
    bias[13] = np.inf
    levels = np.sort(rng.random(256).astype(np.float32)) if norm else None
    stored = rng.integers(0, 256, n).astype(np.uint8) if norm else None
    store = _store(codes, K, stored)
    expected = reference.scan(codes, luts, bias, k, norms=levels[stored] if norm else None)
    _same(store.search(luts, bias, k, norm_levels=levels), expected)


@pytest.mark.parametrize(("M", "nbits"), [(48, 8), (96, 4)])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_rows_that_wait_to_be_scored(level, threads, M, nbits, k):
    # Over many superblocks, from one list to the next, where each list has a bias of its own.
    rng = np.random.default_rng([M, k])
    n, K, lists, nq = 24_000, 2**nbits, 3, 4
    books = np.sort(rng.standard_normal((M, K)), axis=1).astype(np.float32)
    values = rng.standard_normal((n, 1)) + 1.5 * rng.standard_normal((n, M))
    codes = np.stack([np.searchsorted(books[m, 1:], values[:, m]) for m in range(M)], 1).astype(np.uint8)
    luts = (values[rng.integers(0, n, nq), :, None].astype(np.float32) - books) ** 2
    of_list, ids = rng.integers(0, lists, n).astype(np.int32), rng.permutation(n).astype(np.int64)
    probes = np.stack([rng.permutation(lists) for _ in range(nq)]).astype(np.int32)
    biases = rng.standard_normal((nq, lists)).astype(np.float32)
    store = CodeStore(M, [K] * M, lists=lists)
    store.append(codes, None, ids, of_list)
    store.remove(gone := np.sort(rng.permutation(n)[:900]).astype(np.int64))
    there = ~np.isin(ids, gone)
    distances, found = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)
    for q in range(nq):
        parts = []
        for place, probed in enumerate(probes[q]):
            rows = there & (of_list == probed)
            parts.append(reference.scan(codes[rows], luts[q : q + 1], biases[q : q + 1, place], k, ids=ids[rows]))
        d, i = (np.concatenate([part[which][0] for part in parts]) for which in (0, 1))
        order = np.lexsort((i, d))[:k]
        distances[q], found[q] = d[order], i[order]
    for count in (1, 3):
        threads(count)
        got = store.search(luts, np.zeros(nq, np.float32), k, probes=probes, probe_bias=biases)
        _same(got, (distances, found))
        one = store.search(luts[:1], np.zeros(1, np.float32), k, probes=probes[:1], probe_bias=biases[:1])
        _same(one, (distances[:1], found[:1]))
