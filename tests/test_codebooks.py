"""Codebooks as arrays: where they lie, what they decode to, and one value for as long as a parameter holds it."""

import copy
import pickle

import numpy as np
import pytest
import torch

import annvq
from annvq.codebooks import Codebooks, KeptCodebooks
from annvq.training import KMeans, Recipe


def squares(queries, entries):
    return np.square(queries[:, None].astype(np.float64) - entries).sum(2)


def kept_tables(kept, queries, weight, sizes=(32,), starts=(0,)):
    return kept.of(weight, sizes, starts, queries.shape[1]).tables(queries, squared=True).build()


def test_kept_codebooks_follow_a_parameter_however_it_changes():
    queries = np.random.default_rng(0).random((3, 4), np.float32)
    kept = KeptCodebooks()

    def check(weight):
        for _ in range(2):
            expected = squares(queries, weight.detach().numpy())
            np.testing.assert_allclose(kept_tables(kept, queries, weight)[:, 0], expected, rtol=1e-5)

    weight = torch.nn.Parameter(torch.rand(32, 4))
    check(weight)
    with torch.no_grad():
        weight[31, 3] += 1
    check(weight)
    weight.data[0, 0] += 1  # which PyTorch does not count as a change
    check(weight)
    weight.detach().numpy()[1, 1] += 1
    check(weight)
    weight.sum().backward()
    torch.optim.Adam([weight], lr=0.1).step()
    check(weight)
    for _ in range(20):  # memory that is let go may be used again
        weight.data = torch.rand(32, 4)
        check(weight)
    check(torch.nn.Parameter(torch.rand(32, 4)))
    with torch.inference_mode():
        made_there = torch.rand(32, 4)
        check(made_there)
        made_there += 1
        check(made_there)


def test_the_same_value_is_the_same_object():
    kept, weight = KeptCodebooks(), torch.rand(32, 4)
    books = kept.of(weight, (32,), (0,), 4)
    assert kept.of(weight, (32,), (0,), 4) is books
    halves = kept.of(weight, (16, 16), (0, 0), 4)
    assert [len(part) for part in halves.split()] == [16, 16]
    before = weight.numpy().copy()
    weight[0, 0] += 1
    assert kept.of(weight, (16, 16), (0, 0), 4) is not halves
    np.testing.assert_array_equal(halves.entries, before)  # a value: it does not change
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        np.testing.assert_array_equal(other.of(weight, (32,), (0,), 4).entries, weight.numpy())


@pytest.mark.parametrize(("starts", "dim"), [((0, 0, 0), 4), ((0, 4, 8), 12), ((2, 0, 5), 9)])
def test_sums(starts, dim):
    rng = np.random.default_rng(1)
    sizes = (3, 8, 5)
    books = Codebooks(rng.normal(size=(16, 4)).astype(np.float32) + 3, sizes, starts, dim)
    codes = np.stack([rng.integers(size, size=20) for size in sizes], 1)
    expected, moved = np.zeros((20, dim)), np.zeros((20, dim))
    for m, (book, start) in enumerate(zip(books.split(), starts, strict=True)):
        expected[:, start : start + 4] += book[codes[:, m]]
        moved[:, start : start + 4] += book[codes[:, m]] - book.mean(0, dtype=np.float64)
    np.testing.assert_allclose(books.decode(codes), expected, rtol=1e-6)
    np.testing.assert_allclose(books.whole.decode(codes), expected, rtol=1e-6)
    np.testing.assert_allclose(books.about(True).decode(codes), moved, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected - moved, np.broadcast_to(books.centre, moved.shape), rtol=1e-4)
    variances = [float(book.astype(np.float64).var(0).sum()) for book in books.split()]
    np.testing.assert_allclose(books.energies, variances)


@pytest.mark.parametrize("kind", ["product", "residual", "additive"])
def test_one_vector_is_coded_by_the_encoder_that_is_there(kind, monkeypatch):
    """Encoders and their Gram matrices are made once, not for every vector that is added."""
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    index = annvq.FlatIndex(annvq.make(kind, dim=8, M=2, nbits=4).fit(x, recipe=Recipe((KMeans(2),))))
    index.add(x[:10])
    made = []
    for name in ("ProductEncoder", "AdditiveEncoder"):
        monkeypatch.setattr(f"annvq.codebooks.{name}", lambda *_: made.append(1))
    index.add(x[10:11]).upsert(x[11:12], np.array([3])).search(x[:1], 2)
    assert made == []
