"""What every index must do, checked against a float32 sum in NumPy, bit for bit."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.indexes.contract import registered
from annvq.quantizers import registered as registered_quantizers


def in_full(index):
    """The index itself, looking at every vector unless asked otherwise."""
    if hasattr(index, "nlist"):
        index.search = functools.partial(index.search, nprobe=index.nlist)
    return index


@pytest.fixture(params=sorted(registered()))
def make_index(request):
    """Make an index of each kind in turn, trained where it needs it on vectors that are given."""

    def make(q, x=None, **settings):
        if request.param == "rerank":  # scans another index, here for all that there is
            index = annvq.RerankIndex(annvq.FlatIndex(q, **settings), "float32", shortlist=10_000)
        else:
            index = registered()[request.param](q, **settings)
        return in_full(index if x is None else index.fit(x))

    return make


def byte_terms(q, x, codes, norms):
    """What bytes stand for: the level nearest to the norm and half of the error, less the offsets."""
    assert q.error_share == 0.5
    terms = norms + 0.5 * squared_errors(q, x, codes)
    return q.norm_byte.levels[q.norm_byte.encode(codes, terms.astype(np.float32))]


def squared_errors(q, x, codes):
    """‖x − x̂‖² by the quantizer, whose float32 rounding may decide a byte, once it is known to be right."""
    errors = q.squared_errors(x, codes)
    np.testing.assert_allclose(errors, ((x - q.decode(codes).astype(np.float64)) ** 2).sum(1), rtol=1e-5, atol=1e-6)
    return errors.astype(np.float64)


def adc_scores(index, q, x, queries):
    """Exact ADC in the contract's order of summation."""
    if index.metric == "cosine":
        x = (x / np.sqrt((x.astype(np.float64) ** 2).sum(1))[:, None]).astype(np.float32)
    codes = (q.encode_with_norm(x)[0] if index.norm == "uint8" else q.encode(x)).astype(int)
    luts, bias = q.tables(queries, index.metric)
    norms = q.norms(codes) if index.norm else None
    if index.norm == "uint8":
        norms = byte_terms(q, x, codes, norms)
        first = 0
        for m, size in enumerate(q.sizes):
            luts[:, m, :size] += q.norm_byte.offsets[first : first + size]
            first += size
    score = luts[:, 0, codes[:, 0]]
    for m in range(1, q.M):
        score = score + luts[:, m, codes[:, m]]
    if norms is not None:
        score = score + norms[None]
    score = score + bias[:, None]
    return score


def exact_scores(metric, x, queries):
    """Distances to the vectors themselves, as re-ranking sums them: sixteen lanes, folded in halves."""
    if metric == "cosine":
        queries = (queries / np.sqrt((queries.astype(np.float64) ** 2).sum(1))[:, None]).astype(np.float32)

    def total(terms):
        lanes = np.zeros((*terms.shape[:2], 16), np.float32)
        for j in range(0, terms.shape[2], 16):
            part = terms[..., j : j + 16]
            lanes[..., : part.shape[-1]] += part
        for half in (8, 4, 2, 1):
            lanes = lanes[..., :half] + lanes[..., half:]
        return lanes[..., 0]

    if metric == "l2":
        return total((queries[:, None] - x[None]) ** 2)
    products = total(queries[:, None] * x[None])
    return -products if metric == "ip" else np.float32(1) - products / np.sqrt(total((x * x)[None]))


def reference(index, q, x, ids, queries, k):
    """What a search of everything finds, ties by lower id."""
    rerank = index.kind == "rerank"
    score = exact_scores(index.metric, x, queries) if rerank else adc_scores(index, q, x, queries)
    order = np.lexsort((np.broadcast_to(ids, score.shape), score))[:, :k]
    distances = np.full((len(queries), k), np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    distances[:, : order.shape[1]] = np.take_along_axis(score, order, 1)
    found[:, : order.shape[1]] = ids[order]
    return distances, found


def norms_for(kind, metric):
    return ["uint8", "float32"] if metric == "l2" and registered_quantizers()[kind].needs_norm else ["auto"]


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("nbits", [3, 8, (2, 9, 4)])
def test_results_are_exact(make_index, kind, small, metric, nbits):
    q, x = small(kind, nbits=nbits)
    rng = np.random.default_rng(1)
    ids = rng.permutation(5000)[: len(x)]
    for norm in norms_for(kind, metric):
        index = make_index(q, x, metric=metric, norm=norm)
        index.add(x[:250], ids[:250])
        index.add(x[250:], ids[250:])
        for k in (1, 10, len(x), len(x) + 5):
            d, i = index.search(x[:9], k)
            expected = reference(index, q, x, ids, x[:9], k)
            np.testing.assert_array_equal(i, expected[1])
            np.testing.assert_array_equal(d, expected[0])


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
    for left, right in zip(a.search(x[:5], 20), b.search(x[:5], 20), strict=True):
        np.testing.assert_array_equal(left, right)


def test_filter_and_remove(make_index, kind, small):
    q, x = small(kind)
    ids = np.arange(len(x)) * 3
    index = make_index(q, x).add(x, ids)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.3, 1.0):
        keep = rng.random(len(x)) < share
        expected = reference(index, q, x[keep], ids[keep], x[:4], 10) if keep.any() else None
        bitmap = np.zeros(ids.max() + 1, bool)
        bitmap[ids[keep]] = True
        for allowed in (ids[keep], bitmap):
            d, i = index.search(x[:4], 10, filter=allowed)
            if expected is None:
                assert (i == -1).all()
                assert np.isinf(d).all()
            else:
                np.testing.assert_array_equal(i, expected[1])
                np.testing.assert_array_equal(d, expected[0])
    gone = rng.random(len(x)) < 0.4
    assert index.remove(ids[gone]) == gone.sum()
    assert len(index) == (~gone).sum()
    np.testing.assert_array_equal(index.search(x[:4], 30)[1], reference(index, q, x[~gone], ids[~gone], x[:4], 30)[1])
    index.add(x[gone], ids[gone])
    np.testing.assert_array_equal(index.search(x[:4], 30)[1], reference(index, q, x, ids, x[:4], 30)[1])


def test_reconstruct_and_torch(make_index, kind, small):
    q, x = small(kind)
    index = make_index(q, x).add(torch.from_numpy(x))
    stored = x if index.kind == "rerank" else q.decode(q.encode(x))
    np.testing.assert_array_equal(index.reconstruct(np.array([5, 0, 5])), stored[[5, 0, 5]])
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


@pytest.mark.parametrize("nbits", [8, 5, (2, 9, 4)])
def test_files(make_index, kind, small, tmp_path, nbits):
    q, x = small(kind, nbits=nbits)
    index = make_index(q, x).add(x[:333], np.arange(333) * 2 + 1)
    index.save(tmp_path / "i")
    loaded = in_full(annvq.load_index(tmp_path / "i"))
    for left, right in zip(index.search(x[:5], 12), loaded.search(x[:5], 12), strict=True):
        np.testing.assert_array_equal(left, right)
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


def test_bits(make_index, kind, small):
    q, _ = small(kind, nbits=(2, 9, 4))
    raw = 32 * q.dim if make_index(q).kind == "rerank" else 0
    assert make_index(q).bits_per_vector == raw + 15 + (8 if registered_quantizers()[kind].needs_norm else 0)
    assert make_index(q, metric="ip").bits_per_vector == raw + 15
    if registered_quantizers()[kind].needs_norm:
        assert make_index(q, norm="float32").bits_per_vector == raw + 47


def test_refusals(make_index, kind, small):
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
        (lambda: index.remove(np.array([3, 100])), ValueError, "not there"),
        (lambda: index.reconstruct(np.array([100])), ValueError, "not there"),
        (lambda: make_index(q, metric="l1"), ValueError, "metric must be one of"),
        (lambda: make_index(q, norm="int4"), ValueError, "norm must be"),
        (lambda: make_index(q, x, metric="cosine").add(np.zeros((1, 12), np.float32)), ValueError, "zero"),
        (lambda: make_index(annvq.make(kind, dim=12, M=3)).add(x), NotFittedError, "fit"),
    ]
    if registered_quantizers()[kind].needs_norm:
        cases.append((lambda: make_index(q, norm=None), ValueError, "norm must not be None"))
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    for left, right in zip(before, index.search(x[:3], 100), strict=True):
        np.testing.assert_array_equal(left, right)


def test_fit_trains_the_quantizer(make_index, kind):
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    index = make_index(annvq.make(kind, dim=6, M=2, nbits=3), metric="cosine")
    assert index.fit(x) is index
    d, i = index.add(x).search(x[:20], 5)
    assert (np.diff(d, axis=1) >= 0).all()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(index.reconstruct(i[0]) @ unit[0], 1 - d[0], atol=1e-5)


def test_copies(make_index, kind, small):
    q, x = small(kind)
    index = make_index(q, x).add(x[:100], np.arange(100) * 3)
    for copied in (copy.deepcopy(index), pickle.loads(pickle.dumps(index))):
        for left, right in zip(index.search(x[:5], 12), in_full(copied).search(x[:5], 12), strict=True):
            np.testing.assert_array_equal(left, right)
        copied.add(x[100:])
        assert (len(copied), len(index)) == (600, 100)
