"""All within a radius, of every kind of index: the part of a search for all vectors that lies within it."""

import numpy as np
import pytest
import torch

import annvq
from annvq.indexes.saved import registered


@pytest.fixture(params=sorted(registered()))
def make_index(request, new_index):
    """Make an index of each kind in turn, trained where it needs it on vectors that are given."""

    def make(q, x, **settings):
        return new_index(request.param, q, **settings).fit(x)

    return make


def require_within(index, queries, radius, found, n, **settings):
    """``found`` is the part within ``radius`` of what a search for all ``n`` vectors finds."""
    lims, distances, ids = found
    everything, order = index.search(queries, n + 1, **settings)
    within = (order >= 0) & (everything.astype(np.float64) <= radius)
    assert (lims.dtype, distances.dtype, ids.dtype) == (np.int64, np.float32, np.int64)
    np.testing.assert_array_equal(lims, np.r_[0, np.cumsum(within.sum(1))])
    np.testing.assert_array_equal(distances, everything[within])
    np.testing.assert_array_equal(ids, order[within])


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_all_within_a_radius(make_index, kind, small, metric):
    q, x = small(kind)
    ids = np.random.default_rng(1).permutation(5000)[: len(x)]
    index = make_index(q, x, metric=metric).add(x, ids)
    distances = index.search(x[:5], len(x))[0]
    # None, few, one more than what is asked for first, all; and the very distance that a vector has.
    for rank in (0, 7, 64, 300, len(x) - 1):
        radius = float(distances[2, rank])
        for just in (radius, np.nextafter(radius, -np.inf)):
            require_within(index, x[:5], just, index.search_within(x[:5], just), len(x))
    least, most = float(distances.min()) - 1, float(distances.max()) + 1
    assert index.search_within(x[:5], least)[0].tolist() == [0] * 6
    assert index.search_within(x[:5], most)[0].tolist() == [len(x) * i for i in range(6)]
    assert len(index.search_within(x[:5], 1e300)[2]) == 5 * len(x)


def test_within_a_radius_by_brute_force(make_index, table_kind, small):
    q, x = small(table_kind)
    index = make_index(q, x, metric="ip").add(x)
    scores = -(x[:4].astype(np.float64) @ index.reconstruct(np.arange(len(x))).astype(np.float64).T)
    ordered = np.sort(np.unique(scores.round(3)))
    at = 600 + int(np.diff(ordered[600:700]).argmax())
    radius = float(ordered[at : at + 2].mean())  # far from any distance
    lims, distances, ids = index.search_within(x[:4], radius)
    assert 0 < len(ids) < scores.size
    for i, row in enumerate(scores):
        mine = slice(lims[i], lims[i + 1])
        assert set(ids[mine]) == set(np.flatnonzero(row <= radius))
        np.testing.assert_allclose(distances[mine], row[ids[mine]], rtol=1e-4, atol=1e-3)


def test_within_a_radius_with_filters_and_duplicates(make_index, small):
    q, x = small("residual")
    ids = np.arange(len(x) + 100) * 3
    index = make_index(q, x).add(np.concatenate([x, np.repeat(x[:1], 100, 0)]), ids)
    radius = float(index.search(x[:4], 200)[0][:, 150].mean())
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.3, 1.0):
        allowed = ids[rng.random(len(ids)) < share]
        bitmap = np.zeros(ids.max() - 9, bool)
        bitmap[allowed[allowed < len(bitmap)]] = True
        for given in (allowed, bitmap, annvq.PreparedFilter(bitmap), lambda stored: stored % 2 == 0):
            found = index.search_within(x[:4], radius, filter=given)
            require_within(index, x[:4], radius, found, len(ids), filter=given)
    nearest = float(index.search(x[:1], 1)[0][0, 0])
    found = index.search_within(x[:1], nearest)[2]
    assert np.isin(ids[600:], found).all()  # they have one code, and one distance
    np.testing.assert_array_equal(found, np.sort(found))


def test_within_a_radius_of_nothing_and_in_torch(make_index, small):
    q, x = small("residual")
    index = make_index(q, x)
    for queries, radius in ((x[:3], 1.0), (x[:0], 1.0)):
        lims, distances, ids = index.search_within(queries, radius)
        assert lims.tolist() == [0] * (len(queries) + 1)
        assert (distances.shape, ids.shape) == ((0,), (0,))
    index.add(x)
    radius = float(index.search(x[:3], 50)[0].mean())
    in_torch = index.search_within(torch.from_numpy(x[:3]), radius)
    assert all(isinstance(part, torch.Tensor) for part in in_torch)
    assert [part.dtype for part in in_torch] == [torch.int64, torch.float32, torch.int64]
    for part, same in zip(in_torch, index.search_within(x[:3], radius), strict=True):
        np.testing.assert_array_equal(part.numpy(), same)
    assert index.search_within(x[:0], radius)[0].tolist() == [0]


def test_refused_radii(make_index, small):
    q, x = small("residual")
    index = make_index(q, x).add(x[:50])
    for radius in (np.nan, np.inf, -np.inf, 10**400, np.float32("nan")):
        with pytest.raises(ValueError, match="radius must be a finite number"):
            index.search_within(x[:2], radius)
    for radius in (None, "1", True, [1.0], x[0]):
        with pytest.raises(TypeError, match="radius must be a finite number"):
            index.search_within(x[:2], radius)
    for queries, error in ((x[:2, :3], ValueError), (None, TypeError), (x[0], ValueError)):
        with pytest.raises(error, match="queries must be"):
            index.search_within(queries, 1.0)
    with pytest.raises(ValueError, match="filter must be a bitmap"):
        index.search_within(x[:2], 1.0, filter=np.ones((2, 2), bool))


def test_lists_and_shortlists_limit_what_is_looked_at(small):
    q, x = small("residual")
    scanned = annvq.IVFIndex(q, nlist=12).fit(x).add(x)
    radius = float(scanned.search(x[:6], len(x))[0][:, 300].mean())
    some = scanned.search_within(x[:6], radius, nprobe=3)
    require_within(scanned, x[:6], radius, some, len(x), nprobe=3)
    assert some.lims[-1] < scanned.search_within(x[:6], radius).lims[-1]
    for wrong in (0, 13):
        with pytest.raises(ValueError, match=r"nprobe must be in 1\.\.12"):
            scanned.search_within(x[:6], radius, nprobe=wrong)


def test_an_index_made_to_probe_some_lists_probes_those(small):
    q, x = small("product")
    index = annvq.IVFIndex(q, nlist=12, nprobe=2).fit(x).add(x)
    radius = float(index.search(x[:6], len(x), nprobe=12)[0][:, 300].mean())
    require_within(index, x[:6], radius, index.search_within(x[:6], radius), len(x))


@pytest.mark.parametrize("refine", ["float16", "code"])
def test_re_ranked_within_a_radius(small, refine):
    q, x = small("residual")
    finer = small("product", nbits=6)[0] if refine == "code" else refine
    index = annvq.RerankIndex(annvq.IVFIndex(q, nlist=12), finer).fit(x).add(x, np.arange(len(x)) * 2)
    radius = float(index.search(x[:6], len(x))[0][:, 200].mean())
    for settings in ({}, {"nprobe": 12}, {"filter": np.arange(0, 900, 4)}):
        found = index.search_within(x[:6], radius, **settings)
        require_within(index, x[:6], radius, found, len(x), **settings)
    lims, distances, ids = index.search_within(x[:6], radius, shortlist=50, nprobe=12)
    listed = index.index.search(x[:6], 50, nprobe=12)[1]
    everything, order = index.search(x[:6], len(x))
    within = (everything.astype(np.float64) <= radius) & [np.isin(*pair) for pair in zip(order, listed, strict=True)]
    np.testing.assert_array_equal(lims, np.r_[0, np.cumsum(within.sum(1))])
    np.testing.assert_array_equal(ids, order[within])
    np.testing.assert_array_equal(distances, everything[within])
    with pytest.raises(ValueError, match="shortlist must be in"):
        index.search_within(x[:6], radius, shortlist=0)
    with pytest.raises(ValueError, match="nprobe must be in"):
        index.search_within(x[:6], radius, nprobe=13)


@pytest.mark.parametrize("refine", ["float16", "vectors", "rest", "decoded"])
def test_re_ranked_where_nothing_is_there_or_allowed(small, refine):
    q, x = small("residual")
    code = refine in ("vectors", "rest")
    settings = {"refines": refine} if code else {}
    finer = annvq.make("product", dim=x.shape[1], M=4, nbits=4) if code else refine
    index = annvq.RerankIndex(annvq.FlatIndex(q), finer, **settings).fit(x)
    for _ in range(2):
        assert index.search_within(x[:3], 1e9, filter=np.arange(0)).lims.tolist() == [0] * 4
        assert index.search_within(x[:3], 1e9, shortlist=5, filter=np.arange(0)).lims.tolist() == [0] * 4
        index.add(x)
    assert index.reset().search_within(x[:3], 1e9).lims.tolist() == [0] * 4
