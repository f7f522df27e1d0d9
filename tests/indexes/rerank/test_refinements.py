"""What re-ranking computes distances from: vectors in memory and on disk, second codes, further stages."""

from pathlib import Path

import numpy as np
import pytest
from exact_distances import distances_to, ordered

import annvq
from annvq import FlatIndex, IVFIndex, RerankIndex
from annvq.errors import FormatError
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))
DTYPES = ("float32", "float16", "uint8", "int8")


def vectors(n, dim=20, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(15, dim)) * 30
    x = centers[rng.integers(15, size=n)] + rng.normal(size=(n, dim)) * 10
    return np.clip(np.rint(x), -120, 120).astype(np.float32)


def fitted(kind="residual", dim=20, M=2, x=None, **config):
    return annvq.make(kind, dim=dim, M=M, nbits=4, **config).fit(vectors(500, dim) if x is None else x, recipe=QUICK)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_vectors_in_memory(dtype, metric):
    x = vectors(500)
    x = np.abs(x) + 1 if dtype == "uint8" else x
    kept = x.astype(dtype).astype(np.float32)
    index = RerankIndex(IVFIndex(fitted(), 6, metric), dtype, shortlist=60).fit(x)
    ids = np.random.default_rng(0).permutation(3000)[:500]
    index.add(x[:300], ids[:300]).add(x[300:], ids[300:])
    assert index.refine_bits_per_vector == 20 * 8 * np.dtype(dtype).itemsize
    queries = x[:6] + np.float32(0.25)
    scanned = index.index.search(queries, 60, nprobe=6)[1]
    q = index.prepared(queries, "queries")
    found = index.search(queries, 7, nprobe=6)
    for row in range(6):
        at = np.array([np.flatnonzero(ids == i)[0] for i in scanned[row]])
        expected = ordered(distances_to(q[row : row + 1], kept[at], metric), scanned[row], 7)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a[row], b[0])


def test_whole_numbers_only_where_they_fit():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "uint8").fit(x)
    for bad in (np.full((2, 20), 0.5), np.full((2, 20), -1), np.full((2, 20), 256)):
        with pytest.raises(ValueError, match=r"whole numbers that uint8 holds.*row 1"):
            index.add(np.concatenate([np.ones((1, 20)), bad]).astype(np.float32))
    with pytest.raises(ValueError, match="finite in float16"):
        RerankIndex(FlatIndex(fitted()), "float16").fit(x).add(np.full((1, 20), 1e5, np.float32))
    assert len(index) == 0
    assert index.add(np.abs(x).astype(np.uint8)).search(np.abs(x[:1]), 1)[0][0, 0] == 0


@pytest.mark.parametrize("kind", ["npy", "bvecs", "array"])
def test_vectors_on_disk(kind, tmp_path):
    x = np.abs(vectors(400)).astype(np.uint8)
    path = tmp_path / f"base.{kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "bvecs":
        np.hstack([np.full((400, 1), 20, "<i4").view(np.uint8), x]).tofile(path)
    outside = x if kind == "array" else annvq.datasets.load_vectors(path)
    index = RerankIndex(FlatIndex(fitted(x=x)), outside, shortlist=50).add(x[:350])
    inside = RerankIndex(FlatIndex(index.quantizer), "uint8", shortlist=50).add(x[:350])
    assert index.bits_per_vector == inside.bits_per_vector
    for a, b in zip(index.search(x[:9], 5), inside.search(x[:9], 5), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="row numbers of the 400 vectors"):
        index.add(x[:1], np.array([400]))
    index.save("i")
    loaded = annvq.load_index("i")
    if kind == "array":
        with pytest.raises(ValueError, match=r"attach\(vectors\)"):
            loaded.search(x[:9], 5)
        with pytest.raises(ValueError, match="a row for each id"):
            loaded.attach(x[:349])
        with pytest.raises(ValueError, match="must be uint8"):
            loaded.attach(x.astype(np.float32))
        loaded.attach(x)
    np.testing.assert_array_equal(loaded.search(x[:9], 5)[1], inside.search(x[:9], 5)[1])
    if kind == "npy":
        path.write_bytes(b"something else")
        with pytest.raises(ValueError, match="does not hold the vectors"):
            annvq.load_index("i").search(x[:9], 5)
    with pytest.raises(ValueError, match="nothing to attach"):
        inside.attach(x)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("refines", ["vectors", "rest", "stages"])
@pytest.mark.parametrize("lists", [0, 6])
def test_finer_codes(refines, metric, lists):
    x = vectors(700)
    head = annvq.make("residual", dim=20, M=2, nbits=4)
    fine = annvq.make("residual" if refines == "stages" else "product", dim=20, M=5, nbits=4)
    scanned = IVFIndex(head, lists, metric, residual=True) if lists else FlatIndex(head, metric)
    index = RerankIndex(scanned, fine, refines=refines, shortlist=80).fit(x, recipe=QUICK)
    index.add(x, np.arange(700) * 2)
    norm = 8 if metric == "l2" else 0
    assert (index.scan_bits_per_vector, index.refine_bits_per_vector) == (8 + norm, 12 if refines == "stages" else 20)
    unit = index.prepared(x, "x")
    approximation = index.reconstruct(np.arange(700) * 2)
    rough = ((scanned.reconstruct(np.arange(700) * 2) - unit) ** 2).sum()
    assert refines == "vectors" or ((approximation - unit) ** 2).sum() < 0.75 * rough
    queries = x[:5] + np.float32(0.5)
    settings = {"nprobe": lists} if lists else {}
    candidates = scanned.search(queries, 80, **settings)[1]
    q = index.prepared(queries, "queries")
    found = index.search(queries, 9, **settings)
    for row in range(5):
        xhat = approximation[candidates[row] // 2]
        scores = distances_to(q[row : row + 1], xhat, "unit" if metric == "cosine" else metric)
        for a, b in zip(found, ordered(scores, candidates[row], 9), strict=True):
            np.testing.assert_array_equal(a[row], b[0])
    index.save("i")
    for a, b in zip(annvq.load_index("i").search(queries, 9, **settings), found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stages_are_found_together():
    x = vectors(600)
    whole = fitted("residual", M=5, x=x, beam=8)
    head = annvq.make("residual", dim=20, M=2, nbits=4)
    index = RerankIndex(FlatIndex(head), whole, refines="stages").fit(x).add(x)
    np.testing.assert_array_equal(head.codebooks_copy(), whole.codebooks_copy()[:32])
    np.testing.assert_allclose(index.reconstruct(np.arange(600)), whole.decode(whole.encode(x)), atol=1e-3)
    other = fitted("residual", x=x[:300])
    for bad in (fitted("product", M=5, x=x), fitted("residual", M=2, x=x), whole):
        with pytest.raises(ValueError, match=r"first ones of refine|needs a residual or additive"):
            RerankIndex(FlatIndex(other), bad, refines="stages")


def test_damaged_finer_codes_stay_inside_the_codebooks():
    x = vectors(300)
    q = fitted("product", M=5, x=x)
    index = RerankIndex(FlatIndex(fitted()), q, shortlist=300).fit(x).add(x)
    index.save("i")
    data = bytearray(Path("i").read_bytes())
    at = data.find(index.refinement.store.export()[1].tobytes())
    data[at : at + 40] = b"\xff" * 40
    Path("bad").write_bytes(data)
    with pytest.raises(FormatError, match=r"refine\.rows"):
        annvq.load_index("bad")
    loaded = annvq.load_index("bad", mmap=True)
    assert np.isfinite(loaded.search(x[:3], 300)[0]).all()
