"""The inverted file: exact at full probe with and without residuals, and sensible everywhere below."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annvq
from annvq.errors import NotFittedError
from annvq.indexes.ivf import IVFIndex
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))


METRICS = ("l2", "ip", "cosine")


def vectors(n, dim=12, seed=0, clusters=20):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dim)) * 3
    return (centers[rng.integers(clusters, size=n)] + rng.normal(size=(n, dim))).astype(np.float32)


def fitted(kind="residual", metric="l2", *, n=900, nlist=14, residual=True, norm="auto", nbits=4, dim=12, **settings):
    x = vectors(n, dim)
    index = IVFIndex(annvq.make(kind, dim=dim, M=3, nbits=nbits), nlist, metric, norm, residual=residual, **settings)
    return index.fit(x, recipe=QUICK), x


def brute_force(index, x, ids, queries, k, lists=None):
    """Every vector scored in float32 in the contract's order, from codes, tables and centroids alone."""
    if index.metric == "cosine":
        x = (x / np.sqrt((x.astype(np.float64) ** 2).sum(1))[:, None]).astype(np.float32)
        queries = (queries / np.sqrt((queries.astype(np.float64) ** 2).sum(1))[:, None]).astype(np.float32)
    q, C = index.quantizer, index.centroids
    assigned = ((x[:, None].astype(np.float64) - C) ** 2).sum(2).argmin(1)
    length = index.coding.length
    codes = q.encode(x - C[assigned], term=length, centres=C[assigned] if length else None).astype(int)
    luts, bias = q.tables(queries, "ip")
    coarse = queries[:, None] - C if index.metric == "l2" else queries[:, None] * C
    scores = np.zeros((len(queries), len(C)), np.float32)
    for j in range(index.dim):
        scores = scores + (coarse[..., j] ** 2 if index.metric == "l2" else coarse[..., j])
    if index.metric == "l2":
        luts = luts * np.float32(2)
        r = q.decode(codes).astype(np.float64)
        norms = (r * r + 2 * r * C[assigned]).sum(1).astype(np.float32)
        if index.norm == "uint8":
            byte = index.coding.own_term
            assert byte.error_share == 0.5
            errors = np.square(x - C[assigned] - q.decode(codes)).sum(1, dtype=np.float64)
            norms = (norms + byte.error_share * errors).astype(np.float32)
            norms = byte.levels[byte.keep(codes, norms)]
            first = 0
            for m, size in enumerate(q.sizes):
                luts[:, m, :size] += byte.offsets[first : first + size]
                first += size
    else:
        if length:  # inner products over the length that all x̂ are meant to have
            luts, scores = luts * np.float32(1 / length.value), scores / np.float32(length.value)
        norms, scores = None, bias[:, None] - scores + np.float32(index.metric == "cosine")
    total = luts[:, 0, codes[:, 0]]
    for m in range(1, q.M):
        total = total + luts[:, m, codes[:, m]]
    total = (total if norms is None else total + norms) + scores[:, assigned]
    if lists is not None:
        total[~(assigned[None, :, None] == lists[:, None]).any(2)] = np.inf
    order = np.lexsort((np.broadcast_to(ids, total.shape), total))[:, :k]
    distances = np.take_along_axis(total, order, 1)
    ids = np.where(distances < np.inf, ids[order], -1)
    return np.maximum(distances, 0) if index.metric == "l2" else distances, ids


@pytest.mark.parametrize("metric", METRICS)
def test_residual_codes_are_exact(table_kind, metric):
    for norm in ["uint8", "float32"] if metric == "l2" else ["auto"]:
        index, x = fitted(table_kind, metric, norm=norm, nbits=(4, 9, 3))
        ids = np.random.default_rng(1).permutation(5000)[: len(x)]
        index.add(x[:400], ids[:400]).add(x[400:], ids[400:])
        for k in (1, 10, len(x) + 5):
            found = index.search(x[:7], k, nprobe=index.nlist)
            expected = brute_force(index, x, ids, x[:7], min(k, len(x)))
            for a, b, pad in zip(found, expected, (np.inf, -1), strict=True):
                np.testing.assert_array_equal(a[:, : len(x)], b)
                assert (a[:, len(x) :] == pad).all()


@pytest.mark.parametrize("metric", METRICS)
def test_probing_scans_the_nearest_lists_and_no_others(metric):
    index, x = fitted(metric=metric)
    index.add(x)
    ids = np.arange(len(x))
    q = index.prepared(x[:9], "queries")
    score = ((q[:, None] - index.centroids) ** 2).sum(2) if metric == "l2" else -(q @ index.centroids.T)
    for nprobe in (1, 3, 14):
        lists = np.argsort(score, axis=1)[:, :nprobe]
        expected = brute_force(index, x, ids, x[:9], 20, lists)
        for a, b in zip(index.search(x[:9], 20, nprobe=nprobe), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["product", "residual"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_are_those_to_what_is_reconstructed(kind, offset):
    x = vectors(800) + np.float32(offset)
    index = IVFIndex(annvq.make(kind, dim=12, M=3, nbits=4), 10, norm="float32", residual=True)
    index.fit(x, recipe=QUICK).add(x)
    distances, ids = index.search(x[:5], 30, nprobe=10)
    for q, row, found in zip(x[:5], distances, ids, strict=True):
        true = ((index.reconstruct(found).astype(np.float64) - q) ** 2).sum(1)
        np.testing.assert_allclose(row, true, atol=max(1e-3, 2e-3 * abs(offset)) * 10)


def test_residual_codes_need_fewer_bits_for_the_same_error():
    errors = {}
    for residual in (True, False):
        index, x = fitted("product", residual=residual, n=1500)
        errors[residual] = ((index.add(x).reconstruct(np.arange(len(x))) - x) ** 2).sum()
    assert errors[True] < 0.8 * errors[False]


def test_what_is_charged():
    cases = [
        ("product", "l2", 12, 20),
        ("product", "ip", 12, 12),
        ("residual", "l2", 20, 20),
        ("residual", "ip", 12, 12),
    ]
    for kind, metric, plain, residual in cases:
        q = annvq.make(kind, dim=12, M=3, nbits=4)
        assert IVFIndex(q, 4, metric, residual=False).bits_per_vector == plain
        assert IVFIndex(q, 4, metric, residual=True).bits_per_vector == residual
        auto = IVFIndex(q, 4, metric)
        assert auto.bits_per_vector == plain
        assert auto.residual == (plain == residual)
    done = annvq.make("residual", dim=12, M=3, nbits=4).fit(vectors(300), recipe=QUICK)
    assert not IVFIndex(done, 4).residual


def test_training_is_deterministic():
    a, b = (fitted("product")[0] for _ in range(2))
    np.testing.assert_array_equal(a.centroids, b.centroids)
    np.testing.assert_array_equal(a.quantizer.codebooks_copy(), b.quantizer.codebooks_copy())
    assert a.nprobe == b.nprobe


def test_batches_do_not_matter():
    index, x = fitted()
    index.add(x)
    together = index.search(x[:60], 6)
    for i in range(60):
        for a, b in zip(together, index.search(x[i : i + 1], 6), strict=True):
            np.testing.assert_array_equal(a[i], b[0])


def test_default_nprobe_reaches_its_target():
    x = vectors(6000, clusters=300)
    base, queries = x[1000:], x[:200]
    index = IVFIndex(annvq.make("product", dim=12, M=3, nbits=4), 60, recall_target=0.9).fit(base, recipe=QUICK)
    assert 1 < index.nprobe < 40
    assert index.nprobe_for(0.5) <= index.nprobe <= index.nprobe_for(1.0)
    lists = index.coarse.assign(base)
    nearest = np.argsort(((queries[:, None] - base) ** 2).sum(2), axis=1)[:, :10]
    probed = index.coarse.probe(queries, index.nprobe)[0]
    assert (lists[nearest][:, :, None] == probed[:, None]).any(2).mean() == pytest.approx(0.9, abs=0.06)
    index.add(base).tune(queries[:100], recall=0.99)
    full = index.search(queries[100:], 10, nprobe=index.nlist)[1]
    some = index.search(queries[100:], 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(full, some, strict=True)]) > 0.95
    assert IVFIndex(index.quantizer, 60, nprobe=7).set_centroids(index.centroids).nprobe == 7


def test_narrow_filters_probe_more_lists_and_keep_recall():
    x = vectors(8000, clusters=400)
    index = IVFIndex(annvq.make("residual", dim=12, M=3, nbits=6), 100, nprobe=8)
    index.fit(x, recipe=QUICK).add(x)
    rng = np.random.default_rng(0)
    for share in (0.5, 0.1, 0.01, 0.001):
        allowed = np.flatnonzero(rng.random(len(x)) < share)
        k = min(5, len(allowed))
        full = index.search(x[:50], k, nprobe=100, filter=allowed)[1]
        found = index.search(x[:50], k, filter=allowed)[1]
        assert np.isin(found, [*allowed, -1]).all()
        assert np.mean([len(set(a) & set(b)) / k for a, b in zip(full, found, strict=True)]) > 0.9


def test_filters_of_every_form_agree():
    index, x = fitted()
    index.add(x, np.arange(len(x)) * 2)
    wanted = np.arange(0, 600, 6)
    bitmap = np.zeros(700, bool)
    bitmap[wanted] = True
    seen = []

    def divisible(ids):
        seen.append(ids)
        return (ids % 6 == 0) & (ids < 600)

    results = [index.search(x[:5], 8, filter=f, nprobe=14) for f in (wanted, wanted[::-1], bitmap, divisible)]
    assert len(seen) == 1
    np.testing.assert_array_equal(np.sort(seen[0]), np.arange(len(x)) * 2)
    for d, i in results[1:]:
        np.testing.assert_array_equal(d, results[0][0])
        np.testing.assert_array_equal(i, results[0][1])
    for bad in (lambda ids: ids, lambda ids: np.ones(3, bool), np.ones((2, 2), bool), np.array([0.5])):
        with pytest.raises((ValueError, TypeError), match="filter"):
            index.search(x[:5], 8, filter=bad)


def test_upsert_and_remove():
    index, x = fitted()
    index.add(x[:100])
    assert index.upsert(x[200:210], np.arange(95, 105)) is index
    assert len(index) == 105
    fresh = IVFIndex.load(save(index, "a"))
    again, _ = fitted()
    again.add(np.concatenate([x[:95], x[200:210]]))
    for one in (index, fresh):
        for a, b in zip(again.search(x[:9], 40, nprobe=14), one.search(x[:9], 40, nprobe=14), strict=True):
            np.testing.assert_array_equal(a, b)
    index.add(x[:1])
    assert index.search(x[:1], 106, nprobe=14)[1].max() == 105
    with pytest.raises(ValueError, match=r"differ.*\[3\]"):
        index.upsert(x[:2], np.array([3, 3]))
    assert index.remove(np.arange(106)) == 106
    assert len(index) == 0
    assert (index.search(x[:2], 3)[1] == -1).all()
    assert index.list_sizes.sum() == 0


def save(index, name):
    index.save(name)
    return name


@pytest.mark.parametrize("kind", ["product", "residual"])
@pytest.mark.parametrize("norm", ["uint8", "float32"])
def test_files(kind, norm):
    index, x = fitted(kind, norm=norm, recall_target=0.7)
    index.add(x[:333], np.arange(333) * 2 + 1)
    index.remove(np.arange(1, 40, 2))
    loaded = annvq.load_index(save(index, "i"))
    assert (loaded.nprobe, loaded.nlist, loaded.residual) == (index.nprobe, 14, True)
    np.testing.assert_array_equal(loaded.list_sizes, index.list_sizes)
    for a, b in zip(index.search(x[:5], 50), loaded.search(x[:5], 50), strict=True):
        np.testing.assert_array_equal(a, b)
    loaded.add(x[333:])
    assert len(loaded) == len(x) - 20


@pytest.mark.parametrize("kind", ["product", "residual", "additive"])
def test_codes_of_uneven_vectors_are_chosen_with_their_byte_in_mind(kind):
    x = vectors(900)
    x += np.random.default_rng(3).gamma(1.0, 300.0, size=(len(x), 1)).astype(np.float32)
    index = IVFIndex(annvq.make(kind, dim=12, M=3, nbits=4), 5, residual=True).fit(x, recipe=QUICK)
    assert index.coding.own_term.weighed or kind == "product"
    index.coding.own_term = byte = replace(index.coding.own_term, weight=1.0)
    lists, targets = index.coding.targets(x)

    def objective(codes):
        rest = index.quantizer.decode(codes).astype(np.float64)
        errors = np.square(targets - rest).sum(1)
        value = (rest * (rest + 2 * index.centroids[lists])).sum(1) + 0.5 * errors
        off = byte.values(codes, byte.keep(codes, value.astype(np.float32))).astype(np.float64) - value
        return errors + np.abs(off)

    index.add(x)
    codes, bytes, _ = index._store.rows(np.arange(len(x)))
    plain, chosen = objective(index.quantizer.encode(targets)), objective(codes)
    assert (chosen <= plain * (1 + 1e-4) + 0.05).all()
    assert np.median(chosen) < np.median(plain)
    np.testing.assert_array_equal(bytes, index.coding.encoded_as(targets, codes, lists).norms)
    loaded = annvq.load_index(save(index, "i"))
    assert loaded.coding.own_term.weighed
    for a, b in zip(loaded.add(x, np.arange(900, 1800)).search(x[:9], 8), index.add(x).search(x[:9], 8), strict=True):
        np.testing.assert_array_equal(a, b)


def test_untrained_index_survives_a_file():
    index = IVFIndex(annvq.make("residual", dim=12, M=3, nbits=4), 14)
    loaded = annvq.load_index(save(index, "i"))
    x = vectors(900)
    assert loaded.residual
    assert loaded.fit(x, recipe=QUICK).add(x).search(x[:1], 1)[1].shape == (1, 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5), st.integers(1, 40), st.integers(1, 9), st.integers(0, 10**6))
def test_few_vectors_many_lists(kinds, n, k, seed):
    rng = np.random.default_rng(seed)
    kind = ("product", "residual", "additive")[kinds % 3]
    index = cached_index(kind)
    index.remove(index.search(np.zeros((1, 12), np.float32), max(1, len(index)), nprobe=14)[1][0][: len(index)])
    x = vectors(n, seed=seed)[rng.integers(n, size=n)]  # duplicates
    ids = rng.permutation(1000)[:n]
    index.add(x, ids)
    expected = brute_force(index, x, ids, x[:3], min(k, n))
    for a, b in zip(index.search(x[:3], k, nprobe=14), expected, strict=True):
        np.testing.assert_array_equal(a[:, :n], b)


_CACHE = {}


def cached_index(kind):
    if kind not in _CACHE:
        _CACHE[kind] = fitted(kind)[0]
    return _CACHE[kind]


def test_fewer_rows_than_lists():
    x = np.repeat(vectors(30), 20, 0)
    index = IVFIndex(annvq.make("residual", dim=12, M=2, nbits=3), 100).fit(x, recipe=QUICK)
    assert index.nlist <= 30
    index.add(x)
    assert index.search(x[:1], 20)[0].shape == (1, 20)


def test_searching_while_another_thread_adds():
    index, x = fitted()
    index.add(x[:100])
    fixed = index.search(x[:4], 100, nprobe=14, filter=np.arange(100))
    failures = []

    def look():
        try:
            for _ in range(50):
                found = index.search(x[:4], 100, nprobe=14, filter=np.arange(100))
                np.testing.assert_array_equal(found[0], fixed[0])
        except Exception as e:
            failures.append(e)

    thread = threading.Thread(target=look)
    thread.start()
    for i in range(100, 900, 20):
        index.add(x[i : i + 20])
        if i % 60 == 40:
            index.remove(np.arange(i, i + 10))
    thread.join()
    assert not failures


def test_searching_while_another_thread_resets():
    index, x = fitted()
    index.add(x)
    full = index.search(x[:4], 9, nprobe=14)[1]
    failures = []

    def look():
        try:
            for _ in range(60):
                for found in (index.search(x[:4], 9, nprobe=14)[1], index.search(x[:4], 9)[1]):
                    assert np.isin(found, np.arange(-1, len(x))).all()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        index.reset().add(x)
    for thread in threads:
        thread.join()
    assert not failures
    np.testing.assert_array_equal(index.search(x[:4], 9, nprobe=14)[1], full)


def test_refusals():
    q = annvq.make("residual", dim=12, M=3, nbits=4)
    index, x = fitted()
    index.add(x[:50])
    cases = [
        (lambda: IVFIndex(q, 0), ValueError, "nlist must be in"),
        (lambda: IVFIndex(q, 4, nprobe=5), ValueError, "nprobe must be in 1..4"),
        (lambda: IVFIndex(q, 4, residual="yes"), ValueError, "residual must be"),
        (lambda: IVFIndex(q, 4, recall_target=1.5), ValueError, "recall_target must lie"),
        (lambda: IVFIndex(q, 4, recall_target="high"), TypeError, "recall_target must be a number"),
        (lambda: IVFIndex(q, 4, norm=None, residual=True), ValueError, "norm must not be None"),
        (lambda: IVFIndex(q, 4, "ip", norm="uint8"), ValueError, "would never be read"),
        (lambda: IVFIndex("residual", 4), TypeError, "quantizer must be"),
        (lambda: IVFIndex(q, 4).add(x), NotFittedError, "IVFIndex.fit"),
        (lambda: IVFIndex(q, 4).nprobe, NotFittedError, "fit"),
        (lambda: IVFIndex(q, 4).fit(x[:0]), ValueError, "at least one row"),
        (lambda: index.search(x[:1], 3, nprobe=15), ValueError, "nprobe must be in 1..14, got 15"),
        (lambda: index.search(x[:1], 3, nprobe=0), ValueError, "nprobe"),
        (lambda: index.search(x[:1], 3, nprobe=1.5), TypeError, "nprobe must be an integer"),
        (lambda: index.set_centroids(x[:4]), ValueError, "before vectors are added"),
        (lambda: IVFIndex(q, 4).set_centroids(x[:4, :5]), ValueError, "centroids must be float32"),
        (lambda: IVFIndex(q, 4).set_centroids(x[:0]), ValueError, "between 1 and"),
        (lambda: index.nprobe_for(0), ValueError, "recall must lie"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
