"""Coders do what the quantizers do whose arrays they have, bit for bit."""

import numpy as np
import pytest

import annvq
from annvq.quantizers.coder import Coder
from annvq.quantizers.files import from_stored


@pytest.fixture(params=["plain", "norm-free", "wide"])
def coded(request, table_kind, small):
    """A quantizer, the coder of what it stores, and vectors."""
    if request.param == "norm-free" and table_kind not in ("residual", "additive"):
        pytest.skip("codes that need no norm")
    options = {"norm_free": True} if request.param == "norm-free" else {}
    q, x = small(table_kind, nbits=9 if request.param == "wide" else 4, **options)
    if hasattr(q, "transform") and not q.transform.orthogonal:
        q.transform.set_matrix(np.eye(12) + 0.2 * np.random.default_rng(1).normal(size=(12, 12)))
        q.fit_norms(x)
    return q, from_stored(*q.to_stored()), x


def test_codes_vectors_and_tables(coded):
    q, coder, x = coded
    assert isinstance(coder, Coder)
    assert not hasattr(coder, "parameters")
    assert (coder.kind, coder.config, coder.bits, coder.costs()) == (q.kind, q.config, q.bits, q.costs())
    codes = q.encode(x)
    np.testing.assert_array_equal(coder.encode(x), codes)
    np.testing.assert_array_equal(coder.encode(x, term=coder.norm_term), q.encode(x, term=q.norm_term))
    np.testing.assert_array_equal(coder.decode(codes), q.decode(codes))
    np.testing.assert_array_equal(coder.origin, q.origin)
    for metric in ("l2", "ip", "cosine"):
        for one, other in zip(coder.tables(x[:7], metric), q.tables(x[:7], metric), strict=True):
            np.testing.assert_array_equal(one, other)
    if q.needs_norm:
        np.testing.assert_array_equal(coder.norms(codes), q.norms(codes))
        np.testing.assert_array_equal(coder.keep(coder.norm_term, x, codes), q.keep(q.norm_term, x, codes))


def test_they_are_stored_alike_and_become_the_quantizer_again(coded):
    q, coder, _ = coded
    assert coder.to_bytes() == q.to_bytes()
    module = coder.as_module()
    assert type(module) is type(q)
    assert coder.as_module() is module
    assert module.to_bytes() == q.to_bytes()


def test_they_learn_norms_but_no_codebooks(coded):
    q, coder, x = coded
    with pytest.raises(TypeError, match=r"has no fit: call as_module\(\)\.fit"):
        coder.fit(x)
    with pytest.raises(TypeError, match=r"has no forward: call as_module\(\)\.forward"):
        coder(x)
    if q.needs_norm:
        np.testing.assert_array_equal(coder.fit_norms(x[:100]).norm_term.levels, q.fit_norms(x[:100]).norm_term.levels)


def test_more_codebooks_than_native_search_takes():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    books = np.random.default_rng(1).normal(size=(65, 2, 4)).astype(np.float32)
    q = annvq.from_codebooks(books, "residual", beam=2)
    np.testing.assert_array_equal(from_stored(*q.to_stored()).encode(x), q.encode(x))
