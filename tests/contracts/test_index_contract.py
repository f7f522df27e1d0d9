"""What every index must do, of whatever kind it is; those that promise exact sums are held to them bit for bit."""

import copy
import functools
import inspect
import json
import pickle

import numpy as np
import pytest
import torch
from exact_distances import distances_to

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.indexes import Index
from annvq.indexes.building import merge
from annvq.indexes.saved import registered
from annvq.indexes.stored import StoreIndex
from annvq.quantizers import registered as registered_quantizers


def in_full(index):
    """The index itself, looking at every vector unless asked otherwise."""
    if hasattr(index, "nlist"):
        index.search = functools.partial(index.search, nprobe=index.nlist)
    return index


@pytest.fixture(params=sorted(registered()))
def index_kind(request):
    """The name of each registered kind in turn."""
    return request.param


@pytest.fixture
def make_index(index_kind, new_index):
    """Make an index of each kind in turn, trained where it needs it on vectors that are given."""

    def make(q, x=None, **settings):
        index = new_index(index_kind, q, **settings)
        return in_full(index if x is None else index.fit(x))

    return make


def takes_norm(index_kind):
    """Whether indexes of this kind store the norms of codes."""
    return index_kind == "rerank" or "norm" in inspect.signature(registered()[index_kind]).parameters


def norms_for(index_kind, kind, metric):
    """Settings of the norm to try: every one that is stored."""
    needs = metric == "l2" and registered_quantizers()[kind].needs_norm and takes_norm(index_kind)
    return [{"norm": "uint8"}, {"norm": "float32"}] if needs else [{}]


# -- what a search of everything finds -------------------------------------------------------------------------------


def byte_terms(view, x, codes, norms):
    """What bytes stand for: the level nearest to the norm and half of the error, less the offsets."""
    assert view.error_share == 0.5
    terms = norms + 0.5 * squared_errors(view, x, codes)
    return view.norm_term.levels[view.norm_term.keep(codes, terms.astype(np.float32))]


def squared_errors(view, x, codes):
    """‖x − x̂‖² by the quantizer, whose float32 rounding may decide a byte, once it is known to be right."""
    errors = view.norms_and_errors(x, codes)[1]
    np.testing.assert_allclose(errors, ((x - view.decode(codes).astype(np.float64)) ** 2).sum(1), rtol=1e-5, atol=1e-6)
    return errors.astype(np.float64)


def unit(x):
    return (x / np.sqrt((x.astype(np.float64) ** 2).sum(1))[:, None]).astype(np.float32)


def scored(index, x):
    """The vectors (n, d) that distances of stored ``x`` are to."""
    x = unit(x) if index.metric == "cosine" else x
    if index.kind == "rerank":
        return x
    if not isinstance(index, StoreIndex):
        return index.reconstruct(np.arange(len(x)))
    lists, targets = index.coding.targets(x)
    view, centres = index.quantizer.scan_view(), index.centroids[lists] if index.residual else None
    decoded = view.decode(index.quantizer.encode(targets, term=index.coding.length, centres=centres))
    decoded = decoded + centres if index.residual else decoded
    return decoded / index.coding.length.value if index.coding.length else decoded


def adc_scores(index, q, x, queries):
    """Exact ADC in the contract's order of summation."""
    x = unit(x) if index.metric == "cosine" else x
    view = q.scan_view()
    term, length = view.norm_term if index.norm == "uint8" else None, index.coding.length
    codes = q.encode(x, term=term or length).astype(int)
    luts, bias = view.tables(queries, index.metric)
    if length:  # a distance is 1 less ⟨q, x̂⟩ over the length that all x̂ are meant to have
        luts = luts * np.float32(1 / length.value)
    if (share := index.coding.share) is not None:  # and a share of 1 − ‖x̂‖² less
        luts[:, np.arange(luts.shape[2]) < np.array(q.sizes)[:, None]] += view.squares() * np.float32(share)
        bias = bias - np.float32(share)
    norms = view.norms(codes) if index.norm else None
    if term is not None:
        norms = byte_terms(view, x, codes, norms)
        first = 0
        for m, size in enumerate(q.sizes):
            luts[:, m, :size] += term.offsets[first : first + size]
            first += size
    score = luts[:, 0, codes[:, 0]]
    for m in range(1, q.M):
        score = score + luts[:, m, codes[:, m]]
    if norms is not None:
        score = score + norms[None]
    score = score + bias[:, None]
    return score


def decoded_scores(index, q, x, queries):
    """Distances to decoded vectors in float64."""
    x, queries = (unit(x), unit(queries)) if index.metric == "cosine" else (x, queries)
    xhat = q.decode(q.encode(x)).astype(np.float64)
    if index.metric == "l2":
        return ((queries[:, None].astype(np.float64) - xhat) ** 2).sum(2)
    return (index.metric == "cosine") - queries.astype(np.float64) @ xhat.T


def require_found(index, q, x, ids, queries, k, found):
    """``found`` is what a search for k neighbours finds, where the index holds ``x`` under ``ids`` and nothing else."""
    distances, places = found
    n = min(k, len(x))
    assert np.isinf(distances[:, n:]).all()
    assert (places[:, n:] == -1).all()
    distances, places = distances[:, :n], places[:, :n]
    if not n:
        return
    if isinstance(index, StoreIndex) or index.kind == "rerank":
        if index.kind == "rerank":
            score = distances_to(unit(queries) if index.metric == "cosine" else queries, x, index.metric)
        else:
            score = adc_scores(index, q, x, queries)
        order = np.lexsort((np.broadcast_to(ids, score.shape), score))[:, :n]
        np.testing.assert_array_equal(places, ids[order])
        score = np.maximum(score, 0) if index.metric == "l2" else score
        np.testing.assert_array_equal(distances, np.take_along_axis(score, order, 1))
        return
    score = decoded_scores(index, q, x, queries)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5 * np.abs(score).max())
    close(distances, np.sort(score, axis=1)[:, :n])
    by_id = np.argsort(ids)
    close(distances, np.take_along_axis(score, by_id[np.searchsorted(ids, places, sorter=by_id)], 1))
    np.testing.assert_array_equal(np.lexsort((places, distances)), np.broadcast_to(np.arange(n), places.shape))


# -- searching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("nbits", [3, 8, (2, 9, 4)])
def test_results_are_exact(make_index, index_kind, kind, small, metric, nbits):
    q, x = small(kind, nbits=nbits)
    rng = np.random.default_rng(1)
    ids = rng.permutation(5000)[: len(x)]
    for norm in norms_for(index_kind, kind, metric):
        index = make_index(q, x, metric=metric, **norm)
        index.add(x[:250], ids[:250])
        index.add(x[250:], ids[250:])
        for k in (1, 10, len(x), len(x) + 5):
            require_found(index, q, x, ids, x[:9], k, index.search(x[:9], k))


@pytest.mark.parametrize("offset", [0, 1e6])
def test_squared_distances_are_never_negative(make_index, index_kind, kind, offset):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 3)) * 100 + offset).astype(np.float32)
    q = annvq.make(kind, dim=3, M=3, nbits=4).fit(x)
    for norm in norms_for(index_kind, kind, "l2"):
        distances, ids = make_index(q, x, **norm).add(x).search(x[:100], 20)
        assert (distances >= 0).all()
        assert (np.diff(distances, axis=1) >= 0).all()
        assert (ids >= 0).all()


def test_duplicates_tie_by_lower_id(make_index, kind, small):
    q, x = small(kind)
    ids = np.arange(60)[::-1].copy()
    index = make_index(q, x).add(np.repeat(x[:1], 60, 0), ids)
    np.testing.assert_array_equal(index.search(x[:1], 7)[1][0], np.arange(7))


def test_order_of_insertion_does_not_matter(make_index, kind, small):
    q, x = small(kind)
    a = make_index(q, x).add(x)
    order = np.random.default_rng(0).permutation(len(x))
    b = make_index(q, x).add(x[order], order)
    require_same(a.search(x[:5], 20), b.search(x[:5], 20))


def require_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def test_filter_and_remove(make_index, kind, small):
    q, x = small(kind)
    ids = np.arange(len(x)) * 3
    index = make_index(q, x).add(x, ids)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.3, 1.0):
        keep = rng.random(len(x)) < share
        bitmap = np.zeros(ids.max() + 1, bool)
        bitmap[ids[keep]] = True
        for allowed in (ids[keep], bitmap, annvq.PreparedFilter(bitmap), lambda stored, of=bitmap: of[stored]):
            found = index.search(x[:4], 10, filter=allowed)
            require_found(index, q, x[keep], ids[keep], x[:4], 10, found)
    gone = rng.random(len(x)) < 0.4
    assert index.remove(ids[gone]) == gone.sum()
    assert len(index) == (~gone).sum()
    require_found(index, q, x[~gone], ids[~gone], x[:4], 30, index.search(x[:4], 30))
    index.add(x[gone], ids[gone])
    require_found(index, q, x, ids, x[:4], 30, index.search(x[:4], 30))


def test_reset_forgets_the_vectors_and_nothing_else(make_index, kind, small, tmp_path):
    q, x = small(kind)
    index = make_index(q, x).add(x, np.arange(len(x)) * 3)
    learned = index.fingerprint()
    for _ in range(2):  # an empty index, too
        assert index.reset() is index
        assert len(index) == 0
        assert (index.search(x[:3], 4)[1] == -1).all()
        assert index.fingerprint() == learned
    index.save(tmp_path / "i")
    fresh = make_index(q, x).add(x[50:])
    for emptied in (index, in_full(annvq.load_index(tmp_path / "i"))):
        emptied.add(x[50:])  # under 0, 1, …
        require_same(emptied.search(x[:5], 20), fresh.search(x[:5], 20))
        with pytest.raises(ValueError, match="not there"):
            emptied.reconstruct(np.array([3 * 599]))


def test_reconstruct_and_torch(make_index, kind, small):
    q, x = small(kind)
    index = make_index(q, x).add(torch.from_numpy(x))
    stored = x if index.kind == "rerank" else q.decode(q.encode(x))
    found = index.reconstruct(np.array([5, 0, 5]))
    np.testing.assert_allclose(found, stored[[5, 0, 5]], rtol=1e-5, atol=1e-5)
    if q.scan_view() is q:  # a network's matrix products may round otherwise in another batch
        np.testing.assert_array_equal(found, stored[[5, 0, 5]])
    d, i = index.search(torch.from_numpy(x[:2]), 3)
    assert isinstance(d, torch.Tensor)
    assert d.dtype == torch.float32
    assert i.dtype == torch.int64


def test_empty(make_index, kind, small):
    q, x = small(kind)
    index = make_index(q, x)
    d, i = index.search(x[:3], 4)
    assert (i == -1).all()
    assert np.isinf(d).all()
    assert index.add(x).search(x[:0], 4)[0].shape == (0, 4)
    index.add(x[:0])
    assert len(index) == len(x)


# -- files and copies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbits", [8, 5, (2, 9, 4)])
@pytest.mark.parametrize("mmap", [False, True])
def test_files(make_index, kind, small, tmp_path, nbits, mmap):
    q, x = small(kind, nbits=nbits)
    index = make_index(q, x).add(x[:333], np.arange(333) * 2 + 1)
    index.save(tmp_path / "i")
    loaded = in_full(annvq.load_index(tmp_path / "i", mmap=mmap, verify=True))
    require_same(index.search(x[:5], 12), loaded.search(x[:5], 12))
    assert loaded.bits_per_vector == index.bits_per_vector
    loaded.add(x[:2])
    assert set(loaded.search(x[:1], 335)[1][0][-335:]) >= {666, 667}
    assert [p.name for p in tmp_path.iterdir()] == ["i"]


def test_damaged_files_are_refused(make_index, kind, small, tmp_path):
    q, x = small(kind)
    make_index(q, x).add(x).save(tmp_path / "i")
    data = (tmp_path / "i").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(data)
        at = int(rng.integers(len(data)))
        bad[at] ^= int(rng.integers(1, 256))
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(FormatError, match="bad"):
            annvq.load_index(tmp_path / "bad")
    for cut in rng.integers(0, len(data), 30):
        (tmp_path / "bad").write_bytes(data[:cut])
        with pytest.raises(FormatError, match="bad"):
            annvq.load_index(tmp_path / "bad")
    with pytest.raises(FormatError, match=r"expected .annvq\.quantizer."):
        annvq.load_quantizer(tmp_path / "i")


def test_copies(make_index, kind, small):
    q, x = small(kind)
    index = make_index(q, x).add(x[:100], np.arange(100) * 3)
    for copied in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        require_same(index.search(x[:5], 12), in_full(copied).search(x[:5], 12))
        copied.add(x[100:])
        assert (len(copied), len(index)) == (600, 100)


def test_merging(make_index, kind, small):
    q, x = small(kind)
    whole, part = make_index(q, x).add(x[:200]), make_index(q, x).add(x[200:], np.arange(200, 600) * 2)
    expected = make_index(q, x).add(x, np.r_[:200, 400:1200:2])
    assert whole.fingerprint() == part.fingerprint()
    assert merge(whole, part) is whole
    require_same(expected.search(x[:5], 20), whole.search(x[:5], 20))
    whole.add(x[:1])
    # The same vector, up to rounding of a network's products in another batch.
    np.testing.assert_allclose(whole.reconstruct(np.array([1199])), whole.reconstruct(np.array([0])), rtol=1e-5)
    before = whole.search(x[:5], 20)
    with pytest.raises(ValueError, match=r"repeated: \[400"):
        merge(whole, part)
    with pytest.raises(ValueError, match="codebooks, centroids and settings"):
        merge(whole, make_index(q, x, metric="ip"))
    require_same(before, whole.search(x[:5], 20))


# -- facts and refusals ----------------------------------------------------------------------------------------------


def test_bits(make_index, index_kind, kind, small):
    q, x = small(kind, nbits=(2, 9, 4))
    index = make_index(q, x).add(x)
    facts = json.loads(json.dumps(index.facts()))
    assert (facts["kind"], facts["vectors"], facts["metric"]) == (index_kind, len(x), "l2")
    assert facts["bits_per_vector"] == index.bits_per_vector > 0
    assert facts["ram_bits_per_vector"] == index.ram_bits_per_vector > 0
    assert repr(index) == f"{type(index).__name__}(600 vectors, dim={q.dim}, metric='l2')"
    assert repr(make_index(q, metric="ip")) == f"{type(index).__name__}(0 vectors, dim={q.dim}, metric='ip')"
    if not takes_norm(index_kind):
        return
    raw = 32 * q.dim if index_kind == "rerank" else 0
    assert make_index(q).bits_per_vector == raw + 15 + (8 if registered_quantizers()[kind].needs_norm else 0)
    assert make_index(q, metric="ip").bits_per_vector == raw + 15
    if registered_quantizers()[kind].needs_norm:
        assert make_index(q, norm="float32").bits_per_vector == raw + 47


def test_refusals(make_index, index_kind, kind, small):
    q, x = small(kind)
    index = make_index(q, x).add(x[:100])
    before = index.search(x[:3], 100)
    bad = x[:5].copy()
    bad[2, 2] = np.inf
    cases = [
        (lambda: index.add(bad), ValueError, "row 2"),
        (lambda: index.add(x[:2], [7, 500]), (ValueError, TypeError), "ids must"),
        (lambda: index.add(x[:2], np.array([500, 500])), ValueError, "differ"),
        (lambda: index.add(x[:2], np.array([-1, 500])), ValueError, "negative"),
        (lambda: index.add(x[:2], np.array([1.0, 2.0])), TypeError, "ids must be int64"),
        (lambda: index.add(x[:2], np.arange(3)), ValueError, r"shape \(2,\)"),
        (lambda: index.search(x[:2], 0), ValueError, "k must be at least 1|k must be in"),
        (lambda: index.search(x[:2], 2.5), TypeError, "k must be an integer"),
        (lambda: index.search(x[:2, :3], 1), ValueError, "queries must be float32 of shape"),
        (lambda: index.search(bad, 1), ValueError, "queries must be finite"),
        (lambda: index.search(x[:2], 1, filter=np.ones((2, 2), bool)), ValueError, "filter must be a bitmap"),
        (lambda: index.remove(np.array([3, 100])), ValueError, "not there"),
        (lambda: index.reconstruct(np.array([100])), ValueError, "not there"),
        (lambda: index.attach(x), ValueError, "nothing to attach"),
        (lambda: make_index(q, metric="l1"), ValueError, "metric must be one of"),
        (lambda: make_index(q, x, metric="cosine").add(np.zeros((1, 12), np.float32)), ValueError, "zero"),
        (lambda: make_index(annvq.make(kind, dim=12, M=3)).add(x), NotFittedError, "fit"),
    ]
    if takes_norm(index_kind):
        cases.append((lambda: make_index(q, norm="int4"), ValueError, "norm must be"))
    if takes_norm(index_kind) and registered_quantizers()[kind].needs_norm:
        cases.append((lambda: make_index(q, norm=None), ValueError, "norm must not be None"))
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    require_same(before, index.search(x[:3], 100))


def test_refused_add_changes_nothing(make_index, small):
    q, x = small("residual")
    index = make_index(q, x)
    index.add(x[:20], np.arange(20))
    before = index.search(x[:3], 20)
    bad = x[:2].copy()
    bad[1, 0] = np.nan
    for rows, ids in ((bad, [50, 51]), (x[:2], [60, 60]), (x[:2], [5, 61]), (x[:2], [-1, 62])):
        with pytest.raises(ValueError):
            index.add(rows, np.array(ids))
    assert len(index) == 20
    require_same(before, index.search(x[:3], 20))


def test_the_largest_id_is_an_id_like_others(make_index, small, tmp_path):
    q, x = small("residual")
    index = make_index(q, x)
    last = np.iinfo(np.int64).max
    index.add(x[:2], np.array([3, last]))
    with pytest.raises(ValueError, match="ids must be given"):
        index.add(x[:1])
    assert len(index) == 2
    index.save(tmp_path / "i")
    for mmap in (False, True):
        again = annvq.load_index(tmp_path / "i", mmap=mmap)
        assert again.search(x[1:2], 1)[1][0, 0] == last
        with pytest.raises(ValueError, match="ids must be given"):
            again.add(x[:1])
        again.add(x[:1], np.array([4]))


def test_fit_trains_the_quantizer(make_index, kind):
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    index = make_index(annvq.make(kind, dim=6, M=2, nbits=3), metric="cosine")
    assert index.fit(x) is index
    d, i = index.add(x).search(x[:20], 5)
    assert (np.diff(d, axis=1) >= 0).all()
    np.testing.assert_allclose(scored(index, x)[i[0]] @ unit(x)[0], 1 - d[0], atol=1e-5)


def test_a_kind_is_registered_once():
    with pytest.raises(ValueError, match="'flat' is registered already: FlatIndex"):

        class Other(Index):
            kind = "flat"

    class Ours(annvq.FlatIndex):
        """Of no kind of its own."""

    assert registered()["flat"] is annvq.FlatIndex
