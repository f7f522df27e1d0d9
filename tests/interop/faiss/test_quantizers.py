"""FAISS quantizers as annvq's: the same vectors for the same codes, and codes as good for new vectors."""

import faiss
import numpy as np
import pytest

import annvq
from annvq.indexes.contract import Index

FAISS = {
    "pq": (lambda: faiss.ProductQuantizer(8, 4, 5), "product"),
    "rq": (lambda: faiss.ResidualQuantizer(8, 3, 5), "residual"),
    "lsq": (lambda: faiss.LocalSearchQuantizer(8, 3, 4), "additive"),
    "prq": (lambda: faiss.ProductResidualQuantizer(8, 2, 2, 4), "product-additive"),
    "plsq": (lambda: faiss.ProductLocalSearchQuantizer(8, 2, 2, 4), "product-additive"),
}


@pytest.mark.parametrize("name", FAISS)
def test_faiss_quantizers(name):
    build, kind = FAISS[name]
    theirs = build()
    with pytest.raises(ValueError, match="must be trained"):
        annvq.from_faiss(theirs)
    x = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    theirs.train(x)
    q = annvq.from_faiss(theirs)
    assert q.kind == kind
    packed = theirs.compute_codes(x)
    bits = list(q.bits_per_codebook)
    codes = faiss.unpack_bitstrings(packed, bits)
    decoded = theirs.decode(packed)
    np.testing.assert_allclose(q.decode(codes), decoded, rtol=1e-5, atol=1e-5)
    luts, bias = q.tables(x[:5])
    score = luts[:, np.arange(q.M), codes].sum(-1, dtype=np.float64) + bias[:, None]
    if q.needs_norm:
        score += q.norms(codes)
    np.testing.assert_allclose(score, ((x[:5, None] - decoded.astype(np.float64)) ** 2).sum(-1), atol=1e-4)
    # What annvq encodes anew is as close as what FAISS encoded.
    ours = np.square(x - q.decode(q.encode(x))).sum(1).mean()
    assert ours <= 1.02 * np.square(x - decoded).sum(1).mean()
    if kind == "product":
        assert (q.encode(x) == codes).all(1).mean() > 0.99


def test_from_faiss_refuses_other_things():
    with pytest.raises(TypeError, match="must be a faiss Index or quantizer, got int"):
        annvq.from_faiss(3)
    with pytest.raises(TypeError, match="must be an annvq Index"):
        annvq.to_faiss(faiss.IndexPQ(8, 2, 4))
    assert not isinstance(annvq.ProductVQ(8, 2, 4), Index)
