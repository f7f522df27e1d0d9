"""Products of additive codes: groups of dimensions that know nothing of one another."""

import numpy as np
import pytest

import annvq
from annvq.quantizers.product_additive import default_groups
from annvq.training import EachGroup, KMeans, Recipe

QUICK = Recipe((EachGroup((KMeans(4),)),))


def vectors(n, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) @ np.random.default_rng(9).normal(size=(dim, dim)) + 1).astype(np.float32)


@pytest.fixture(scope="module", params=[False, True], ids=["norm", "norm-free"])
def fitted(request):
    q = annvq.ProductAdditiveVQ(24, 6, 5, groups=3, norm_free=request.param)
    return q.fit(vectors(3000), recipe=QUICK) if not request.param else q.fit(vectors(3000))


def test_x_hat_is_the_groups_side_by_side(fitted):
    codes = fitted.encode(vectors(50, seed=1)).astype(int)
    books = [b.detach().numpy() for b in fitted.codebooks]
    expected = np.concatenate([books[m][codes[:, m]] + books[m + 1][codes[:, m + 1]] for m in (0, 2, 4)], axis=1)
    np.testing.assert_array_equal(fitted.decode(fitted.encode(vectors(50, seed=1))), expected)


def test_a_group_has_the_codes_of_an_additive_quantizer_of_its_own():
    q = annvq.ProductAdditiveVQ(24, 6, 5, groups=3).fit(vectors(3000), recipe=QUICK)
    x = vectors(200, seed=1)
    for g, own in enumerate(q.group_models()):
        own.set_codebooks([b.detach() for b in q.codebooks[2 * g : 2 * g + 2]])
        codes = own.encode(np.ascontiguousarray(x[:, 8 * g : 8 * g + 8]))
        np.testing.assert_array_equal(codes, q.encode(x)[:, 2 * g : 2 * g + 2])


def test_squared_distances_are_near_those_to_x_hat(fitted):
    x, queries = vectors(500, seed=1), vectors(20, seed=2)
    index = annvq.FlatIndex(fitted).add(x)
    assert index.norm_bits == (0 if fitted.norm_free else 8)
    distances, ids = index.search(queries, 10)
    # To x̂, and half of the error more, but for what a byte, or offsets alone, miss of the norm.
    xhat = index.reconstruct(ids.ravel()).reshape(20, 10, 24)
    told = np.square(queries[:, None] - xhat).sum(2) + 0.5 * np.square(x[ids] - xhat).sum(2)
    spread = np.square(queries[:, None] - x[None]).sum(2).std()
    assert np.abs(distances - told).mean() < (0.2 if fitted.norm_free else 0.02) * spread


def test_more_codebooks_than_one_search_takes():
    x = vectors(600, dim=80)
    q = annvq.ProductAdditiveVQ(80, 80, 3, rounds=4).fit(x, recipe=QUICK)
    assert q.groups == 10
    error = np.square(x - q.decode(q.encode(x))).sum(1).mean()
    assert error < 0.2 * np.square(x - x.mean(0)).sum(1).mean()


@pytest.mark.parametrize(
    ("dim", "M", "groups"),
    [(384, 8, 1), (384, 16, 2), (384, 48, 6), (100, 24, 4), (7, 3, 1), (7, 21, 7), (11, 12, 1), (97, 80, 10)],
)
def test_default_groups(dim, M, groups):
    assert default_groups(dim, M) == groups


def test_groups_must_divide():
    with pytest.raises(
        ValueError, match=r"groups must divide M=6 and be at most dim=24, got 4; those are \[1, 2, 3, 6\]"
    ):
        annvq.ProductAdditiveVQ(24, 6, groups=4)
    with pytest.raises(TypeError, match="groups must be an integer"):
        annvq.ProductAdditiveVQ(24, 6, groups=2.0)
