"""Indexes whose codes see the first dimensions of each vector: they are the indexes of the prefixes, asked with whole
vectors."""

import copy
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from exact_distances import distances_to, ordered

import annvq
from annvq import FlatIndex, IVFIndex, RerankIndex
from annvq.cli import cli
from annvq.errors import FormatError
from annvq.indexes.building import Build, merge
from annvq.indexes.recipes import load_recipe, make_index
from annvq.interop.faiss import to_faiss
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))
DIM, DIMS = 24, 12
X = (np.random.default_rng(0).normal(size=(600, DIM)) * np.linspace(3, 0.2, DIM)).astype(np.float32)
QUERIES = (np.random.default_rng(1).normal(size=(20, DIM)) * np.linspace(3, 0.2, DIM)).astype(np.float32)
MAKERS = {
    "flat": lambda q, metric, dim: FlatIndex(q, metric, dim=dim),
    "lists": lambda q, metric, dim: IVFIndex(q, 5, metric, residual=False, dim=dim),
    "lists of residuals": lambda q, metric, dim: IVFIndex(q, 5, metric, residual=True, dim=dim),
    "second code": lambda q, metric, dim: RerankIndex(
        FlatIndex(q, metric, dim=dim), annvq.make("residual", dim=DIMS, M=2, nbits=4), shortlist=40
    ),
    "second code of vectors": lambda q, metric, dim: RerankIndex(
        FlatIndex(q, metric, dim=dim), annvq.make("product", dim=DIMS, M=3, nbits=4), refines="vectors", shortlist=40
    ),
}


def quantizer(kind="residual"):
    return annvq.make(kind, dim=DIMS, M=3, nbits=4)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("kind", ["residual", "product"])
@pytest.mark.parametrize("form", MAKERS)
def test_it_is_the_index_of_the_prefixes(form, kind, metric, tmp_path):
    index = MAKERS[form](quantizer(kind), metric, DIM).fit(X, recipe=QUICK)
    short = MAKERS[form](quantizer(kind), metric, None).fit(np.ascontiguousarray(X[:, :DIMS]), recipe=QUICK)
    assert (index.dim, index.dims) == (DIM, DIMS)
    assert (short.dim, short.dims) == (DIMS, DIMS)
    ids = np.random.default_rng(2).permutation(1000)[:600]
    index.add(X[:400], ids[:400]).add(torch.from_numpy(X[400:]), ids[400:])
    short.add(X[:, :DIMS], ids)
    index.save(tmp_path / "i")
    for one in (index, annvq.load_index(tmp_path / "i"), annvq.load_index(tmp_path / "i", mmap=True), copy.copy(index)):
        for a, b in zip(one.search(QUERIES, 7), short.search(QUERIES[:, :DIMS], 7), strict=True):
            np.testing.assert_array_equal(a, b)
        decoded = one.reconstruct(ids[:9])
        np.testing.assert_array_equal(decoded[:, :DIMS], short.reconstruct(ids[:9]))
        assert decoded.shape == (9, DIM)
        assert not decoded[:, DIMS:].any()
        assert one.bits_per_vector == short.bits_per_vector
        assert (one.facts()["dim"], one.facts()["dims"]) == (DIM, DIMS)
    index.upsert(X[5:6] + 1, ids[5:6])
    short.upsert(X[5:6, :DIMS] + 1, ids[5:6])
    np.testing.assert_array_equal(index.search(QUERIES, 5)[1], short.search(QUERIES[:, :DIMS], 5)[1])


def test_a_prefix_is_normalised_by_itself():
    """Vectors whose prefixes point the same way are as near as can be, whatever follows."""
    index = FlatIndex(annvq.ProductVQ(2, 1, 4), "cosine", dim=4).fit(X[:, :4], recipe=QUICK)
    tail = np.float32([[0.1, 0.2, 0, 0], [0.1, 0.2, 5, -3], [0.4, 0.8, 0, 9]])
    distances, ids = index.add(tail).search(tail, 3)
    np.testing.assert_allclose(distances, distances[0, 0], atol=1e-6)
    np.testing.assert_array_equal(ids, [[0, 1, 2]] * 3)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "outside"])
def test_re_ranking_by_whole_vectors(dtype, metric, tmp_path):
    scanned = FlatIndex(quantizer().fit(X[:, :DIMS], recipe=QUICK), metric, dim=DIM)
    index = RerankIndex(scanned, X if dtype == "outside" else dtype).fit(X).add(X)
    index.save(tmp_path / "i")
    again = annvq.load_index(tmp_path / "i")
    again = again.attach(X) if dtype == "outside" else again
    kept = X if dtype != "float16" else X.astype(np.float16).astype(np.float32)
    asked = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True) if metric == "cosine" else QUERIES
    for one in (index, again):
        assert one.shortlist >= 10
        found = one.search(QUERIES, 5, shortlist=50)
        shortlists = scanned.search(QUERIES, 50)[1]
        for row in range(len(QUERIES)):
            rows = shortlists[row]
            expected = ordered(distances_to(asked[row : row + 1], kept[rows], metric), rows, 5)
            np.testing.assert_array_equal(found[1][row], expected[1][0])
            np.testing.assert_allclose(found[0][row], expected[0][0], rtol=1e-5, atol=1e-6)
        whole = kept / np.linalg.norm(kept, axis=1, keepdims=True) if metric == "cosine" else kept
        np.testing.assert_allclose(one.reconstruct([3, 4]), whole[[3, 4]], rtol=1e-3 if dtype == "float16" else 1e-6)


def test_what_cannot_be_is_refused():
    q = quantizer()
    for make in (FlatIndex, IVFIndex):
        with pytest.raises(ValueError, match=r"dim must be in 12\.\.1048576, got 11"):
            make(q, dim=11)
        with pytest.raises(TypeError, match="dim must be an integer"):
            make(q, dim=24.0)
    index = FlatIndex(q.fit(X[:, :DIMS], recipe=QUICK), "cosine", dim=DIM)
    for x in (X[:, :DIMS], X[:, :20]):
        with pytest.raises(ValueError, match=r"x must be float32 of shape \(n, 24\)"):
            index.add(x)
        with pytest.raises(ValueError, match=r"queries must be float32 of shape \(nq, 24\)"):
            index.search(x, 3)
    zero = X[:5].copy()
    zero[3, :DIMS] = 0
    untrained = FlatIndex(quantizer(), "cosine", dim=DIM)
    for use in (index.add, lambda x: index.search(x, 1), lambda x: untrained.fit(np.concatenate([x, X]))):
        with pytest.raises(ValueError, match=r"\[:, :12\] must not hold zero vectors under cosine; row 3 is zero"):
            use(zero)
    assert len(index) == 0
    bad = np.full((1, DIM), np.nan, np.float32)
    bad[:, :DIMS] = 1
    with pytest.raises(ValueError, match="finite"):
        index.add(bad)
    with pytest.raises(ValueError, match="refine must be of dimension 12"):
        RerankIndex(FlatIndex(q, dim=DIM), annvq.ProductVQ(DIM, 3, 4))
    with pytest.raises(ValueError, match="codebooks, centroids and settings"):
        merge(FlatIndex(q, dim=DIM), FlatIndex(q))
    damaged = FlatIndex(q, dim=DIM)
    damaged._dim = 5  # as a file might say
    with pytest.raises(FormatError, match="dim must be in"):
        annvq.load_index(damaged.to_bytes())


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_it_goes_to_faiss(metric):
    for kind in ("product", "rotated-product", "residual"):
        q = annvq.make(kind, dim=DIMS, M=3, nbits=4)
        index = FlatIndex(q, metric, norm="float32" if kind == "residual" and metric == "l2" else "auto", dim=DIM)
        index.fit(X).add(X)
        theirs = to_faiss(index)
        assert theirs.d == DIM
        found = theirs.search(QUERIES, 5)[0]
        distances = index.search(QUERIES, 5)[0]
        np.testing.assert_allclose(1 - found if metric == "cosine" else found, distances, rtol=1e-4, atol=1e-5)


def test_recipes_builds_and_the_command_line(tmp_path):
    (tmp_path / "r.toml").write_text(
        '[index]\nkind = "ivf"\nnlist = 4\ndims = 12\nresidual = false\n'
        '[quantizer]\nkind = "product"\nM = 3\nnbits = 4\n[refine]\nvectors = "float16"\n'
    )
    recipe = load_recipe(tmp_path / "r.toml")
    built = Build(make_index(recipe, DIM, n=600, metric="cosine"), X, X, tmp_path / "a", chunk_rows=250).run()
    assert (built.dim, built.dims, len(built)) == (DIM, DIMS, 600)
    np.testing.assert_array_equal(annvq.load_index(tmp_path / "a").search(X[:50], 1)[1][:, 0], np.arange(50))
    with pytest.raises(ValueError, match=r"dims must be in 1\.\.8, got 12"):
        make_index(recipe, 8, n=600)
    np.save(tmp_path / "x.npy", X)
    run = CliRunner()
    options = ["--bits", "12", "--nbits", "4", "--metric", "cosine"]
    done = run.invoke(cli, ["build", "product", str(tmp_path / "x.npy"), str(tmp_path / "b"), "--dims", "12", *options])
    assert done.exit_code == 0, done.output
    index = annvq.load_index(tmp_path / "b")
    assert (index.dim, index.dims) == (DIM, DIMS)
    command = [
        "train",
        str(tmp_path / "x.npy"),
        "--kind",
        "product",
        "--dims",
        "12",
        "--out",
        str(tmp_path / "q"),
        *options,
    ]
    done = run.invoke(cli, command)
    assert done.exit_code == 0, done.output
    command = ["build", str(tmp_path / "q"), str(tmp_path / "x.npy"), str(tmp_path / "c"), "--metric", "cosine"]
    done = run.invoke(cli, [*command, "--dims", "12"])
    assert done.exit_code == 0, done.output
    assert (annvq.load_index(tmp_path / "c").search(X[:50], 5)[1] == np.arange(50)[:, None]).any(1).mean() > 0.5
    for wrong in (
        ["build", "product", str(tmp_path / "x.npy"), str(tmp_path / "d"), "--dims", "25"],
        [*command, "--dims", "8"],
    ):
        assert "--dims must be" in run.invoke(cli, wrong).output


def test_learning_reads_a_sample_and_never_copies_the_whole(tmp_path):
    """Under cosine and of prefixes too: rows are converted and normalised as they are read."""
    n = 300_000
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.tile(X, (n // len(X), 1)).astype(np.float16)
    with h5py.File(tmp_path / "x.h5") as file:
        x = file["x"]
        recipe = Recipe((KMeans(2),), max_rows=2000)
        for index in (FlatIndex(quantizer(), "cosine", dim=DIM), FlatIndex(annvq.ProductVQ(DIM, 3, 4), "cosine")):
            tracemalloc.start()
            index.fit(x, recipe=recipe)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2 * n * DIM, peak  # the vectors in float16; in float32 they are twice as many bytes
        index.add(x[:100])
        assert len(index) == 100


def test_adding_converts_and_normalises_chunk_by_chunk(tmp_path):
    n, d = 500_000, 128
    some = np.random.default_rng(3).normal(size=(500, d)).astype(np.float16)
    np.save(tmp_path / "x.npy", np.tile(some, (n // 500, 1)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    index = FlatIndex(annvq.ProductVQ(d, 2, 4), "cosine").fit(some, recipe=QUICK)
    tracemalloc.start()
    index.add(mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index) == n
    assert peak < 0.7 * 4 * n * d, peak  # a chunk as it is and normalised, not all vectors in float32


def test_learn_vectors_are_an_array_too():
    """Quantizers of other makers may take them whole."""
    x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)
    rows = FlatIndex(annvq.ProductVQ(8, 2, 4), "cosine").learn_targets(x, 0)
    wide = x.astype(np.float64)
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(rows, np.float64), expected, rtol=1e-6)
