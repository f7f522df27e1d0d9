"""Transformed quantizers against float64, for every transform with every quantizer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import annvq
from annvq.errors import FormatError
from annvq.training import KMeans, Recipe

D, M = 12, 3
QUICK = Recipe((KMeans(4),))


def make(transform, quantizer, shift, seed=0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(500, D)) @ rng.normal(size=(D, D)) + 5 * rng.normal(size=D)).astype(np.float32)
    matrix = np.linalg.qr(rng.normal(size=(D, D)))[0]
    if transform == "linear":
        matrix = matrix * np.linspace(0.5, 2, D)
    cls = {"rotation": annvq.Rotation, "linear": annvq.LinearMap}[transform]
    mapping = cls.from_matrix(matrix.astype(np.float32), x.mean(0) if shift else None)
    y = (x - (x.mean(0) if shift else 0)).astype(np.float64) @ matrix.T
    inner = annvq.make(quantizer, dim=D, M=M, nbits=(2, 5, 4)).fit(y.astype(np.float32), recipe=QUICK)
    return annvq.Transformed(mapping, inner), x, matrix


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("quantizer", ["product", "residual", "additive"])
@pytest.mark.parametrize("transform", ["rotation", "linear"])
def test_agrees_with_float64(transform, quantizer, shift):
    q, x, matrix = make(transform, quantizer, shift)
    mean = x.mean(0).astype(np.float64) if shift else np.zeros(D)
    codes = q.encode(x)
    y = (x - mean) @ matrix.T
    inner = q.quantizer
    assert (inner.encode(y.astype(np.float32)) == codes).all(1).mean() > 0.98
    xhat = inner.decode(codes).astype(np.float64) @ np.linalg.inv(matrix).T + mean
    np.testing.assert_allclose(q.decode(codes), xhat, rtol=1e-5, atol=1e-4)
    assert q.needs_norm == (quantizer != "product" or transform == "linear")
    for metric in ("l2", "ip", "cosine"):
        luts, bias = q.tables(x[:9], metric)
        score = luts[:, np.arange(M), codes.astype(int)].sum(-1, dtype=np.float64) + bias[:, None]
        if metric == "l2" and q.needs_norm:
            np.testing.assert_allclose(q.norms(codes), ((xhat - q.origin) ** 2).sum(1), rtol=1e-4)
            score = score + q.norms(codes)
        a = x[:9].astype(np.float64)
        unit = a / np.linalg.norm(a, axis=1, keepdims=True)
        expected = {"l2": ((a[:, None] - xhat) ** 2).sum(-1), "ip": -a @ xhat.T, "cosine": 1 - unit @ xhat.T}[metric]
        np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("transform", ["rotation", "linear"])
def test_files_hold_transform_and_quantizer(transform, tmp_path):
    q, x, _ = make(transform, "product", True)
    q.fit_norms(x)
    index = annvq.FlatIndex(q).add(x)
    index.save(tmp_path / "i")
    loaded = annvq.load_index(tmp_path / "i")
    for left, right in zip(index.search(x[:5], 9), loaded.search(x[:5], 9), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(loaded.quantizer.encode(x), q.encode(x))
    state = q.state_dict()
    twin = annvq.make("transformed", **q.config)
    twin.load_state_dict(state)
    np.testing.assert_array_equal(twin.eval().encode(x), q.encode(x))
    with pytest.raises(FormatError):
        annvq.load_quantizer(tmp_path / "i")


def test_a_rotation_stays_one_under_any_optimizer():
    q = annvq.RotatedProductVQ(8, 2, 3).train()
    optimizer = torch.optim.SGD(q.parameters(), lr=0.05)
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        loss = (q(x).xhat - x).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rotation = q.eval().transform.matrix().detach().double()
    assert not torch.allclose(rotation, torch.eye(8, dtype=torch.float64), atol=1e-3)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(8, dtype=torch.float64), atol=1e-5, rtol=0)
    again = annvq.make("rotated-product", **q.config)
    again.load_state_dict(q.state_dict())
    assert torch.equal(again.eval().transform.matrix(), q.transform.matrix())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_no_row_depends_on_its_batch(rows, seed):
    q, x, _ = make("linear", "product", True)
    pick = np.random.default_rng(seed).integers(0, len(x), rows)
    np.testing.assert_array_equal(q.encode(x[pick]), q.encode(x)[pick])
    codes = q.encode(x)
    np.testing.assert_array_equal(q.decode(codes[pick]), q.decode(codes)[pick])
    np.testing.assert_array_equal(q.norms(codes[pick]), q.norms(codes)[pick])


def test_refusals():
    product = annvq.ProductVQ(8, 2, 3)
    nearly = np.eye(8, dtype=np.float32)
    nearly[0, 1] = 0.01
    singular = np.ones((8, 8), np.float32)
    rotation = annvq.Rotation(8)
    cases = [
        (lambda: annvq.Transformed(np.eye(8), product), TypeError, "transform must be a Rotation or a LinearMap"),
        (lambda: annvq.Transformed(annvq.Rotation(4), product), ValueError, "dim=8, got dim=4"),
        (lambda: annvq.Transformed(rotation, annvq.RotatedProductVQ(8, 2)), TypeError, "quantizer must be a product"),
        (lambda: annvq.Rotation.from_matrix(nearly), ValueError, "must be orthogonal.*0.01; LinearMap takes"),
        (lambda: annvq.LinearMap.from_matrix(singular), ValueError, "must be invertible"),
        (lambda: annvq.LinearMap.from_matrix(singular[:4]), ValueError, "must be square"),
        (lambda: annvq.LinearMap.from_matrix(nearly * np.nan), ValueError, "matrix must be finite"),
        (lambda: rotation.set_matrix(np.eye(8), np.zeros(8)), ValueError, "shift must be None"),
        (lambda: annvq.Rotation.from_matrix(np.eye(8), np.zeros(7)), ValueError, r"shift must have shape \(8,\)"),
        (lambda: annvq.make("transformed", transform="shear", dim=8, M=2), ValueError, "transform must be one of"),
        (lambda: annvq.make("transformed", quantizer="transformed", dim=8, M=2), ValueError, "not be transformed"),
        (lambda: annvq.Transformed(rotation, product).set_codebooks([]), TypeError, r"\.quantizer\.set_codebooks"),
        (lambda: annvq.RotatedProductVQ(9, 10), ValueError, "M must be at most dim=9"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    assert torch.equal(rotation.matrix(), torch.eye(8))
