"""What every gradient estimator must do, inside every quantizer."""

import pytest
import torch
from torch import nn

import annvq
from annvq.training.estimators import NSVQ, registered


@pytest.fixture(params=sorted(registered()))
def estimator(request):
    return registered()[request.param]()


def layer(kind, estimator, nbits=3):
    torch.manual_seed(0)
    return annvq.make(kind, dim=6, M=3, nbits=nbits).train(), estimator


def test_gradient_reaches_codebooks_and_input(kind, estimator):
    q, q.estimator = layer(kind, estimator)
    x = torch.randn(64, 6, requires_grad=True)
    out = q(x)
    # Any loss but the mean squared error to x, in whose gradient NSVQ's noise cancels.
    (out.xhat * torch.arange(6.0)).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    entries = q.trained_parameters()[0].grad
    for m, part in enumerate(entries.split(q.sizes)):
        assert (part[out.codes[:, m].long().unique()].abs().sum(1) > 0).all()
    assert torch.isfinite(entries).all()


def test_eval_mode_decodes(kind, estimator):
    q, q.estimator = layer(kind, estimator)
    x = torch.randn(32, 6)
    q(x)
    out = q.eval()(x)
    assert torch.equal(out.xhat, q.decode(q.encode(x)))
    assert torch.equal(q(x.reshape(4, 8, 6)).xhat, out.xhat.reshape(4, 8, 6))


def test_training_from_random_codebooks_lowers_the_error(kind, estimator):
    q, q.estimator = layer(kind, estimator)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.02)
    test = torch.randn(1000, 6)

    def error():
        with torch.no_grad():
            return float((q.decode(q.encode(test)) - test).square().sum(1).mean())

    q(test[:2])
    before = error()
    for _ in range(150):
        x = torch.randn(256, 6)
        loss = (q(x).xhat - x).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert error() < 0.9 * before


def test_auto_encoder_trains_through_a_quantizer(kind, estimator):
    q, q.estimator = layer(kind, estimator)
    data = torch.randn(512, 3) @ torch.randn(3, 10)
    encoder, decoder = nn.Linear(10, 6), nn.Linear(6, 10)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), *q.parameters()], lr=0.01)
    start = encoder.weight.clone()
    losses = []
    for _ in range(200):
        loss = (decoder(q(encoder(data)).xhat) - data).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert not torch.allclose(encoder.weight, start)


def test_nsvq_keeps_the_length_of_the_error(kind):
    q, q.estimator = layer(kind, NSVQ())
    x = torch.randn(200, 6)
    out = q(x).xhat
    decoded = q.decode(q.encode(x))
    torch.testing.assert_close((x - out).norm(dim=1), (x - decoded).norm(dim=1), rtol=1e-5, atol=1e-6)
    assert ((out - decoded).norm(dim=1) > 1e-4).all()


def test_noise_of_nsvq_has_no_direction_of_its_own():
    torch.manual_seed(0)
    x, xhat = torch.zeros(50_000, 3), torch.tensor([0.0, 3.0, 4.0]).expand(50_000, 3)
    direction = NSVQ()(x, xhat) / 5
    assert direction.mean(0).abs().max() < 0.02
    torch.testing.assert_close(direction.T @ direction / len(x), torch.eye(3) / 3, atol=0.02, rtol=0)
