"""A fitted quantizer as a layer goes through torch.export and torch.compile: the same codes but for near ties."""

import io

import numpy as np
import pytest
import torch
from torch import nn

import annvq
import annvq.errors

D = 8
X = np.random.default_rng(0).normal(size=(600, D)).astype(np.float32)
ROWS = torch.from_numpy(X[:64])

KINDS = {
    "product": lambda: annvq.ProductVQ(D, 2, 4),
    "product-uneven": lambda: annvq.ProductVQ(D, 2, [3, 5]),
    "product-wide": lambda: annvq.ProductVQ(D, 2, 9),
    "residual": lambda: annvq.ResidualVQ(D, 3, 4),
    "rotated-product": lambda: annvq.RotatedProductVQ(D, 2, 4),
    "linear": lambda: annvq.Transformed(annvq.LinearMap(D, shift=True), annvq.ResidualVQ(D, 2, 4)),
    "additive": lambda: annvq.AdditiveVQ(D, 2, 4),
}


class Encoder(nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x):
        return self.quantizer.encode(x)


class Decoder(Encoder):
    def forward(self, codes):
        return self.quantizer.decode(codes)


@pytest.fixture(scope="module", params=KINDS)
def quantizer(request):
    made = KINDS[request.param]()
    x = np.concatenate([X, X + 1], dtype=np.float32)
    return made.fit(x + np.float32(3)).eval()


def exported(module, *arguments):
    dynamic = {0: torch.export.Dim("n", min=2, max=4096)}
    return torch.export.export(module, arguments, dynamic_shapes=(dynamic,)).module()


def compiled(module, *arguments):
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, backend="eager")


def require_codes(quantizer, x, found):
    """``found`` (n, M) are the codes of ``x``, or where they differ as near to it."""
    expected = quantizer.encode(x)
    assert found.dtype == expected.dtype
    near, best = ((x - quantizer.decode(codes)).square().sum(1) for codes in (found, expected))
    if quantizer.kind == "additive":  # a beam search, where local search is better
        assert near.mean() <= 1.25 * best.mean()
        return
    assert (found.int() == expected.int()).all(1).float().mean() > 0.97
    torch.testing.assert_close(near, best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("traced", [exported, compiled])
def test_the_layer(quantizer, traced):
    x = ROWS + 3
    layer = traced(quantizer, x)
    for rows in (x, x[:7], x.repeat(5, 1)):
        with torch.no_grad():
            xhat, codes = layer(rows)
        require_codes(quantizer, rows, codes)
        torch.testing.assert_close(xhat, quantizer.decode(codes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("traced", [exported, compiled])
def test_encode_and_decode(quantizer, traced):
    x = ROWS + 3
    encode = traced(Encoder(quantizer), x)
    codes = encode(x[:20])
    require_codes(quantizer, x[:20], codes)
    decode = traced(Decoder(quantizer), quantizer.encode(x))
    torch.testing.assert_close(decode(codes), quantizer.decode(codes), rtol=1e-4, atol=1e-4)


def test_tensors_of_more_dimensions(quantizer):
    x = (ROWS + 3).reshape(4, 4, 4, D)
    xhat, codes = compiled(quantizer)(x)
    assert xhat.shape == x.shape
    assert codes.shape == (4, 4, 4, quantizer.M)
    require_codes(quantizer, x.reshape(-1, D), codes.reshape(-1, quantizer.M))


def test_an_exported_program_in_a_file():
    made = annvq.ProductVQ(D, 2, 4).fit(X).eval()
    file = io.BytesIO()
    torch.export.save(torch.export.export(Encoder(made), (ROWS,)), file)
    file.seek(0)
    require_codes(made, ROWS, torch.export.load(file).module()(ROWS))


def test_norm_free_codes_are_decoded_but_not_encoded():
    made = annvq.ResidualVQ(D, 2, 4, norm_free=True).fit(X).eval()
    codes = made.encode(ROWS)
    torch.testing.assert_close(exported(Decoder(made), codes)(codes), made.decode(codes))
    with pytest.raises(NotImplementedError, match="norm-free codes are chosen by a search that cannot be exported"):
        exported(Encoder(made), ROWS)
    transformed = annvq.Transformed(annvq.Rotation(D), annvq.ResidualVQ(D, 2, 4, norm_free=True)).fit(X).eval()
    with pytest.raises(NotImplementedError, match="norm-free codes"):
        exported(Encoder(transformed), ROWS)


def test_outside_of_a_trace_an_unfitted_layer_is_refused():
    with pytest.raises(annvq.errors.NotFittedError, match="forward in eval mode"):
        annvq.ProductVQ(D, 2, 4).eval()(ROWS)
