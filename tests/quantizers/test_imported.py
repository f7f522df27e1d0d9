"""Codebooks from arrays and torch modules."""

import numpy as np
import pytest
import torch
from torch import nn

import annvq


def books(M=3, K=8, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(M, K, width)).astype(np.float32)


class Holder(nn.Module):
    """A layer that keeps its entries under another name than ours."""

    def __init__(self, **entries):
        super().__init__()
        for name, value in entries.items():
            setattr(self, name, value)


SOURCES = {
    "array": lambda b: b,
    "list": list,
    "float64": lambda b: b.astype(np.float64),
    "tensor": torch.from_numpy,
    "parameters": lambda b: [nn.Parameter(torch.from_numpy(x)) for x in b],
    "module": lambda b: Holder(codebooks=nn.Parameter(torch.from_numpy(b))),
    "embeddings": lambda b: nn.ModuleList([nn.Embedding.from_pretrained(torch.from_numpy(x)) for x in b]),
    "layers": lambda b: Holder(
        codebooks=nn.ModuleList([Holder(codebook=nn.Parameter(torch.from_numpy(x))) for x in b])
    ),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["product", "residual", "additive"])
def test_every_source_gives_the_same_quantizer(source, kind):
    b = books()
    q = annvq.from_codebooks(SOURCES[source](b), kind)
    assert q.kind == kind
    assert (q.dim, q.M, q.nbits) == (12 if kind == "product" else 4, 3, 3)
    codes = np.random.default_rng(1).integers(0, 8, (50, 3))
    parts = [b[m][codes[:, m]] for m in range(3)]
    expected = np.concatenate(parts, axis=1) if kind == "product" else np.sum(parts, axis=0)
    np.testing.assert_allclose(q.decode(codes), expected, rtol=1e-6, atol=1e-6)
    x = expected + 0.01 * np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    index = annvq.FlatIndex(q, norm="auto" if kind == "product" else "float32").add(x)
    d, i = index.search(x, 1)
    np.testing.assert_allclose(d[:, 0], ((x - q.decode(q.encode(x))[i[:, 0]]) ** 2).sum(1), atol=1e-4)
    b[:] = 0
    np.testing.assert_allclose(q.decode(codes), expected, rtol=1e-6, atol=1e-6)


def test_sizes_and_dtypes():
    uneven = [books(1, k)[0] for k in (4, 7, 300)]
    q = annvq.from_codebooks(uneven, "residual", beam=3)
    assert q.nbits == (2, 3, 9)
    assert q.beam == 3
    np.testing.assert_array_equal(q.codebooks[1].detach()[7], uneven[1][6])
    half = annvq.from_codebooks(torch.from_numpy(books()).bfloat16(), "product")
    np.testing.assert_array_equal(half.codebooks[0].detach(), torch.from_numpy(books()).bfloat16().float()[0])
    rotation = annvq.Rotation.from_matrix(np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0])
    assert annvq.from_codebooks(books(), "product", transform=rotation).kind == "transformed"
    q = annvq.from_codebooks(books(), "additive")
    assert not q.norm_term.learned
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    assert annvq.FlatIndex(q.fit_norms(x)).add(x).bits_per_vector == 17


def test_refusals():
    bad = books()
    bad[1, 2, 3] = np.nan
    cases = [
        (lambda: annvq.from_codebooks(books(), "pq"), ValueError, "kind must be one of product, residual, additive"),
        (lambda: annvq.from_codebooks([], "product"), ValueError, "at least one codebook"),
        (lambda: annvq.from_codebooks(bad, "product"), ValueError, r"codebooks\[1\] must be finite.*row 2"),
        (lambda: annvq.from_codebooks(books().astype(int), "product"), TypeError, "got int64"),
        (lambda: annvq.from_codebooks(books()[0, 0], "product"), ValueError, r"got \(4,\)"),
        (lambda: annvq.from_codebooks([np.eye(4), np.eye(3)], "residual"), ValueError, r"one width, got \[3, 4\]"),
        (lambda: annvq.from_codebooks(nn.Linear(2, 2), "residual"), TypeError, "Linear has neither"),
        (lambda: annvq.from_codebooks("product", "product"), TypeError, "got str"),
        (lambda: annvq.from_codebooks(books(), "product", beam=2), TypeError, "beam"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
