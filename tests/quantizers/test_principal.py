"""Codes of principal axes."""

import numpy as np
import pytest
import torch

import annvq
from annvq.training.learn.rotation import dealt


def vectors(n, dim=24, seed=0):
    """Variances that fall from 1 by a quarter from axis to axis, turned at random."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(dim, dim)))[0]
    return (rng.normal(size=(n, dim)) * 0.75 ** (np.arange(dim) / 2) @ turn).astype(np.float32)


@pytest.mark.parametrize("emphasis", [0.0, 0.5, 1.0])
def test_axes_are_stretched_by_their_variance(emphasis):
    x = vectors(4000)
    q = annvq.PrincipalProductVQ(24, 6, 5, emphasis=emphasis).fit(x)
    y = q.transform(torch.from_numpy(x - x.mean(0))).detach().numpy().astype(np.float64)
    covariance, variance = np.cov(y.T), np.linalg.eigvalsh(np.cov(x.T))[::-1]
    off = covariance - np.diag(np.diag(covariance))
    assert np.abs(off).max() < 0.05 * np.diag(covariance).max()  # (some rows are held out of the fit)
    found = np.sort(np.diag(covariance))[::-1]
    expected = variance ** (1 + emphasis)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=0.1)
    assert q.transform.orthogonal == (emphasis == 0)


def test_sub_spaces_have_about_equal_volume():
    variance = 0.75 ** np.arange(24.0)
    order = np.array(dealt(variance, [4] * 6))
    assert sorted(order) == list(range(24))
    volumes = np.log(variance[order]).reshape(6, 4).sum(1)
    assert volumes.max() - volumes.min() < 3 * abs(np.log(0.75))
    order = np.array(dealt(variance, [7, 8, 9]))  # of unequal width: each axis once
    assert sorted(order) == list(range(24))


def test_inner_products_gain_by_emphasis():
    """Queries are like the data, so that errors along axes of much variance cost more."""
    x, queries = vectors(6000), vectors(300, seed=1)
    missed = {}
    for emphasis in (0.0, 0.5):
        q = annvq.PrincipalProductVQ(24, 6, 6, emphasis=emphasis).fit(x)
        rest = (x - q.decode(q.encode(x))).astype(np.float64)
        missed[emphasis] = np.square(queries @ rest.T).mean()
    assert missed[0.5] < 0.97 * missed[0.0]


def test_groups_beat_products_at_equal_bits():
    x = vectors(6000)
    errors = []
    for kind in ("principal-additive", "principal-product"):
        q = annvq.make(kind, dim=24, M=6, nbits=5, emphasis=0).fit(x[:5000])
        errors.append(np.square(x[5000:] - q.decode(q.encode(x[5000:]))).sum(1).mean())
    assert errors[0] < 0.95 * errors[1]


def test_what_is_refused():
    for bad, error in ((True, TypeError), ("0.5", TypeError), (1.5, ValueError), (float("nan"), ValueError)):
        with pytest.raises(error, match="emphasis must be"):
            annvq.PrincipalProductVQ(24, 6, emphasis=bad)


def test_many_groups_are_searched_by_fewer_rounds():
    rounds = [annvq.PrincipalAdditiveVQ(64, M, 4, groups=M // 2).quantizer.rounds for M in (8, 16, 18)]
    assert rounds == [32, 32, 8]
    asked = annvq.PrincipalAdditiveVQ(64, 18, 4, groups=9, rounds=40)
    assert asked.quantizer.rounds == asked.config["rounds"] == 40
    assert annvq.PrincipalAdditiveVQ(**asked.config).quantizer.rounds == 40
