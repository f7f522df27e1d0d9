"""Codebooks of unequal sizes learn, encode and decode like equal ones, for every kind of table quantizer."""

import numpy as np
import pytest

import annvq


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    return tuple((rng.normal(size=(1500, 12)) @ mixing).astype(np.float32) for _ in range(2))


def error(quantizer, x):
    return float(((x - quantizer.decode(quantizer.encode(x))) ** 2).sum(1).mean())


@pytest.mark.parametrize("kind", ["product", "residual", "additive"])
def test_error_falls_with_every_bit(kind, vectors):
    learn, held = vectors
    fitted = {bits: annvq.make(kind, dim=12, M=3, nbits=bits).fit(learn) for bits in ((3, 3, 3), (3, 5, 4), (5, 5, 5))}
    errors = [error(q, held) for q in fitted.values()]
    assert errors[0] > errors[1] > errors[2]
    unequal = fitted[3, 5, 4]
    assert unequal.bits == 12
    codes = unequal.encode(held)
    assert codes.dtype == np.uint8
    assert (codes.max(axis=0) < [8, 32, 16]).all()
    # Every codebook is in use to its end, not only as far as the smallest one.
    assert (codes.max(axis=0) >= [7, 30, 14]).all()


@pytest.mark.parametrize("kind", ["residual", "additive"])
def test_more_than_eight_bits_beside_fewer(kind, vectors):
    learn, held = vectors
    quantizer = annvq.make(kind, dim=12, M=3, nbits=[4, 6, 9]).fit(learn)
    codes = quantizer.encode(held)
    assert codes.dtype == np.uint16
    assert codes[:, 2].max() > 255
    assert error(quantizer, held) < error(annvq.make(kind, dim=12, M=3, nbits=4).fit(learn), held)
