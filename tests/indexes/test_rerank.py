"""Re-ranking: exact distances to raw vectors and finer codes, in one order of summation, whatever keeps them."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import annvq
from annvq import FlatIndex, IVFIndex, RerankIndex
from annvq.errors import FormatError, NotFittedError
from annvq.kernels import _native, available_levels, set_simd_level, simd_level
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))
DTYPES = ("float32", "float16", "uint8", "int8")


def vectors(n, dim=20, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(15, dim)) * 30
    x = centers[rng.integers(15, size=n)] + rng.normal(size=(n, dim)) * 10
    return np.clip(np.rint(x), -120, 120).astype(np.float32)


def fitted(kind="residual", dim=20, M=2, x=None, **config):
    return annvq.make(kind, dim=dim, M=M, nbits=4, **config).fit(vectors(500, dim) if x is None else x, recipe=QUICK)


def lanes(terms):
    """Sums over the last axis: sixteen partial sums, folded in halves."""
    out = np.zeros((*terms.shape[:-1], 16), np.float32)
    for j in range(0, terms.shape[-1], 16):
        part = terms[..., j : j + 16].astype(np.float32)
        out[..., : part.shape[-1]] += part
    for half in (8, 4, 2, 1):
        out = out[..., :half] + out[..., half:]
    return out[..., 0]


def distances_to(q, x, metric):
    """(nq, n) of float32 queries (normalised under cosine) and vectors."""
    if metric == "l2":
        return lanes((q[:, None] - x[None]) ** 2)
    products = lanes(q[:, None] * x[None])
    if metric == "ip":
        return -products
    return np.float32(1) - (products if metric == "unit" else products / np.sqrt(lanes((x * x)[None])))


def ordered(scores, ids, k):
    order = np.lexsort((np.broadcast_to(ids, scores.shape), scores))[:, :k]
    return np.take_along_axis(scores, order, 1), ids[order]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.sampled_from(DTYPES),
    st.sampled_from(["l2", "ip", "cosine", "unit"]),
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(0, 10**6),
)
def test_distances_equal_the_reference_at_every_level(dim, dtype, metric, n, k, seed):
    rng = np.random.default_rng(seed)
    low = 0 if dtype == "uint8" else -120
    x = rng.integers(low, 120, size=(n, dim)).astype(dtype)
    if dtype in ("float16", "float32"):
        x = (x * np.exp2(rng.integers(-20, 6, size=(n, 1)))).astype(dtype)
    x[(x == 0).all(1), 0] = 1
    q = rng.normal(size=(3, dim)).astype(np.float32)
    ids = rng.permutation(1000)[:n]
    store = _native.RowStore(x.itemsize * dim)
    store.append(ids, x.view(np.uint8).reshape(n, -1))
    asked = np.concatenate([np.tile(ids, (3, 1)), np.full((3, 2), -1), np.full((3, 1), 2000)], axis=1)
    expected = ordered(distances_to(q, x.astype(np.float32), metric), ids, k)
    by_row = ordered(distances_to(q, x.astype(np.float32), metric), np.arange(n), k)
    current = simd_level()
    try:
        for level in available_levels():
            set_simd_level(level)
            found = _native.rerank_rows(store, dtype, q, asked, k, metric, 1)
            for a, b, pad in zip(found, expected, (np.inf, -1), strict=True):
                np.testing.assert_array_equal(a[:, :n], b)
                assert (a[:, n:] == pad).all()
            rows = np.tile(np.arange(n), (3, 1))
            wide = np.zeros((n, dim + 5), dtype)
            wide[:, :dim] = x
            for a, b in zip(_native.rerank_array(wide[:, :dim], dtype, q, rows, k, metric, 2), by_row, strict=True):
                np.testing.assert_array_equal(a[:, :n], b)
    finally:
        set_simd_level(current)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([1, 8, 16]),
    st.sampled_from([0, 8, 16]),
    st.sampled_from(["l2", "ip", "unit"]),
    st.integers(0, 10**6),
)
def test_product_codes_equal_the_reference_at_every_level(blocks, width, scanned, metric, seed):
    rng = np.random.default_rng(seed)
    dim, n, k = 16 * blocks, 30, 12
    x, parts = np.zeros((n, dim), np.float32), []
    for w in (scanned, width) if scanned else (width,):
        books = rng.normal(size=(dim // w, 256, w)).astype(np.float32)
        codes = rng.integers(0, 256, (n, dim // w)).astype(np.uint8)
        x += books[np.arange(dim // w), codes].reshape(n, dim)
        sizes, starts = np.full(dim // w, 256, np.int32), np.arange(0, dim, w, dtype=np.int32)
        parts.append((_native.SumBooks(books.reshape(-1, w), sizes, starts, dim, False), codes))
    (fine, codes), (coarse, coarse_codes) = parts[-1], parts[0] if scanned else (None, np.empty((0, 1), np.uint8))
    store, ids = _native.RowStore(dim // width), rng.permutation(1000)[:n]
    store.append(ids, codes)
    q = rng.normal(size=(3, dim)).astype(np.float32)
    expected = ordered(distances_to(q, x, metric), ids, k)
    given = coarse, np.tile(coarse_codes, (3, 1)), np.empty((0, 1), np.float32), np.empty(0, np.int32)
    current = simd_level()
    try:
        for level in available_levels():
            set_simd_level(level)
            found = _native.rerank_codes(store, fine, q, np.tile(ids, (3, 1)), k, metric, *given, 1)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=level)
    finally:
        set_simd_level(current)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("arux"), st.integers(0, 30), st.integers(1, 8)), max_size=25))
def test_rows_are_those_of_a_dictionary(steps):
    store, held = _native.RowStore(6), {}
    for count, (what, first, n) in enumerate(steps):
        ids = np.arange(first, first + n)
        rows = (np.arange(n * 6).reshape(n, 6) + count).astype(np.uint8)
        if what == "r":
            assert store.remove(ids) == sum(held.pop(i, None) is not None for i in ids.tolist())
        elif what == "a" and any(i in held for i in ids.tolist()):
            with pytest.raises(ValueError, match="already stored"):
                store.append(ids, rows)
        elif what == "x" and not held and len(store.export()[0]) == 0 and count == 0:
            store.adopt(ids, rows)
            held.update(zip(ids.tolist(), rows, strict=True))
        else:
            store.append(ids, rows, True)
            held.update(zip(ids.tolist(), rows, strict=True))
        assert len(store) == len(held)
    ids, rows = store.export()
    assert ids.tolist() == sorted(held)
    for i, row in zip(ids.tolist(), rows, strict=True):
        np.testing.assert_array_equal(row, held[i])
    np.testing.assert_array_equal(store.get(ids), rows)
    with pytest.raises(ValueError, match="not there"):
        store.get(np.array([99]))


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_vectors_in_memory(dtype, metric):
    x = vectors(500)
    x = np.abs(x) + 1 if dtype == "uint8" else x
    kept = x.astype(dtype).astype(np.float32)
    index = RerankIndex(IVFIndex(fitted(), 6, metric), dtype, shortlist=60).fit(x)
    ids = np.random.default_rng(0).permutation(3000)[:500]
    index.add(x[:300], ids[:300]).add(x[300:], ids[300:])
    assert index.refine_bits_per_vector == 20 * 8 * np.dtype(dtype).itemsize
    queries = x[:6] + np.float32(0.25)
    scanned = index.index.search(queries, 60, nprobe=6)[1]
    q = index.prepared(queries, "queries")
    found = index.search(queries, 7, nprobe=6)
    for row in range(6):
        at = np.array([np.flatnonzero(ids == i)[0] for i in scanned[row]])
        expected = ordered(distances_to(q[row : row + 1], kept[at], metric), scanned[row], 7)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a[row], b[0])


def test_whole_numbers_only_where_they_fit():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "uint8").fit(x)
    for bad in (np.full((2, 20), 0.5), np.full((2, 20), -1), np.full((2, 20), 256)):
        with pytest.raises(ValueError, match=r"whole numbers that uint8 holds.*row 1"):
            index.add(np.concatenate([np.ones((1, 20)), bad]).astype(np.float32))
    with pytest.raises(ValueError, match="finite in float16"):
        RerankIndex(FlatIndex(fitted()), "float16").fit(x).add(np.full((1, 20), 1e5, np.float32))
    assert len(index) == 0
    assert index.add(np.abs(x).astype(np.uint8)).search(np.abs(x[:1]), 1)[0][0, 0] == 0


@pytest.mark.parametrize("kind", ["npy", "bvecs", "array"])
def test_vectors_on_disk(kind, tmp_path):
    x = np.abs(vectors(400)).astype(np.uint8)
    path = tmp_path / f"base.{kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "bvecs":
        np.hstack([np.full((400, 1), 20, "<i4").view(np.uint8), x]).tofile(path)
    outside = x if kind == "array" else annvq.datasets.load_vectors(path)
    index = RerankIndex(FlatIndex(fitted(x=x)), outside, shortlist=50).add(x[:350])
    inside = RerankIndex(FlatIndex(index.quantizer), "uint8", shortlist=50).add(x[:350])
    assert index.bits_per_vector == inside.bits_per_vector
    for a, b in zip(index.search(x[:9], 5), inside.search(x[:9], 5), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="row numbers of the 400 vectors"):
        index.add(x[:1], np.array([400]))
    index.save("i")
    loaded = annvq.load_index("i")
    if kind == "array":
        with pytest.raises(ValueError, match=r"attach\(vectors\)"):
            loaded.search(x[:9], 5)
        with pytest.raises(ValueError, match="a row for each id"):
            loaded.attach(x[:349])
        with pytest.raises(ValueError, match="must be uint8"):
            loaded.attach(x.astype(np.float32))
        loaded.attach(x)
    np.testing.assert_array_equal(loaded.search(x[:9], 5)[1], inside.search(x[:9], 5)[1])
    if kind == "npy":
        path.write_bytes(b"something else")
        with pytest.raises(ValueError, match="does not hold the vectors"):
            annvq.load_index("i").search(x[:9], 5)
    with pytest.raises(ValueError, match="nothing to attach"):
        inside.attach(x)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("refines", ["vectors", "rest", "stages"])
@pytest.mark.parametrize("lists", [0, 6])
def test_finer_codes(refines, metric, lists):
    x = vectors(700)
    head = annvq.make("residual", dim=20, M=2, nbits=4)
    fine = annvq.make("residual" if refines == "stages" else "product", dim=20, M=5, nbits=4)
    scanned = IVFIndex(head, lists, metric, residual=True) if lists else FlatIndex(head, metric)
    index = RerankIndex(scanned, fine, refines=refines, shortlist=80).fit(x, recipe=QUICK)
    index.add(x, np.arange(700) * 2)
    norm = 8 if metric == "l2" else 0
    assert (index.scan_bits_per_vector, index.refine_bits_per_vector) == (8 + norm, 12 if refines == "stages" else 20)
    unit = index.prepared(x, "x")
    approximation = index.reconstruct(np.arange(700) * 2)
    rough = ((scanned.reconstruct(np.arange(700) * 2) - unit) ** 2).sum()
    assert refines == "vectors" or ((approximation - unit) ** 2).sum() < 0.75 * rough
    queries = x[:5] + np.float32(0.5)
    settings = {"nprobe": lists} if lists else {}
    candidates = scanned.search(queries, 80, **settings)[1]
    q = index.prepared(queries, "queries")
    found = index.search(queries, 9, **settings)
    for row in range(5):
        xhat = approximation[candidates[row] // 2]
        scores = distances_to(q[row : row + 1], xhat, "unit" if metric == "cosine" else metric)
        for a, b in zip(found, ordered(scores, candidates[row], 9), strict=True):
            np.testing.assert_array_equal(a[row], b[0])
    index.save("i")
    for a, b in zip(annvq.load_index("i").search(queries, 9, **settings), found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stages_are_found_together():
    x = vectors(600)
    whole = fitted("residual", M=5, x=x, beam=8)
    head = annvq.make("residual", dim=20, M=2, nbits=4)
    index = RerankIndex(FlatIndex(head), whole, refines="stages").fit(x).add(x)
    np.testing.assert_array_equal(head.codebooks_copy(), whole.codebooks_copy()[:32])
    np.testing.assert_allclose(index.reconstruct(np.arange(600)), whole.decode(whole.encode(x)), atol=1e-3)
    other = fitted("residual", x=x[:300])
    for bad in (fitted("product", M=5, x=x), fitted("residual", M=2, x=x), whole):
        with pytest.raises(ValueError, match=r"first ones of refine|needs a residual or additive"):
            RerankIndex(FlatIndex(other), bad, refines="stages")


def test_shortlists_by_recall_target():
    x = vectors(3000)
    index = RerankIndex(FlatIndex(fitted(x=x)), "float32", recall_target=0.8).fit(x[:2000]).add(x[:2000])
    queries = x[2000:]
    true = np.argsort(((queries[:, None] - x[None, :2000]) ** 2).sum(2), axis=1)[:, :10]

    def recall(found):
        return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)])

    assert 10 < index.shortlist < 1000
    assert recall(index.search(queries, 10)[1]) == pytest.approx(0.8, abs=0.08)
    low = index.shortlist
    index.tune(queries[:200], recall=0.97)
    assert index.shortlist > low
    assert recall(index.search(queries, 10)[1]) == pytest.approx(0.97, abs=0.03)
    assert index.search(queries[:2], 100)[1].shape == (2, 100)
    assert RerankIndex(FlatIndex(fitted()), shortlist=33).shortlist == 33


def test_updates():
    x = vectors(400)
    index = RerankIndex(IVFIndex(fitted(), 5), "float32", shortlist=400).fit(x).add(x[:200])
    index.upsert(x[300:320], np.arange(190, 210))
    assert len(index) == 210
    assert index.remove(np.arange(0, 100)) == 100
    index.add(x[:30])
    for row, i in ((305, 195), (0, 210), (150, 150)):
        d, found = index.search(x[row : row + 1], 3, nprobe=5)
        assert d[0, 0] == 0
        assert i in found[0]
    np.testing.assert_array_equal(index.reconstruct(np.array([195, 212])), x[[305, 2]])
    for ids in ([150, 150], [5]):
        with pytest.raises(ValueError):
            index.remove(np.array(ids))
    assert len(index) == 140
    allowed = np.array([150, 195, 7000])
    assert set(index.search(x[:1], 5, nprobe=5, filter=allowed)[1][0]) == {150, 195, -1}
    index.save("i")
    loaded = annvq.load_index("i", mmap=True)
    for change in (index, loaded):
        change.remove(np.array([150]))
        change.upsert(x[:2], np.array([195, 9000]))
    for a, b in zip(index.search(x[:9], 40, nprobe=5), loaded.search(x[:9], 40, nprobe=5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_refused_changes_change_nothing():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "float32", shortlist=300).fit(x).add(x[:100])
    before = index.search(x[:3], 100)
    bad = x[:2].copy()
    bad[1, 0] = np.nan
    for use in (
        lambda: index.add(bad),
        lambda: index.add(x[:2], np.array([1, 500])),
        lambda: index.upsert(bad, np.array([1, 2])),
        lambda: index.upsert(x[:2], np.array([1, 1])),
        lambda: index.remove(np.array([1, 500])),
    ):
        with pytest.raises(ValueError):
            use()
    for a, b in zip(before, index.search(x[:3], 100), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(index.refinement.store) == 100


def test_searching_while_another_thread_changes():
    x = vectors(600)
    head, fine = annvq.make("residual", dim=20, M=2, nbits=4), annvq.make("product", dim=20, M=5, nbits=4)
    index = RerankIndex(IVFIndex(head, 5, residual=True), fine, shortlist=100).fit(x, recipe=QUICK).add(x[:200])
    fixed = index.search(x[:4], 20, nprobe=5, filter=np.arange(100))
    failures = []

    def look():
        try:
            for _ in range(60):
                found = index.search(x[:4], 20, nprobe=5, filter=np.arange(100))
                np.testing.assert_array_equal(found[1], fixed[1])
                index.search(x[:4], 20, nprobe=5)
        except Exception as e:
            failures.append(e)

    thread = threading.Thread(target=look)
    thread.start()
    for i in range(200, 600, 20):
        index.add(x[i : i + 20])
        index.remove(np.arange(i - 60, i - 50))
        index.upsert(x[:10], np.arange(i, i + 10))
    thread.join()
    assert not failures


def test_files_that_do_not_fit_are_refused():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "float16").fit(x).add(x)
    config, tensors = index._to_stored()
    header = {"metric": "l2", "norm": "uint8", **config}
    wrong = [
        ({}, {"refine.rows": tensors["refine.rows"][:, :5]}),
        ({}, {"refine.ids": tensors["refine.ids"][::2]}),
        ({}, {"refine.held": np.full((2, 20), np.nan, np.float32)}),
        ({}, {"refine.extra": tensors["refine.ids"]}),
        ({"refine": {"kind": "pickle"}}, {}),
        ({"refine": {"kind": "raw", "dtype": "float64"}}, {}),
        ({"index": {**config["index"], "kind": "rerank"}}, {}),
        ({"shortlist": "many"}, {}),
    ]
    for change, more in wrong:
        with pytest.raises((ValueError, TypeError, KeyError)):
            RerankIndex._from_stored(index.quantizer, {**header, **change}, {**tensors, **more}, mapped=False)
    RerankIndex._from_stored(index.quantizer, header, dict(tensors), mapped=False)


def test_damaged_finer_codes_stay_inside_the_codebooks():
    x = vectors(300)
    q = fitted("product", M=5, x=x)
    index = RerankIndex(FlatIndex(fitted()), q, shortlist=300).fit(x).add(x)
    index.save("i")
    data = bytearray(Path("i").read_bytes())
    at = data.find(index.refinement.store.export()[1].tobytes())
    data[at : at + 40] = b"\xff" * 40
    Path("bad").write_bytes(data)
    with pytest.raises(FormatError, match=r"refine\.rows"):
        annvq.load_index("bad")
    loaded = annvq.load_index("bad", mmap=True)
    assert np.isfinite(loaded.search(x[:3], 300)[0]).all()


def test_refusals():
    x = vectors(300)
    q = fitted()
    index = RerankIndex(FlatIndex(q)).fit(x).add(x)
    cases = [
        (lambda: RerankIndex(q), TypeError, "index must be a flat index or inverted lists"),
        (lambda: RerankIndex(FlatIndex(q).add(x)), ValueError, "must be empty"),
        (lambda: RerankIndex(FlatIndex(q), "float64"), ValueError, "refine must be one of float32"),
        (lambda: RerankIndex(FlatIndex(q), [[1.0]]), TypeError, "refine must be a NumPy array"),
        (lambda: RerankIndex(FlatIndex(q), x[:, :9]), ValueError, "refine must be float32 of shape"),
        (lambda: RerankIndex(FlatIndex(q), x.astype(np.float64)), TypeError, "refine must hold"),
        (lambda: RerankIndex(FlatIndex(q), np.asfortranarray(x)), ValueError, "side by side"),
        (lambda: RerankIndex(FlatIndex(q), "float32", refines="rest"), ValueError, "refine is no quantizer"),
        (lambda: RerankIndex(FlatIndex(q), q, refines="all"), ValueError, "refines must be"),
        (lambda: RerankIndex(FlatIndex(q), annvq.make("product", dim=8, M=2)), ValueError, "of dimension 20"),
        (lambda: RerankIndex(FlatIndex(q), shortlist=0), ValueError, "shortlist"),
        (lambda: RerankIndex(FlatIndex(q), recall_target=0), ValueError, "recall_target"),
        (lambda: RerankIndex(FlatIndex(annvq.make("product", dim=20, M=2))).add(x), NotFittedError, "fit"),
        (lambda: RerankIndex(FlatIndex(q), annvq.make("product", dim=20, M=2)).add(x), NotFittedError, "fit"),
        (lambda: index.search(x[:1], 5, shortlist=4), ValueError, "shortlist must be"),
        (lambda: index.search(x[:1], 5, nprobe=4), ValueError, "nprobe must be None where a FlatIndex"),
        (lambda: index.tune(x[:0]), ValueError, "at least one row"),
        (lambda: index.reconstruct(np.array([300])), ValueError, "not there"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
