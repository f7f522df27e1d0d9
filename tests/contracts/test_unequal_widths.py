"""Sub-spaces of unequal width: any number of codebooks up to the dimension, for every kind that has sub-spaces."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import annvq
from annvq import complexity
from annvq.errors import FormatError
from annvq.quantizers import load_quantizer
from annvq.training import KMeans, Recipe, Replacement

KINDS = {
    "product": {},
    "rotated-product": {},
    "principal-product": {},
    "product-additive": {"groups": 3},
    "principal-additive": {"groups": 3},
    "transformed": {"transform": "linear", "quantizer": "product"},
}
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(700, 11)) @ RNG.normal(size=(11, 11))).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    """``fitted(kind)``: 11 dimensions in three sub-spaces, of 3, 4 and 4, learned by the kind's own recipe."""
    made = {}

    def fit(kind):
        if kind not in made:
            M = 6 if "groups" in KINDS[kind] else 3
            made[kind] = annvq.make(kind, dim=11, M=M, nbits=4, **KINDS[kind]).fit(X, seed=1)
        return made[kind]

    return fit


def parts_of(dim, M):
    """Slices of dimensions: as even as can be, the wider ones last."""
    low = dim // M
    ends = np.cumsum([low] * (M - dim % M) + [low + 1] * (dim % M)).tolist()
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def errors(q, x):
    return np.square(x - q.decode(q.encode(x)), dtype=np.float64).sum(1)


# -- product codes, by brute force -----------------------------------------------------------------------------------


@given(data=st.data(), dim=st.integers(1, 23))
def test_any_number_of_codebooks(data, dim):
    M = data.draw(st.integers(1, dim))
    nbits = data.draw(st.lists(st.integers(1, 6), min_size=M, max_size=M))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    q = annvq.ProductVQ(dim, M, nbits)
    parts = parts_of(dim, M)
    assert [(a, a + w) for a, w in zip(q.starts, q.widths, strict=True)] == [(p.start, p.stop) for p in parts]
    books = [rng.normal(size=(1 << b, p.stop - p.start)).astype(np.float32) for b, p in zip(nbits, parts, strict=True)]
    q.set_codebooks(books).eval()
    x = rng.normal(size=(40, dim)).astype(np.float32)
    found, xhat = q.encode(x), np.empty((40, dim), np.float32)
    in_torch = np.asarray(q._encode_in_torch(x))
    for m, (book, part) in enumerate(zip(books, parts, strict=True)):
        np.testing.assert_array_equal(q.codebooks[m].detach().numpy(), book)
        d = np.square(x[:, None, part].astype(np.float64) - book).sum(2)
        chosen = d[np.arange(40), found[:, m]]
        np.testing.assert_allclose(chosen, d.min(1), rtol=1e-4, atol=1e-5)
        # Where two entries are about equally near, roundings decide, and these are not PyTorch's.
        clear = np.partition(d, 1, axis=1)[:, 1] - d.min(1) > 1e-5
        np.testing.assert_array_equal(in_torch[clear, m], found[clear, m])
        np.testing.assert_allclose(d[np.arange(40), in_torch[:, m]], d.min(1), rtol=1e-4, atol=1e-5)
        xhat[:, part] = book[found[:, m]]
    np.testing.assert_array_equal(q.decode(found), xhat)
    for metric in ("l2", "ip"):
        distances, ids = annvq.FlatIndex(q, metric).add(x).search(x[:5], 40)
        wide, of = x[:5, None].astype(np.float64), xhat[None].astype(np.float64)
        expected = np.square(wide - of).sum(2) if metric == "l2" else -(wide * of).sum(2)
        np.testing.assert_allclose(distances, np.take_along_axis(expected, ids, 1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(distances, np.sort(expected, 1), rtol=1e-4, atol=1e-4)
    again = load_quantizer(q.to_bytes())
    np.testing.assert_array_equal(again.encode(x), found)
    sizes = [1 << b for b in nbits]
    products = sum(size * (p.stop - p.start) for size, p in zip(sizes, parts, strict=True))
    assert q.costs().multiplications == products
    assert complexity.tables("product", dim=dim, M=M, nbits=nbits).multiplications == products
    assert complexity.memory("product", dim=dim, M=M, nbits=nbits, n=0).codebooks == 4 * products


def test_tables_are_those_of_each_part_alone():
    q = annvq.ProductVQ(11, 3, 4).fit(X, recipe=Recipe((KMeans(3),)))
    for metric in ("l2", "ip", "cosine"):
        luts = q.tables(X[:6], metric).luts
        unit = X[:6] / np.linalg.norm(X[:6], axis=1, keepdims=True) if metric == "cosine" else X[:6]
        for m, part in enumerate(parts_of(11, 3)):
            alone = annvq.ProductVQ(part.stop - part.start, 1, 4).set_codebooks([q.codebooks[m].detach()]).eval()
            expected = alone.tables(np.ascontiguousarray(unit[:, part]), "l2" if metric == "l2" else "ip").luts[:, 0]
            if metric == "cosine":
                np.testing.assert_allclose(luts[:, m], expected, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(luts[:, m], expected)


# -- every kind ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_learned_codes(fitted, kind):
    q = fitted(kind)
    codes = q.encode(X)
    np.testing.assert_array_equal(codes, load_quantizer(q.to_bytes()).encode(X))
    again = annvq.make(kind, **q.config).fit(X, seed=1)
    np.testing.assert_array_equal(again.codebooks_copy(), q.codebooks_copy())
    assert errors(q, X).mean() < np.square(X - X.mean(0)).sum(1).mean() / 2


def test_more_codebooks_are_better_whether_they_divide_the_dimension_or_not():
    mean = [errors(annvq.ProductVQ(11, M, 4).fit(X, recipe=Recipe((KMeans(10),))), X).mean() for M in range(1, 12)]
    assert (np.diff(mean) < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_entries_end_with_their_dimensions(fitted, kind):
    q = fitted(kind)
    inner = getattr(q, "quantizer", q)
    assert inner.widths[0] == 3
    for book, width, (a, b) in zip(inner.codebooks, inner.widths, itertools.pairwise(inner.offsets), strict=True):
        assert book.shape == (b - a, width)
        assert not inner.codebooks_copy()[a:b, width:].any()
    total = np.zeros((50, 11))
    codes = q.encode(X[:50]).astype(int)
    view = q.scan_view()
    for m, (book, start, width) in enumerate(zip(view.codebooks, view.starts, view.widths, strict=True)):
        total[:, start : start + width] += book.detach().numpy()[codes[:, m]]
    np.testing.assert_allclose(q.decode(codes.astype(np.uint8)), total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_layer(fitted, kind):
    q = annvq.make(kind, **fitted(kind).config)
    q.fit(X, recipe=Recipe((KMeans(3),)))
    before = q.encode(X)
    inner = getattr(q, "quantizer", q)
    np.testing.assert_array_equal(q._encode_in_torch(X) == before, True)
    np.testing.assert_allclose(
        q._decode(torch.from_numpy(before.astype(np.int64))).detach(), q.decode(before), atol=1e-4
    )
    optimizer = torch.optim.Adam(q.parameters(), lr=0.01)
    q.train()
    for _ in range(3):
        optimizer.zero_grad()
        (q(torch.from_numpy(X)).xhat - torch.from_numpy(X)).square().mean().backward()
        optimizer.step()
    width, (a, b) = inner.widths[0], inner.offsets[:2]
    assert not inner.codebooks_copy()[a:b, width:].any()


def test_replaced_entries_end_with_their_dimensions():
    q = annvq.ProductVQ(11, 3, 4).fit(X, recipe=Recipe((KMeans(3),)))
    before, used = q.codebooks_copy(), torch.ones(48)
    used[[2, 20]] = 0
    assert Replacement(period=1)(q, used, torch.Generator(), []) == [1, 1, 0]
    after = q.codebooks_copy()
    assert np.flatnonzero((after != before).any(1)).tolist() == [2, 20]
    assert not after[:16, 3:].any()
    assert (after[2, :3] != before[2, :3]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_indexes_find_the_nearest_decoded_vectors(fitted, kind, metric):
    q = fitted(kind)
    norm = {"norm": "float32"} if q.needs_norm and metric == "l2" else {}
    for index in (annvq.FlatIndex(q, metric, **norm), annvq.IVFIndex(q, metric=metric, nlist=5, nprobe=5, **norm)):
        index.fit(X).add(X)
        distances, ids = index.search(X[:6], 30)
        stored = index.reconstruct(np.arange(len(X))).astype(np.float64)
        if metric == "cosine" and index.coding.length:
            stored /= index.coding.length.value
        share = index.coding.share or 0
        queries = X[:6].astype(np.float64)
        if metric == "cosine":
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        expected = np.square(queries[:, None] - stored).sum(2) if metric == "l2" else -(queries @ stored.T)
        expected += metric == "cosine"
        expected -= share * (1 - np.square(stored).sum(1))
        near = {"rtol": 2e-3, "atol": 2e-3 * np.abs(expected).max()}
        np.testing.assert_allclose(distances, np.sort(expected, 1)[:, :30], **near)
        np.testing.assert_allclose(distances, np.take_along_axis(expected, ids, 1), **near)


@pytest.mark.parametrize("refine", ["product", "product-additive"])
def test_re_ranked_by_such_a_code(fitted, refine):
    index = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(11, 2, 4)), fitted(refine), shortlist=200)
    index.fit(X).add(X)
    distances, ids = index.search(X[:5], 9)
    xhat = fitted(refine).decode(fitted(refine).encode(X))
    exact = np.square(X[:5, None].astype(np.float64) - xhat[ids]).sum(2)
    np.testing.assert_allclose(distances, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["product", "rotated-product", "principal-product", "product-additive"])
@pytest.mark.parametrize("lists", [None, False, True])
def test_to_faiss(fitted, kind, lists):
    pytest.importorskip("faiss")
    q = fitted(kind)
    norm = {"norm": "float32"} if q.needs_norm else {}
    index = (
        annvq.FlatIndex(q, **norm) if lists is None else annvq.IVFIndex(q, nlist=4, nprobe=4, residual=lists, **norm)
    )
    if lists and not q.needs_norm:
        index = annvq.IVFIndex(q, nlist=4, nprobe=4, residual=True, norm="float32")
    index.fit(X).add(X)
    theirs = annvq.to_faiss(index)
    distances, ids = index.search(X[:8], 15)
    found, places = theirs.search(X[:8], 15)
    np.testing.assert_allclose(found, distances, rtol=1e-3, atol=1e-2)
    assert (places == ids).mean() > 0.95  # ties and rounding


# -- refusals --------------------------------------------------------------------------------------------------------


def test_refusals():
    cases = [
        (lambda: annvq.ProductVQ(7, 8), "M must be at most dim=7, a dimension for each, got 8"),
        (lambda: annvq.RotatedProductVQ(7, 8), "M must be at most dim=7"),
        (lambda: annvq.ProductAdditiveVQ(3, 8, groups=4), "groups must divide M=8 and be at most dim=3, got 4"),
        (lambda: complexity.wmops("product", dim=7, M=8), "M must be at most dim=7"),
        (lambda: annvq.ProductVQ(7, 2, 1).set_codebooks([np.ones((2, 4))] * 2), r"codebooks\[0\] must have 3 dim"),
        (lambda: annvq.ProductVQ(7, 2, 1).set_codebooks([np.ones((2, 2))] * 2), r"codebooks\[0\] must be .*\(K, 3\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()


def test_a_file_with_entries_beyond_their_dimensions_is_refused(fitted):
    for kind in ("product", "rotated-product"):
        q = annvq.make(kind, **fitted(kind).config).fit(X, recipe=Recipe((KMeans(2),)))
        with torch.no_grad():
            q.weight[0, -1] = 1.0
        with pytest.raises(FormatError, match=r"weight has entries beyond their dimensions"):
            load_quantizer(q.to_bytes())
