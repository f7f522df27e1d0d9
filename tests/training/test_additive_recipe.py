"""The default recipes of residual and additive codes against one another and in their parts."""

import numpy as np
import pytest

import annvq
from annvq.training import Alternate, BestOf, KMeans, Recipe, Refit, SubspaceKMeans
from annvq.training.data import prepare
from annvq.training.learn import kmeans
from annvq.training.learn.alternating import Alternation
from annvq.training.parts import ByGrading, grading


def correlated(seed, n=4000, d=16):
    mixing = np.random.default_rng(9).normal(size=(d // 4, d))
    return (np.random.default_rng(seed).normal(size=(n, d // 4)) @ mixing).astype(np.float32)


def error(quantizer, x):
    return float(((x - quantizer.decode(quantizer.encode(x))) ** 2).sum(1).mean())


@pytest.mark.parametrize("nbits", [3, 5])
def test_additive_codes_are_no_worse_than_residual_ones(nbits):
    learn, held = correlated(0), correlated(1)
    additive, residual = (annvq.make(kind, dim=16, M=4, nbits=nbits).fit(learn) for kind in ("additive", "residual"))
    assert error(additive, held) <= error(residual, held) * 1.01


def test_beyond_many_entries_learning_from_scratch_may_fail(monkeypatch):
    rng = np.random.default_rng(0)
    learn, held = (rng.normal(size=(2000, 8)).astype(np.float32) for _ in range(2))
    residual = error(annvq.ResidualVQ(8, 3, 5).fit(learn), held)

    def zeros(self, quantizer, data):
        if not bool(quantizer.fitted):
            quantizer.set_codebooks([np.zeros((32, 8), np.float32)] * 3)

    def fitted():
        quantizer = annvq.AdditiveVQ(8, 3, 5)
        return quantizer.fit(learn, recipe=Recipe(quantizer.norm_recipe().parts[:1]))

    for part in (Alternate, Refit, SubspaceKMeans):
        monkeypatch.setattr(part, "__call__", zeros)
    monkeypatch.setattr("annvq.quantizers.modules.additive.FLAT", np.inf)
    few = error(fitted(), held)
    monkeypatch.setattr("annvq.quantizers.modules.additive.MANY", 95)
    many = error(fitted(), held)
    assert many <= 1.1 * residual < 0.5 * few


@pytest.mark.parametrize("d", [16, 3])
def test_subspace_kmeans_gives_additive_codebooks_the_codes_of_a_product_quantizer(d):
    learn, held = correlated(0)[:, :d], correlated(1)[:, :d]
    M = min(4, d)
    product = annvq.ProductVQ(d, M, 4).fit(learn, recipe=Recipe((KMeans(10),)))
    additive = annvq.AdditiveVQ(d, M, 4, rounds=0).fit(learn, recipe=Recipe((SubspaceKMeans(10),)))
    np.testing.assert_array_equal(additive.encode(held), product.encode(held))
    np.testing.assert_allclose(additive.decode(product.encode(held)), product.decode(product.encode(held)), rtol=1e-6)


def test_more_codebooks_than_dimensions_leave_some_constant():
    learn = correlated(0)[:, :2]
    books = annvq.AdditiveVQ(2, 3, 4).fit(learn, recipe=Recipe((SubspaceKMeans(5),))).codebooks_copy().reshape(3, 16, 2)
    assert sorted(len(np.unique(book, axis=0)) for book in books) == [1, 16, 16]


def test_best_of_keeps_the_better_end():
    learn, held = correlated(0), correlated(1)
    hot = Alternate(Alternation(iterations=3, rounds=1, temperature=3.0))
    good = Alternate(Alternation(iterations=40))

    def fitted(*parts):
        return annvq.AdditiveVQ(16, 3, 4).fit(learn, recipe=Recipe(parts))

    best = fitted(BestOf((hot, KMeans(5), good), finish=Refit(1)))
    assert error(best, held) <= min(error(fitted(KMeans(5)), held), error(fitted(hot), held))
    again = fitted(BestOf((hot, KMeans(5), good), finish=Refit(1)))
    np.testing.assert_array_equal(best.codebooks_copy(), again.codebooks_copy())


def test_small_residual_codebooks_cover_long_tails():
    """Beside FAISS' residual quantizer, on data of which one direction has nearly all."""
    import faiss

    scales = np.array([0.001, 1, 1000, 1, 1, 1, 1, 1])
    theirs, ours = 0.0, 0.0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        learn, held = ((rng.normal(size=(10_000, 8)) * scales).astype(np.float32) for _ in range(2))
        faiss_quantizer = faiss.ResidualQuantizer(8, 2, 6)
        faiss_quantizer.train(learn)
        decoded = faiss_quantizer.decode(faiss_quantizer.compute_codes(held))
        theirs += float(np.square(held - decoded).sum(1).mean())
        ours += error(annvq.ResidualVQ(8, 2, 6).fit(learn), held)
    assert ours < 1.5 * theirs


def test_best_of_without_an_end_keeps_the_better_start():
    learn = correlated(0)
    best, one, other = (annvq.ResidualVQ(16, 3, 5) for _ in range(3))
    starts = (KMeans(1), KMeans(8, kept=3))
    best.fit(learn, recipe=Recipe((BestOf(starts),), validation=0.2))
    for quantizer, start in ((one, starts[0]), (other, starts[1])):
        quantizer.fit(learn, recipe=Recipe((start,), validation=0.2))
    held = learn[np.random.default_rng(0).permutation(len(learn))[:800]]
    assert error(best, held) == min(error(one, held), error(other, held)) < max(error(one, held), error(other, held))


def test_data_are_judged_by_the_first_eight_codebooks():
    x = np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
    tried = []
    part = ByGrading(flat=(lambda q, d: tried.append("flat"),), graded=(lambda q, d: tried.append("graded"),), limit=20)
    for M in (3, 8, 16):
        data = prepare(x, 4, least=4, max_rows=4000, validation=0.1, seed=0, progress=False)
        part(annvq.ResidualVQ(4, M, 2), data)
    assert tried[1] == tried[2]
    assert grading([4.0, 2.0, 1.0]) == 4
    assert grading([2.0] * 8 + [0.01]) == 1
    assert grading([1.0, 0.0]) == np.inf


@pytest.mark.parametrize(("n", "kept"), [(2000, 16), (20_000, 7), (80_000, 2), (200_000, 2)])
def test_residuals_of_as_many_codes_as_a_codebook_needs(n, kept, monkeypatch):
    beams = []

    def residuals(x, books, sizes, beam, seed, processes):
        beams.append(beam)
        return x

    monkeypatch.setattr(kmeans, "_residuals", residuals)
    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    data = prepare(x, 2, least=256, max_rows=n, validation=0, seed=0, progress=False)
    KMeans(1)(annvq.ResidualVQ(2, 2, 8), data)
    assert beams == [kept]


@pytest.mark.parametrize("kind", ["residual", "additive"])
def test_many_codebooks_are_learned(kind):
    x = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    parts = [KMeans(2)] + [Alternate(Alternation(iterations=2, rounds=2), warm=True)] * (kind == "additive")
    errors = []
    for M in (4, 70):
        q = annvq.make(kind, dim=16, M=M, nbits=1).fit(x, recipe=Recipe(parts))
        codes = q.encode(x)
        errors.append(np.square(x - q.decode(codes)).sum(1).mean())
    assert errors[1] < errors[0] / 10
    torch_codes = q._encode_in_torch(x)  # beam search alone
    assert errors[1] < np.square(x - q.decode(torch_codes)).sum(1).mean() * 1.05
    q.fit_norms(x)
    distances, ids = annvq.FlatIndex(q, norm="float32").add(x).search(x[:5], 3)
    decoded = q.decode(q.encode(x))
    np.testing.assert_allclose(distances, np.square(x[:5, None] - decoded[ids]).sum(2), rtol=1e-2, atol=0.05)
