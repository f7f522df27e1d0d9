"""Re-ranking by a byte of length: against float64 over what codes stand for and the vectors themselves."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.indexes.building import merge
from annvq.indexes.rerank import length
from annvq.indexes.rerank.length import _best_power, _levels
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))


def vectors(n, seed=0, dim=12, spread=0.3):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(dim, dim))
    return ((rng.normal(size=(n, dim)) @ mix + 2) * np.exp(spread * rng.normal(size=(n, 1)))).astype(np.float32)


MADE = {
    "flat, product": lambda: annvq.FlatIndex(annvq.ProductVQ(12, 3, 4), "ip"),
    "flat, additive": lambda: annvq.FlatIndex(annvq.AdditiveVQ(12, 2, 4), "ip"),
    "lists of residuals": lambda: annvq.IVFIndex(annvq.ResidualVQ(12, 2, 4), 5, metric="ip", residual=True, nprobe=5),
    "lists of vectors": lambda: annvq.IVFIndex(annvq.ProductVQ(12, 3, 4), 5, metric="ip", residual=False, nprobe=5),
    "conditional": lambda: annvq.FlatIndex(annvq.ConditionalVQ(12, 2, 4), "ip"),
    "first dimensions": lambda: annvq.FlatIndex(annvq.ProductVQ(9, 3, 4), "ip", dim=12),
}


def made(name, quick):
    index = annvq.RerankIndex(MADE[name](), "length", shortlist=10_000)
    return index.fit(vectors(700), recipe=quick("conditional") if name == "conditional" else QUICK)


def scores(index, x, ids, queries):
    """−⟨q, x̂⟩·factor in float64, x̂ by the index of codes, the factor by the nearest ratio to ‖x‖ / ‖x̂‖."""
    xhat = index.index.reconstruct(ids).astype(np.float64)
    seen = x[:, : index.dims].astype(np.float64)
    ratios = np.linalg.norm(seen, axis=1) / np.linalg.norm(xhat, axis=1)
    own = index.refinement.ratios[1:].astype(np.float64)
    at = 1 + np.abs(np.log(own) - np.log(ratios)[:, None]).argmin(1)
    return -(queries.astype(np.float64) @ xhat.T) * index.refinement.factors[at]


@pytest.mark.parametrize("name", MADE)
def test_distances_are_those_to_decoded_vectors_made_longer(name, quick):
    index, x, queries = made(name, quick), vectors(300, 1), vectors(20, 2)
    ids = np.arange(300)[::-1] * 3
    index.add(x[:200], ids[:200]).add(x[200:], ids[200:])
    assert index.remove(ids[:50]) == 50
    left = np.sort(ids[50:])
    x = x[::-1][:250]
    right = scores(index, x, left, queries)
    distances, found = index.search(queries, 12)
    np.testing.assert_allclose(distances, np.sort(right, axis=1)[:, :12], rtol=1e-4, atol=1e-4)
    at = np.searchsorted(left, found)
    np.testing.assert_allclose(distances, np.take_along_axis(right, at, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(-queries @ index.reconstruct(left).T, right, rtol=1e-4, atol=1e-3)
    allowed = left[::4]
    some = index.search(queries, 5, filter=allowed)[1]
    np.testing.assert_array_equal(some, allowed[np.argsort(right[:, ::4], axis=1, kind="stable")[:, :5]])
    radius = float(np.median(right))
    lims, within, _ = index.search_within(queries, radius)
    np.testing.assert_allclose(within[: lims[1]], np.sort(right[0][right[0] <= radius]), rtol=1e-4, atol=1e-4)
    assert index.bits_per_vector == index.index.bits_per_vector + 8
    assert index.facts()["refine_bits_per_vector"] == 8


@pytest.mark.parametrize("mmap", [False, True])
def test_files_copies_and_merges(tmp_path, mmap, quick):
    index, x, queries = made("lists of residuals", quick), vectors(300, 1), vectors(9, 2)
    empty = index.to_bytes()
    index.add(x).save(tmp_path / "a.annvq")
    parts = [annvq.load_index(empty).add(x[part], np.arange(300)[part]) for part in (slice(0, 90), slice(90, 300))]
    for part, name in zip(parts, "bc", strict=True):
        part.save(tmp_path / name)
    others = [
        annvq.load_index(tmp_path / "a.annvq", mmap=mmap),
        pickle.loads(pickle.dumps(index)),
        copy.deepcopy(index),
    ]
    for other in (*others, merge(*(annvq.load_index(tmp_path / name) for name in "bc"))):
        assert other.fingerprint() == index.fingerprint()
        for one, same in zip(other.search(queries, 30), index.search(queries, 30), strict=True):
            np.testing.assert_array_equal(one, same)
    again = others[0].upsert(x[:1] * 2, [7])
    assert np.linalg.norm(again.reconstruct([7])) > 1.5 * np.linalg.norm(index.reconstruct([0]))


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_more_of_the_largest_inner_products_are_found(spread):
    x = vectors(5000, 3, spread=0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = (x * np.exp(spread * np.random.default_rng(1).normal(size=(5000, 1)))).astype(np.float32)
    learn, base, queries = x[:2500], x[2500:4700], x[4700:]
    true = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    index = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(12, 3, 6), "ip"), "length", shortlist=500)
    index.fit(learn, recipe=QUICK).add(base)
    again = annvq.RerankIndex(annvq.FlatIndex(index.quantizer, "ip"), "length").fit(learn)
    np.testing.assert_array_equal(again.refinement.factors, index.refinement.factors)

    def found(ids):
        return np.mean([len(np.intersect1d(a, b)) for a, b in zip(ids, true, strict=True)]) / 10

    assert found(index.search(queries, 10)[1]) > 1.03 * found(index.index.search(queries, 10)[1])


def test_ratios_beyond_those_learned_and_zero_vectors(quick):
    index, x = made("flat, product", quick), vectors(300, 1)
    ratios = index.refinement.ratios
    assert len(np.unique(ratios)) == 256
    assert ratios[0] == index.refinement.factors[0] == 0
    longer = np.float32(2.0) ** np.arange(-20, 40)
    index.add(np.concatenate([np.zeros((1, 12), np.float32), x[:1] * longer[:, None]]))
    lengths = np.linalg.norm(index.reconstruct(np.arange(61)).astype(np.float64), axis=1)
    assert lengths[0] == 0
    index.refinement.factors = ratios  # the first power
    lengths = np.linalg.norm(index.reconstruct(np.arange(1, 61)).astype(np.float64), axis=1)
    off = np.log2(lengths / np.linalg.norm(x[0].astype(np.float64)) / longer)
    assert (np.abs(off) < 0.02 + 0.12 * np.abs(np.log2(longer))).all()
    distances, ids = index.search(x[:1], 61)
    assert distances[0][ids[0] == 0] == 0
    assert np.isfinite(distances).all()


@pytest.mark.parametrize("ends", [(1, 1), (1e-30, 1e30), (0.9, 1.4), (2.0**-60, 2.0**-55)])
def test_levels_ascend_whatever_was_learned(ends):
    levels = _levels(np.asarray(ends, np.float64))
    assert levels.shape == (256,)
    assert (np.diff(levels) > 0).all()
    assert levels[0] == 0
    assert np.log2(levels[[1, -1]].astype(np.float64)) == pytest.approx([-100, 100])


@pytest.mark.parametrize("n", [16, 17, 40])
def test_few_vectors_and_vectors_that_are_all_alike(n):
    x = np.ones((n, 4), np.float32)
    index = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(4, 2, 4), "ip"), "length").fit(x, recipe=QUICK).add(x)
    np.testing.assert_allclose(index.search(x[:1], n)[0], np.full((1, n), -4.0), rtol=1e-3)


def test_vectors_far_longer_than_those_learned_from_stay_finite(monkeypatch):
    monkeypatch.setattr(length, "POWERS", (1.5,))
    x = vectors(300) * np.float32(1e16)
    index = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(12, 3, 3), "ip"), "length").fit(x, recipe=QUICK)
    longer = (10.0 ** np.arange(21))[:, None]
    index.add((longer * vectors(1).astype(np.float64) * 1e16).astype(np.float32))
    assert np.isfinite(index.reconstruct(np.arange(21))).all()
    ratios, factors = index.refinement.ratios.astype(np.float64), index.refinement.factors
    np.testing.assert_allclose(factors[30:190], ratios[30:190] ** 1.5, rtol=1e-6)


def test_a_power_is_chosen_in_little_memory():
    rows = np.random.default_rng(0).normal(size=(1050, 2048)).astype(np.float32)
    tracemalloc.start()
    try:
        _best_power(rows, rows, np.ones(len(rows), np.float32))
        assert tracemalloc.get_traced_memory()[1] < 2 * 64 * 2**20  # of 800 MB that all products are of
    finally:
        tracemalloc.stop()


def test_what_is_refused(quick):
    q = annvq.ProductVQ(12, 3, 4).fit(vectors(300), recipe=QUICK)
    for metric in ("l2", "cosine"):
        with pytest.raises(ValueError, match="'length' for metric"):
            annvq.RerankIndex(annvq.FlatIndex(q, metric), "length")
    with pytest.raises(NotFittedError, match="ratios of lengths"):
        annvq.RerankIndex(annvq.FlatIndex(q, "ip"), "length").add(vectors(3))
    with pytest.raises(ValueError, match="x must have at least one row to learn ratios of lengths from, got none"):
        annvq.RerankIndex(annvq.FlatIndex(q, "ip"), "length").fit(vectors(0))
    index = made("flat, product", quick).add(vectors(20))
    for wrong, message in (
        (np.zeros(256, np.float32), "must ascend"),
        (np.full(256, np.nan, np.float32), "must be finite and not negative, got nan"),
        (-index.refinement.ratios, "must be finite and not negative, got -7.8"),
        (np.arange(7, dtype=np.float32), r"must be 256 float32, got float32 \(7,\)"),
    ):
        broken = copy.copy(index)
        broken.refinement.ratios = wrong
        with pytest.raises(FormatError, match=f"its ratios of lengths {message}"):
            annvq.load_index(broken.to_bytes())


def test_a_file_whose_lengths_are_of_other_vectors(quick):
    index = made("flat, product", quick).add(vectors(20))
    index.refinement.store.remove(np.array([3]))
    index.refinement.store.append(np.array([77]), np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match="lengths are not there"):
        annvq.load_index(index.to_bytes()).search(vectors(1), 20)
