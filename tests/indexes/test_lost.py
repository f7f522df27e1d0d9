"""Under cosine, product codes are scored with a share of what coding took away, where that finds more."""

import copy
import pickle

import numpy as np
import pytest

import annvq
from annvq.errors import FormatError
from annvq.indexes import saved
from annvq.indexes.building import merge
from annvq.indexes.lost import ASKING, found_of, learned_share, nearest, worth
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(6),))
SHAPES = {
    "product": lambda: annvq.ProductVQ(20, 4, 4),
    "product of unequal widths": lambda: annvq.ProductVQ(20, 3, 8),
    "rotated": lambda: annvq.RotatedProductVQ(20, 4, 4),
    "principal, unequal bits": lambda: annvq.PrincipalProductVQ(20, 6, (4, 4, 3, 5, 4, 4)),
    "principal": lambda: annvq.PrincipalProductVQ(20, 5, 8),
    "one codebook": lambda: annvq.AdditiveVQ(20, 1, 5),
}


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def vectors(n, dim=20, seed=0, mean=3.0):
    """Vectors with a long mean in common, of length one."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(2, 0.2, dim)
    return unit(rng.normal(size=(n, dim)) * spread + mean * np.random.default_rng(5).normal(size=dim))


def rotation(dim):
    return np.linalg.qr(np.random.default_rng(3).normal(size=(dim, dim)))[0].astype(np.float32)


def with_share(q, share=0.3, lists=False):
    """An index of a fitted quantizer with a share that is given."""
    index = annvq.IVFIndex(q, 5, "cosine", residual=False, nprobe=5) if lists else annvq.FlatIndex(q, "cosine")
    if lists:
        index.set_centroids(vectors(5, q.dim, seed=8))
    index.coding.share = share
    return index


def expected(index, queries, xhat, share):
    """Distances in float64."""
    xhat, queries = xhat.astype(np.float64), queries.astype(np.float64)
    return 1 - queries @ xhat.T - share * (1 - np.square(xhat).sum(1))


def same(a, b, queries, k=20):
    for one, other in zip(a.search(queries, k), b.search(queries, k), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module", params=SHAPES)
def fitted(request):
    return SHAPES[request.param]().fit(vectors(800), recipe=QUICK)


@pytest.mark.parametrize("lists", [False, True])
def test_distances_and_ids(fitted, lists):
    x, queries = vectors(700, seed=1), vectors(9, seed=2)
    index = with_share(fitted, lists=lists).add(x)
    stored = index.reconstruct(np.arange(700))
    np.testing.assert_array_equal(stored, fitted.decode(fitted.encode(x)))  # codes are the nearest to vectors
    exact = expected(index, queries, stored, 0.3)
    distances, ids = index.search(queries, 700)
    np.testing.assert_allclose(distances, np.take_along_axis(exact, ids, 1), atol=2e-6)
    np.testing.assert_allclose(distances, np.sort(exact, 1), atol=2e-6)
    np.testing.assert_array_equal(np.sort(ids, 1), np.tile(np.arange(700), (9, 1)))
    limits, within, ids_within = index.search_within(queries, float(np.median(exact)))
    assert len(within) == (distances < np.float32(np.median(exact))).sum() == limits[-1]
    rows = np.repeat(np.arange(9), np.diff(limits))
    np.testing.assert_allclose(within, exact[rows, ids_within], atol=2e-6)


@pytest.mark.parametrize("make", [lambda: annvq.ProductVQ(20, 4, 4), lambda: annvq.RotatedProductVQ(20, 4, 4)])
def test_distances_follow_codebooks_and_share(make):
    q, queries = make().fit(vectors(800), recipe=QUICK), vectors(3, seed=2)
    index = with_share(q).add(vectors(50, seed=1))

    def check(share):
        exact = expected(index, queries, index.reconstruct(np.arange(50)), share)
        distances, ids = index.search(queries, 50)
        np.testing.assert_allclose(distances, np.take_along_axis(exact, ids, 1), atol=2e-6)
        np.testing.assert_array_equal(index.search(queries[:1], 50)[0], distances[:1])

    check(0.3)
    q.weight.data[::3, 0] += 0.2
    check(0.3)
    index.coding.share = 0.1
    check(0.1)


@pytest.mark.parametrize("kind", ["rotation", "linear"])
def test_what_entries_add_to_squared_lengths(kind):
    """Behind a map that keeps lengths, with a shift; not behind another, and not of sums of codebooks."""
    inner = annvq.ProductVQ(20, 4, 4).fit(vectors(800), recipe=QUICK)
    a, shift = rotation(20), np.linspace(-1, 1, 20, dtype=np.float32)
    from annvq.quantizers.modules.maps import LinearMap, Rotation

    if kind == "rotation":
        q = annvq.Transformed(Rotation.from_matrix(a, shift), inner)
        codes = np.random.default_rng(0).integers(0, 16, size=(50, 4))
        squares = np.split(q.squares(), 4)
        total = sum(squares[m][codes[:, m]].astype(np.float64) for m in range(4))
        np.testing.assert_allclose(total, np.square(q.decode(codes).astype(np.float64)).sum(1), rtol=1e-5)
    else:
        assert annvq.Transformed(LinearMap.from_matrix(2 * a), inner).squares() is None
    assert annvq.AdditiveVQ(20, 2, 3).fit(vectors(100), recipe=QUICK).squares() is None


@pytest.mark.parametrize("lists", [False, True])
def test_fit_takes_a_share_where_it_finds_more(lists):
    x, queries = vectors(12000 if lists else 4000, seed=1), vectors(100, seed=2)
    q = annvq.ProductVQ(20, 5, 6).fit(x, recipe=QUICK)
    indexes = []
    for _ in range(2):
        index = annvq.IVFIndex(q, 8, "cosine", residual=False) if lists else annvq.FlatIndex(q, "cosine")
        indexes.append(index.fit(x, seed=4))
    share = indexes[0].coding.share
    assert indexes[0].coding.length is None
    assert 0 < share <= 0.5
    assert share == indexes[1].coding.share
    true = np.argsort(-(queries @ x.T), axis=1)[:, :10]
    of_length = annvq.FlatIndex(q, "cosine").add(x)  # without a fit
    assert of_length.coding.length is not None
    probe = {"nprobe": 8} if lists else {}
    found = found_of(true, indexes[0].add(x).search(queries, 10, **probe)[1])
    assert found > 1.02 * found_of(true, of_length.search(queries, 10)[1])
    assert indexes[0].fit(x[:900]).coding.share == share  # it is learned once


@pytest.mark.parametrize("n", [900, 1400])
def test_the_share_by_the_definition(n):
    """Of more vectors than are held out of a fit, so many stand for queries, and all count for these."""
    x = vectors(n, seed=1)
    q = annvq.ProductVQ(20, 5, 6).fit(x, recipe=QUICK)
    index = annvq.FlatIndex(q, "cosine").fit(x, seed=7)
    asking = np.sort(np.random.default_rng(7).permutation(n)[:1000])
    queries, rows = x[asking].astype(np.float64), x.astype(np.float64)
    xhat = q.decode(q.encode(x)).astype(np.float64)
    products = queries @ rows.T
    products[np.arange(len(asking)), asking] = -np.inf
    near = np.argsort(-products, axis=1)[:, :3]
    lost = (1 - np.square(xhat).sum(1))[near]
    missing = np.einsum("qd,qnd->qn", queries, (rows - xhat)[near])
    lost, missing = (v - v.mean(1, keepdims=True) for v in (lost, missing))
    assert index.coding.share == pytest.approx((lost * missing).sum() / np.square(lost).sum(), rel=1e-3)


def test_the_nearest_counts_as_much_as_all_ten():
    true = np.arange(20).reshape(2, 10)
    assert worth(true, true) == 40
    assert worth(true, np.roll(true, 1, axis=1)) == 20
    assert worth(true, np.column_stack([true[:, 0], true[:, :9] + 100])) == 22


def test_a_vector_does_not_count_for_itself():
    x = vectors(50)
    products = x.astype(np.float64) @ x.T
    np.fill_diagonal(products, -np.inf)
    right = np.argsort(-products, axis=1)
    np.testing.assert_array_equal(nearest(x[:30], x, 5, "cosine", others=True), right[:30, :5])
    np.testing.assert_array_equal(nearest(x, x, 50, others=True), right[:, :49])


def test_fit_keeps_a_length_where_that_finds_more():
    """Directions that are even, coded poorly."""
    x = unit(np.random.default_rng(1).normal(size=(3000, 20)))
    q = annvq.ProductVQ(20, 2, 6).fit(x, recipe=QUICK)
    index = annvq.FlatIndex(q, "cosine").fit(x)
    assert index.coding.share is None
    asking = np.random.default_rng(0).permutation(3000)[:1000]
    products = x[asking] @ x.T
    products[np.arange(1000), asking] = -np.inf
    true = np.argsort(-products, axis=1)[:, :10]
    xhat, stretched = (q.decode(codes) for codes in (q.encode(x), q.encode(x, term=index.coding.length)))

    def found(scores):
        scores[np.arange(1000), asking] = -np.inf
        return worth(true, np.argsort(-scores, axis=1)[:, :10])

    share = learned_share(x[asking], x, xhat, true[:, :3])
    assert found(x[asking] @ xhat.T + share * (1 - np.square(xhat).sum(1))) < found(x[asking] @ stretched.T)


@pytest.mark.parametrize("make", [lambda: annvq.ResidualVQ(20, 2, 4), lambda: annvq.ProductVQ(20, 4, 4)])
def test_few_vectors_and_other_codes_have_a_length(make):
    x = vectors(2000 if isinstance(make(), annvq.ResidualVQ) else ASKING - 1)
    index = annvq.FlatIndex(make().fit(x, recipe=QUICK), "cosine").fit(x)
    assert index.coding.share is None
    assert index.coding.length is not None


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("mmap", [False, True])
def test_files_copies_and_merges(tmp_path, lists, mmap):
    x, queries = vectors(600, seed=1), vectors(7, seed=2)
    q = annvq.ProductVQ(20, 4, 8).fit(vectors(800), recipe=QUICK)
    index = with_share(q, lists=lists).add(x)
    index.save(tmp_path / "a.annvq")
    again = annvq.load_index(tmp_path / "a.annvq", mmap=mmap)
    for other in (again, pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert (other.coding.share, other.coding.length) == (0.3, None)
        assert other.fingerprint() == index.fingerprint()
        same(index, other, queries)
    assert with_share(q, 0.2, lists).fingerprint() != with_share(q, 0.3, lists).fingerprint()
    more = vectors(100, seed=6)
    parts = [with_share(q, lists=lists).add(part, ids) for part, ids in ((x, range(600)), (more, range(600, 700)))]
    for part, name in zip(parts, "bc", strict=True):
        part.save(tmp_path / name)
    same(merge(*(annvq.load_index(tmp_path / name) for name in "bc")), index.add(more), queries)


def test_an_empty_index_in_a_file_goes_on_with_its_share(tmp_path):
    x = vectors(600, seed=1)
    index = with_share(annvq.ProductVQ(20, 4, 6).fit(x, recipe=QUICK))
    index.save(tmp_path / "a.annvq")
    again = annvq.load_index(tmp_path / "a.annvq").add(x)
    assert again.coding.length is None
    same(index.add(x), again, x[:5])


@pytest.mark.parametrize("wrong", [0.7, -0.1, "0.2", True])
def test_files_with_another_share_are_refused(wrong):
    index = with_share(annvq.ProductVQ(20, 4, 4).fit(vectors(300), recipe=QUICK)).add(vectors(10))
    config, tensors = index._file()
    for broken in ({**config, "error_share": wrong}, {**config, "length": 0.9}, {**config, "metric": "ip"}):
        with pytest.raises(FormatError, match=r"error_share|length"):
            saved.built(broken, dict(tensors), "a file")


def test_codes_beside_others_are_re_ranked():
    x, queries = vectors(900, seed=1), vectors(20, seed=2)
    q = annvq.ProductVQ(20, 5, 6).fit(x, recipe=QUICK)
    index = annvq.RerankIndex(annvq.FlatIndex(q, "cosine"), "float32", shortlist=900).fit(x).add(x)
    assert index.index.coding.share is not None
    np.testing.assert_array_equal(index.search(queries, 10)[1], nearest(queries, x, 10, "cosine"))
    decoded = annvq.RerankIndex(annvq.FlatIndex(q, "cosine"), "decoded").fit(x)
    assert (decoded.index.coding.share, decoded.index.coding.length) == (None, None)


def test_faiss_has_no_such_distances():
    pytest.importorskip("faiss")
    x = vectors(900)
    q = annvq.ProductVQ(20, 5, 4).fit(x, recipe=QUICK)
    with pytest.raises(ValueError, match="share of what coding took away"):
        annvq.to_faiss(with_share(q).add(x))
    without = annvq.FlatIndex(q, "cosine").add(x)  # as the message says
    distances, ids = annvq.to_faiss(without).search(x[:5], 10)
    own, found = without.search(x[:5], 10)
    np.testing.assert_allclose(1 - distances, own, atol=1e-5)
    assert (ids == found).mean() > 0.9
