"""Under cosine, codes are chosen so that decoded vectors have about one length."""

import numpy as np
import pytest

import annvq
from annvq.quantizers.lengths import codes_of_length
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(8),))


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def vectors(n, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(n, dim)) @ np.random.default_rng(9).normal(size=(dim, dim)) + 1)


def lengths(index, n):
    return np.linalg.norm(index.reconstruct(np.arange(n)), axis=1)


def recall(index, x, queries):
    true = np.argsort(-(queries @ x.T), axis=1)[:, :10]
    return np.mean([len(np.intersect1d(a, b)) for a, b in zip(index.search(queries, 10)[1], true, strict=True)]) / 10


def plain(index, x):
    """The same index, its codes chosen with no regard to lengths."""
    other = type(index)(index.quantizer, *([index.nlist] if index.kind == "ivf" else []), metric="cosine")
    if index.kind == "ivf":
        other.set_centroids(index.centroids)
        other.coding.residual = index.residual
    other.coding.any_length = True
    return other.add(x)


@pytest.mark.parametrize("kind", ["product", "residual", "additive", "product-additive", "principal-product"])
def test_lengths_agree_and_more_neighbours_are_found(kind):
    x, queries = vectors(4000), vectors(200, seed=1)
    index = annvq.FlatIndex(annvq.make(kind, dim=24, M=6, nbits=6), "cosine").fit(x[:2000], recipe=QUICK).add(x)
    as_they_come = plain(index, x)
    spread, before = (lengths(i, 4000).std() / lengths(i, 4000).mean() for i in (index, as_they_come))
    assert spread < 0.8 * before
    assert recall(index, x, queries) > recall(as_they_come, x, queries)


@pytest.mark.parametrize("norm_free", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_many_groups_go_on_from_the_codes_found(lists, norm_free):
    """In less time, so other codes than those of each length by itself; by error and length together never worse than
    codes chosen with no regard to it, and nearly as good as with all the time."""
    x = vectors(1500, 36)
    q = annvq.ProductAdditiveVQ(36, 18, 4, groups=9, rounds=8, norm_free=norm_free).fit(x[:800], recipe=QUICK)
    index = annvq.IVFIndex(q, 8, "cosine", residual=False) if lists else annvq.FlatIndex(q, "cosine")
    index.fit(x[:800]).add(x)
    as_they_come = plain(index, x)
    assert lengths(index, 1500).std() < 0.8 * lengths(as_they_come, 1500).std()
    length = index.coding.length
    costs, before = (length.measured(x, i.reconstruct(np.arange(1500)))[1] for i in (index, as_they_come))
    assert (costs <= before + 1e-6).all()
    slow = codes_of_length(x, length, None, lambda rows, _: q.encode_rows(rows), q.decode_rows)
    assert costs.mean() < 1.05 * length.measured(x, q.decode_rows(slow))[1].mean()


def test_in_lists_centroids_are_part_of_the_length():
    x = vectors(4000)
    index = annvq.IVFIndex(annvq.ResidualVQ(24, 4, 6), 16, "cosine").fit(x, recipe=QUICK).add(x)
    assert index.residual
    assert lengths(index, 4000).std() < 0.7 * lengths(plain(index, x), 4000).std()


def test_distances_are_one_less_the_cosine():
    x = vectors(2000)
    index = annvq.FlatIndex(annvq.ProductVQ(24, 8, 8), "cosine").fit(x, recipe=QUICK).add(x)
    distances, ids = index.search(x[:50], 5)
    decoded = unit(index.reconstruct(ids.ravel())).reshape(50, 5, 24)
    cosine = np.einsum("ij,ikj->ik", x[:50], decoded)
    assert np.abs(1 - distances - cosine).mean() < 0.02


def test_a_fitted_quantizer_needs_no_further_learning():
    x = vectors(2000)
    q = annvq.ProductVQ(24, 6, 6).fit(x, recipe=QUICK)
    index = annvq.FlatIndex(q, "cosine").add(x[:10])
    measured = annvq.FlatIndex(q, "cosine").fit(x[:250])  # too few to learn a share from
    assert index.coding.length.value == pytest.approx(measured.coding.length.value, rel=0.15)
    # It is chosen once: vectors that are there would not fit another.
    assert index.fit(x[:500]).coding.length != measured.coding.length


def test_files_keep_the_length(tmp_path):
    x = vectors(1000)
    index = annvq.FlatIndex(annvq.ProductVQ(24, 6, 6), "cosine").fit(x, recipe=QUICK).add(x[:500])
    index.save(tmp_path / "a.annvq")
    again = annvq.load_index(tmp_path / "a.annvq")
    assert again.coding.length == index.coding.length
    for a, b in zip(index.add(x[500:]).search(x[:5], 9), again.add(x[500:]).search(x[:5], 9), strict=True):
        np.testing.assert_array_equal(a, b)


def test_codes_of_any_scale_have_a_length_that_vectors_can_have():
    x = vectors(1000)
    q = annvq.ProductVQ(24, 6, 6).fit(x * 50, recipe=QUICK)
    assert annvq.FlatIndex(q, "cosine").add(x).coding.length.value == 1.0


def test_a_length_is_not_learned_of_nothing():
    x = vectors(200)
    q = annvq.ProductVQ(24, 4, 4).fit(x, recipe=QUICK)
    index = annvq.FlatIndex(q, "cosine")
    with pytest.raises(ValueError, match="x must have at least one row to learn the length of codes from, got none"):
        index.fit(x[:0])
    assert index.coding.length is None
    distances = annvq.FlatIndex(q, "cosine").add(x).search(x, 1)[0]
    np.testing.assert_array_equal(index.add(x).search(x, 1)[0], distances)
