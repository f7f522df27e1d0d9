"""Re-ranking by what the scanned code stands for: against float64 over reconstructed vectors."""

import numpy as np
import pytest

import annvq
from annvq.indexes.lost import learned_share
from annvq.training import KMeans, Recipe


def vectors(n, seed):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(12, 12))
    return (rng.normal(size=(n, 12)) @ mix + 2).astype(np.float32)


def made(kind, index, metric, quick):
    q = annvq.make(kind, dim=12, M=3, nbits=4)
    x = vectors(700, 0)
    if index == "flat":
        q.fit(x if metric != "cosine" else x / np.linalg.norm(x, axis=1, keepdims=True), recipe=quick(kind))
        inner = annvq.FlatIndex(q, metric=metric)
    else:
        inner = annvq.IVFIndex(q, 5, metric=metric, residual=True, nprobe=5)
    recipe = quick(kind) or Recipe((KMeans(4),))
    return annvq.RerankIndex(inner, "decoded", shortlist=10_000).fit(x, recipe=recipe)


def expected(metric, queries, xhat, share=None, length=1.0):
    q, x = queries.astype(np.float64), xhat.astype(np.float64)
    if metric == "l2":
        return np.square(q[:, None] - x).sum(2)
    if metric == "ip":
        lost = np.linalg.norm(q, axis=1)[:, None] * (length**2 - np.square(x).sum(1)) / length
        return -q @ x.T - (share or 0) * lost
    if share is not None:
        unit = q / np.linalg.norm(q, axis=1, keepdims=True)
        return 1 - (unit @ x.T + share * (1 - np.square(x).sum(1)))
    return 1 - (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (x / np.linalg.norm(x, axis=1, keepdims=True)).T


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("index", ["flat", "lists"])
@pytest.mark.parametrize("kind", ["additive", "conditional", "product"])
def test_distances_are_those_to_decoded_vectors(kind, index, metric, quick):
    built = made(kind, index, metric, quick)
    x, queries = vectors(300, 1), vectors(20, 2)
    ids = np.arange(300)[::-1] * 3
    built.add(x, ids)
    built.remove(ids[:50])
    left = np.sort(ids[50:])
    assert built.refinement.error_share is None or metric != "l2"
    if metric != "l2":
        built.refinement.error_share = 0.3 if index == "lists" else None
        built.refinement.length = 7.0 if metric == "ip" and index == "lists" else 1.0
    right = expected(metric, queries, built.reconstruct(left), built.refinement.error_share, built.refinement.length)
    if kind == "conditional" and metric == "l2":  # the error that is expected of a code
        stored = built.index.rows_where_stored(left)[0]
        right += built.coder.decode_with_errors(np.ascontiguousarray(stored.codes))[1]
    distances, found = built.search(queries, 12)
    order = np.argsort(right, axis=1)[:, :12]
    np.testing.assert_allclose(distances, np.take_along_axis(right, order, 1), rtol=1e-4, atol=1e-4)
    at = np.searchsorted(left, found)
    np.testing.assert_array_equal(left[at], found)
    np.testing.assert_allclose(distances, np.take_along_axis(right, at, 1), rtol=1e-4, atol=1e-4)
    again = annvq.load_index(built.to_bytes())
    for one, other in zip(again.search(queries, 12), (distances, found), strict=True):
        np.testing.assert_array_equal(one, other)
    for row in range(3):  # one query at a time gives the same
        np.testing.assert_array_equal(built.search(queries[row : row + 1], 12)[1][0], found[row])


def test_it_stores_nothing_beyond_the_code(quick):
    built = made("conditional", "flat", "l2", quick)
    built.add(vectors(300, 1))
    assert built.bits_per_vector == built.index.bits_per_vector == 12 + 8
    assert built.refine_bits_per_vector == 0


def test_equal_vectors_come_in_the_order_of_their_ids(quick):
    built = made("additive", "flat", "l2", quick)
    one = vectors(1, 4)
    built.add(np.repeat(one, 6, axis=0), np.array([50, 4, 9, 31, 2, 77]))
    assert built.search(one, 6)[1].tolist() == [[2, 4, 9, 31, 50, 77]]


def test_under_cosine_codes_are_the_nearest_whatever_their_length(quick):
    built = made("additive", "flat", "cosine", quick)
    x = vectors(300, 1)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    built.add(x)
    codes = built.index.coder.encode(unit)
    np.testing.assert_allclose(built.reconstruct(np.arange(300)), built.index.coder.decode(codes), atol=1e-6)
    again = annvq.load_index(made("additive", "flat", "cosine", quick).to_bytes()).add(x)  # saved while empty
    np.testing.assert_array_equal(again.reconstruct(np.arange(300)), built.reconstruct(np.arange(300)))


def test_the_share_is_that_of_least_squares():
    rng = np.random.default_rng(5)
    x, queries = (rng.normal(size=(n, 16)) for n in (400, 30))
    x, queries = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, queries))
    xhat = x * rng.uniform(0.5, 1, size=(400, 1)) + 0.05 * rng.normal(size=(400, 16))
    lost, missing = [], []
    nearest = np.argsort(-(queries @ x.T), axis=1)[:, :50]
    for q, near in zip(queries, nearest, strict=True):
        columns = (1 - np.square(xhat[near]).sum(1), (x[near] - xhat[near]) @ q)
        for values, column in zip((lost, missing), columns, strict=True):
            values.extend(column - column.mean())
    right = np.linalg.lstsq(np.asarray(lost)[:, None], np.asarray(missing), rcond=None)[0][0]
    assert 0.05 < right < 0.45
    arrays = (a.astype(np.float32) for a in (queries, x, xhat))
    np.testing.assert_allclose(learned_share(*arrays, nearest), right, rtol=1e-4)


@pytest.mark.parametrize("far", [0, 60])
def test_more_neighbours_are_found_with_a_share_of_what_coding_took(far, quick):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6300, 24)) @ np.random.default_rng(9).normal(size=(24, 24))
    x = x + far * np.eye(24)[3]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    learn, base, queries = x[:3000], x[3000:6000], x[6000:]
    true = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    q = annvq.PrincipalProductVQ(24, 6, 6).fit(learn)
    built = annvq.RerankIndex(annvq.FlatIndex(q, "cosine"), "decoded", shortlist=3000).fit(learn).add(base)

    def found():
        ids = built.search(queries, 10)[1]
        return np.mean([len(np.intersect1d(a, b)) for a, b in zip(ids, true, strict=True)]) / 10

    learned = found()
    for other in (0.0, 0.5, None):  # ⟨q, x̂⟩; ‖q − x̂‖²; x̂ at length one
        built.refinement.error_share = other
        assert learned > found() - 0.002, other
    built.refinement.error_share = 0.0
    assert learned > 1.1 * found()


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_under_ip_a_share_is_added_where_vectors_have_one_length(scale):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6300, 24)) @ np.random.default_rng(9).normal(size=(24, 24))
    x = (scale * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    learn, base, queries = x[:3000], x[3000:6000], x[6000:] * rng.uniform(0.1, 5, size=(300, 1)).astype(np.float32)
    true = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    q = annvq.PrincipalProductVQ(24, 6, 6).fit(learn)
    built = annvq.RerankIndex(annvq.FlatIndex(q, "ip"), "decoded", shortlist=3000).fit(learn).add(base)
    assert built.refinement.error_share is not None
    assert built.refinement.length == pytest.approx(scale, rel=1e-5)
    same = annvq.load_index(built.to_bytes())
    assert same.fingerprint() == built.fingerprint()

    def found():
        ids = built.search(queries, 10)[1]
        return np.mean([len(np.intersect1d(a, b)) for a, b in zip(ids, true, strict=True)]) / 10

    distances, ids = built.search(queries, 1)
    products = np.einsum("qd,qd->q", queries, base[ids[:, 0]])
    assert abs(np.mean((-distances[:, 0] - products) / np.linalg.norm(queries, axis=1))) < 0.05 * scale
    learned = found()
    np.testing.assert_array_equal(same.search(queries, 10)[1], built.search(queries, 10)[1])
    built.refinement.error_share = None
    assert learned > 1.1 * found()


def test_under_ip_no_share_where_lengths_differ_much():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3000, 24)) * np.exp(0.6 * rng.normal(size=(3000, 1)))).astype(np.float32)
    q = annvq.ProductVQ(24, 6, 6).fit(x, recipe=Recipe((KMeans(4),)))
    built = annvq.RerankIndex(annvq.FlatIndex(q, "ip"), "decoded").fit(x)
    assert (built.refinement.error_share, built.refinement.length) == (None, 1.0)


@pytest.mark.parametrize(("clearly", "taken"), [(0.5, True), (2.0, False)])
def test_a_share_is_taken_where_it_finds_clearly_more(clearly, taken, monkeypatch, quick):
    monkeypatch.setattr("annvq.indexes.rerank.decoded.CLEARLY", clearly)
    share = made("product", "flat", "cosine", quick).refinement.error_share
    assert (share is not None) == taken


def test_the_share_is_kept_in_files_and_only_where_it_counts(quick):
    built = made("product", "flat", "cosine", quick).add(vectors(50, 1))
    share = built.refinement.error_share = 0.25
    again = annvq.load_index(built.to_bytes()).refinement
    assert again.error_share == share
    assert again.fingerprint() == built.refinement.fingerprint()
    few = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(12, 3, 4), "cosine"), "decoded")
    assert few.fit(vectors(300, 0), recipe=Recipe((KMeans(2),))).refinement.error_share is None  # too few to learn it
    built.refinement.error_share = 0.7
    with pytest.raises(annvq.errors.FormatError, match="its error_share must be a number in"):
        annvq.load_index(built.to_bytes())
    built.refinement.error_share, built.refinement.length = 0.2, -1.0
    with pytest.raises(annvq.errors.FormatError, match="its length must be a number above zero"):
        annvq.load_index(built.to_bytes())
