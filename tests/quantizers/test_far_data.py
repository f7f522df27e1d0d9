"""Squared distances do not suffer where the data lie far from zero; inner products keep the offset."""

import numpy as np
import pytest

import annvq
from annvq.training import KMeans, Recipe

D, N, NQ = 16, 1500, 40
OFFSETS = (0.0, 1e2, 1e3, 1e4)  # in standard deviations of the data


def _data(offset):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * N + NQ, D)) @ (rng.normal(size=(D, D)) * np.linspace(1, 0.1, D))
    x = (x / x.std() + offset * rng.choice([-1.0, 1.0], D)).astype(np.float32)
    return x[:N], x[N : 2 * N], x[2 * N :]


def _index(name):
    def make(kind, **options):
        return annvq.make(kind, dim=D, M=4, nbits=5, **options)

    return {
        "product": lambda: annvq.FlatIndex(make("product")),
        "residual": lambda: annvq.FlatIndex(make("residual")),
        "residual-float": lambda: annvq.FlatIndex(make("residual"), norm="float32"),
        "additive": lambda: annvq.FlatIndex(make("additive", rounds=4)),
        "norm-free": lambda: annvq.FlatIndex(make("residual", norm_free=True)),
        "rotated": lambda: annvq.FlatIndex(make("transformed", transform="rotation", quantizer="residual")),
        "mapped": lambda: annvq.FlatIndex(make("transformed", quantizer="product")),
        "lists": lambda: annvq.IVFIndex(make("residual"), nlist=8, nprobe=8, residual=False),
        "residual-lists": lambda: annvq.IVFIndex(make("residual"), nlist=8, nprobe=8),
        "stages": lambda: annvq.RerankIndex(annvq.FlatIndex(make("residual")), make("residual"), shortlist=30),
    }[name]()


def _squared(q, x):
    return np.square(q[:, None].astype(np.float64) - x[None].astype(np.float64)).sum(-1)


@pytest.mark.parametrize(
    "name",
    [
        "product",
        "residual",
        "residual-float",
        "additive",
        "norm-free",
        "rotated",
        "mapped",
        "lists",
        "residual-lists",
        "stages",
    ],
)
def test_recall_does_not_depend_on_where_the_data_lie(name, tmp_path):
    recalls, errors = [], []
    for offset in OFFSETS:
        learn, base, queries = _data(offset)
        index = _index(name).fit(learn, recipe=Recipe((KMeans(4),)) if "free" not in name else None).add(base)
        distances, ids = index.search(queries, 10)
        true = np.argsort(_squared(queries, base), axis=1)[:, :10]
        recalls.append(np.mean([len({*a} & {*b}) / 10 for a, b in zip(true, ids, strict=True)]))
        errors.append(np.square(index.reconstruct(np.arange(N)).astype(np.float64) - base).sum(1).mean())
        index.save(tmp_path / "index.annvq")
        again = annvq.load_index(tmp_path / "index.annvq", mmap=True).search(queries, 10)
        np.testing.assert_array_equal(again[0], distances)
        np.testing.assert_array_equal(again[1], ids)
    assert min(recalls) > recalls[0] - 0.05, recalls
    assert max(errors) < 1.1 * errors[0], errors


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("name", ["product", "residual-float", "mapped"])
def test_distances_are_those_to_the_decoded_vectors(name, offset):
    learn, base, queries = _data(offset)
    index = _index(name)
    if name == "mapped":
        index = annvq.FlatIndex(index.quantizer, norm="float32")
    index.fit(learn, recipe=Recipe((KMeans(4),))).add(base)
    distances, ids = index.search(queries, N)
    exact = np.take_along_axis(_squared(queries, index.reconstruct(np.arange(N))), ids, axis=1)
    # float32 vectors themselves are only known to offset · 2⁻²⁴.
    np.testing.assert_allclose(distances, exact, rtol=1e-5, atol=1e-5 + 1e-5 * offset)


@pytest.mark.parametrize("kind", ["residual", "additive"])
def test_inner_products_are_those_of_the_vectors_where_they_lie(kind):
    learn, base, queries = _data(1e3)
    index = annvq.FlatIndex(annvq.make(kind, dim=D, M=4, nbits=5), "ip").fit(learn, recipe=Recipe((KMeans(4),)))
    distances, ids = index.add(base).search(queries, 5)
    found = index.reconstruct(ids.ravel()).reshape(NQ, 5, D).astype(np.float64)
    np.testing.assert_allclose(distances, -np.einsum("qd,qkd->qk", queries.astype(np.float64), found), rtol=1e-5)


@pytest.mark.parametrize("norm", ["uint8", "float32"])
@pytest.mark.parametrize("where", ["flat", "lists"])
def test_faiss_gives_the_same_distances(norm, where):
    pytest.importorskip("faiss")
    learn, base, queries = _data(10.0)  # FAISS' own norms are about zero: further out it loses what these do not
    quantizer = annvq.make("residual", dim=D, M=4, nbits=5)
    lists = {"nlist": 8, "nprobe": 8, "residual": False}
    index = annvq.FlatIndex(quantizer, norm=norm) if where == "flat" else annvq.IVFIndex(quantizer, norm=norm, **lists)
    index.fit(learn).add(base)
    distances, ids = index.search(queries, 10)
    theirs, their_ids = annvq.to_faiss(index).search(queries, 10)
    np.testing.assert_allclose(theirs, distances, rtol=1e-3, atol=5e-3)
    assert (their_ids == ids).mean() > 0.99
    back, back_ids = annvq.from_faiss(annvq.to_faiss(index)).search(queries, 10)
    np.testing.assert_allclose(back, distances, rtol=1e-3, atol=5e-3)
    assert (back_ids == ids).mean() > 0.99
