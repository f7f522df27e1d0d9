"""What re-ranking computes distances from: vectors in memory and on disk, second codes, further stages."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_distances import distances_to, ordered

import annvq
from annvq import FlatIndex, IVFIndex, RerankIndex
from annvq.errors import FormatError
from annvq.quantizers import LinearMap, Rotation
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))
DTYPES = ("float32", "float16", "bfloat16", "uint8", "int8")


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
    kept = torch.from_numpy(x).bfloat16().float().numpy() if dtype == "bfloat16" else x.astype(dtype).astype(np.float32)
    index = RerankIndex(IVFIndex(fitted(), 6, metric), dtype, shortlist=60).fit(x)
    ids = np.random.default_rng(0).permutation(3000)[:500]
    index.add(x[:300], ids[:300]).add(x[300:], ids[300:])
    assert index.refine_bits_per_vector == 20 * 8 * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)
    queries = x[:6] + np.float32(0.25)
    scanned = index.index.search(queries, 60, nprobe=6)[1]
    q = index.prepared(queries, "queries")
    found = index.search(queries, 7, nprobe=6)
    for row in range(6):
        at = np.array([np.flatnonzero(ids == i)[0] for i in scanned[row]])
        expected = ordered(distances_to(q[row : row + 1], kept[at], metric), scanned[row], 7)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a[row], b[0])


def test_int8_keeps_directions_under_cosine(tmp_path):
    """Vectors of any length, rounded to 127 steps each way; whole numbers stay as they are."""
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(400, 20)) * np.exp2(rng.integers(-60, 60, size=(400, 1)))).astype(np.float32)
    x[:9] = vectors(9)
    x[3, 5] = -128
    unit = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    index = RerankIndex(FlatIndex(fitted(x=unit), "cosine"), "int8", shortlist=400).fit(x).add(x)
    assert index.refine_bits_per_vector == 8 * 20
    kept = np.rint(x.astype(np.float64) / np.abs(x).max(axis=1, keepdims=True) * 127)
    kept[:9] = x[:9]
    index.save(tmp_path / "i")
    q = index.prepared(x[:30] + np.abs(x[:30]) / 3, "queries")
    expected = ordered(distances_to(q, kept.astype(np.float32), "cosine"), np.arange(400), 12)
    for one in (index, annvq.load_index(tmp_path / "i")):
        for a, b in zip(one.search(q, 12), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
        np.testing.assert_allclose(one.reconstruct(np.arange(400)), unit, atol=1e-6)


def test_whole_numbers_only_where_they_fit():
    x = vectors(300)
    index = RerankIndex(FlatIndex(fitted()), "uint8").fit(x)
    for bad in (np.full((2, 20), 0.5), np.full((2, 20), -1), np.full((2, 20), 256)):
        with pytest.raises(ValueError, match=r"whole numbers that uint8 holds.*row 1"):
            index.add(np.concatenate([np.ones((1, 20)), bad]).astype(np.float32))
    for metric in ("l2", "ip"):
        with pytest.raises(ValueError, match="finite in float16"):
            RerankIndex(FlatIndex(fitted(), metric), "float16").fit(x).add(np.full((1, 20), 1e5, np.float32))
    assert len(index) == 0
    assert index.add(np.abs(x).astype(np.uint8)).search(np.abs(x[:1]), 1)[0][0, 0] == 0


@pytest.mark.parametrize("power", [-38, -25, -22, -18, -8, -7, 0, 4, 10, 19, 25, 36])
@pytest.mark.parametrize("kept", ["float32", "float16", "outside"])
def test_under_cosine_lengths_do_not_matter(kept, power):
    x = np.random.default_rng(0).normal(size=(400, 20))
    unit = x / np.sqrt((x * x).sum(1))[:, None]
    scaled = (x * 10.0**power).astype(np.float32)
    q = fitted(x=unit.astype(np.float32))
    index = RerankIndex(FlatIndex(q, "cosine"), scaled if kept == "outside" else kept, shortlist=400).add(scaled)
    queries = scaled[:30] + scaled[30:60]
    asked = index.prepared(queries, "queries").astype(np.float64)
    expected = 1 - asked @ unit.T
    nearest = expected.argsort(1)[:, :10]
    distances, ids = index.search(queries, 400)
    assert (np.sort(ids, axis=1) == np.arange(400)).all()  # none is lost
    atol = 1e-3 if kept == "float16" else 2e-6  # at 1e-38 the vectors themselves are rounded
    np.testing.assert_allclose(distances, np.take_along_axis(expected, ids, 1), atol=atol)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(ids[:, :10], nearest, strict=True)]) > 0.99
    np.testing.assert_allclose(index.reconstruct(np.arange(400)), unit, atol=atol)


def test_float16_under_cosine_keeps_vectors_that_fit_as_they_were():
    x = vectors(400)
    index = RerankIndex(FlatIndex(fitted(), "cosine"), "float16", shortlist=400).fit(x).add(x)
    kept = index.refinement.store.export()[1].view(np.float16).astype(np.float64)
    powers = np.log2(np.abs(kept).max(1) / np.abs(x).max(1))
    np.testing.assert_array_equal(powers, np.rint(powers))
    np.testing.assert_array_equal(kept / np.exp2(powers)[:, None], x)
    queries = index.prepared(x[:9] + np.float32(0.25), "queries")
    expected = ordered(distances_to(queries, x, "cosine"), np.arange(400), 30)  # bit for bit as of the vectors unscaled
    for a, b in zip(index.search(x[:9] + np.float32(0.25), 30), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_vectors_too_near_zero_for_distances_are_refused(metric):
    x = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    q = annvq.ProductVQ(20, 5, 4)
    for dtype, scale in (("float32", 1e-25), ("float16", 1e-7)):
        index = RerankIndex(FlatIndex(annvq.ProductVQ(20, 5, 4), metric), dtype).fit(x * np.float32(scale))
        with pytest.raises(ValueError, match="near zero"):
            index.add(x * np.float32(scale))
        assert len(index) == 0
    for index in (FlatIndex(q, metric), IVFIndex(annvq.ProductVQ(20, 5, 4), 3, metric)):
        index.fit(x * np.float32(1e-25))
        with pytest.raises(ValueError, match="near zero"):
            index.add(x * np.float32(1e-25))
    index = RerankIndex(FlatIndex(q.fit(x), metric), "float16").add(x)
    index.add(x[:5] * np.float32(1e-25))  # beside others these are as good as zero
    assert len(FlatIndex(q, metric).add(np.zeros((3, 20), np.float32))) == 3


def test_distances_beyond_float32_lose_no_vector():
    x = vectors(300)
    far = x[:3] * np.float32(1e36)
    for metric in ("l2", "ip"):
        index = RerankIndex(FlatIndex(fitted(), metric), shortlist=400).add(x).add(far)
        distances, ids = index.search(x[:4], 303)
        assert (np.sort(ids, axis=1) == np.arange(303)).all()
        assert np.isfinite(distances).all()
    with pytest.raises(ValueError, match="squared norms below"):
        IVFIndex(annvq.ProductVQ(20, 5, 4), 3).fit(x * np.float32(1e30))


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


def test_copies_over_vectors_that_lie_elsewhere(tmp_path):
    x = vectors(400)
    np.save(tmp_path / "x.npy", x)
    index = RerankIndex(FlatIndex(fitted(x=x)), x, shortlist=50).add(x)
    expected = index.search(x[:9], 5)
    with pytest.raises(ValueError, match=r"np\.load.*attach"):
        pickle.dumps(index)
    for copied in (copy.copy(index), copy.deepcopy(index)):
        assert copied.refinement.array is x
        copied.reset()
        np.testing.assert_array_equal(copied.add(x).search(x[:9], 5), expected)
    mapped = RerankIndex(FlatIndex(index.quantizer), np.load(tmp_path / "x.npy", mmap_mode="r"), shortlist=50).add(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mapped)).search(x[:9], 5), expected)
    index.save(tmp_path / "i")
    unattached = annvq.load_index(tmp_path / "i")
    pickle.loads(pickle.dumps(unattached)).attach(x)


def test_reset_frees_what_is_kept():
    x = vectors(400)
    index = RerankIndex(FlatIndex(fitted(x=x)), "float32", shortlist=50).add(x, np.arange(400) * 10**6)
    assert index.refinement.nbytes > 0
    index.reset()
    assert index.refinement.nbytes == 0 == len(index.refinement.store)
    assert index.index.facts()["id_bytes"] == FlatIndex(index.quantizer).facts()["id_bytes"]


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
        scores = distances_to(q[row : row + 1], xhat, metric)
        for a, b in zip(found, ordered(scores, candidates[row], 9), strict=True):
            np.testing.assert_array_equal(a[row], b[0])
    index.save("i")
    for a, b in zip(annvq.load_index("i").search(queries, 9, **settings), found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("refines", ["vectors", "rest"])
@pytest.mark.parametrize("kind", ["rotated-product", "principal-product", "principal-additive", "linear", "shifted"])
def test_finer_codes_behind_a_map(kind, refines, metric, tmp_path):
    x = vectors(700)
    if kind in ("linear", "shifted"):
        inner = annvq.ResidualVQ(20, 4, 4) if kind == "linear" else annvq.ProductVQ(20, 4, 4)
        fine = annvq.Transformed(LinearMap(20) if kind == "linear" else Rotation(20, shift=True), inner)
    else:
        fine = annvq.make(kind, dim=20, M=4, nbits=4)
    scanned = IVFIndex(annvq.make("product", dim=20, M=3, nbits=4), 6, metric, residual=True)
    index = RerankIndex(scanned, fine, refines=refines, shortlist=80).fit(x, recipe=None if kind[0] == "p" else QUICK)
    if kind == "shifted":
        with torch.no_grad():
            fine.transform.shift += 0.25
    index.add(x, np.arange(700) * 2)
    assert index.refine_bits_per_vector == 16
    approximation = index.reconstruct(np.arange(700) * 2).astype(np.float64)
    queries = x[:5] + np.float32(0.5)
    candidates = scanned.search(queries, 80, nprobe=6)[1]
    q = index.prepared(queries, "queries").astype(np.float64)
    distances, ids = index.search(queries, 9, nprobe=6)
    if metric == "cosine":
        approximation /= np.linalg.norm(approximation, axis=1, keepdims=True)
    for row in range(5):
        xhat = approximation[candidates[row] // 2]
        products = xhat @ q[row]
        scores = {"l2": ((xhat - q[row]) ** 2).sum(1), "ip": -products, "cosine": 1 - products}[metric]
        np.testing.assert_allclose(np.abs(distances[row]), np.abs(np.sort(scores)[:9]), rtol=1e-4, atol=1e-5)
        of = dict(zip(candidates[row], scores, strict=True))
        np.testing.assert_allclose([of[i] for i in ids[row]], np.sort(scores)[:9], rtol=1e-4, atol=1e-5)
    index.save(tmp_path / "i")
    for a, b in zip(annvq.load_index(tmp_path / "i").search(queries, 9, nprobe=6), (distances, ids), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_second_codes_of_older_files_rank_as_they_did(metric):
    x = vectors(300)
    fine = annvq.make("product", dim=20, M=5, nbits=4)
    index = RerankIndex(FlatIndex(fitted(), metric), fine, refines="vectors", shortlist=300).fit(x, recipe=QUICK).add(x)
    config, tensors = index.refinement.to_stored()
    del config["at_length_one"]  # as they have it
    old = type(index.refinement).from_stored(config, dict(tensors), index.index)
    q, listed = index.prepared(x[:4], "queries"), np.tile(np.arange(300), (4, 1))
    scores = distances_to(q, index.reconstruct(np.arange(300)), "unit" if metric == "cosine" else metric)
    for found, expected in zip(old.rank(index.index, q, listed, 9), ordered(scores, np.arange(300), 9), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (old.fingerprint() == index.refinement.fingerprint()) == (metric == "l2")  # they merge where they rank alike


@pytest.mark.parametrize("dim", [16, 20])
def test_finer_codes_of_no_length_are_found_under_cosine(dim):
    x = vectors(400, dim)
    scanned, fine = (annvq.make("product", dim=dim, M=2, nbits=8) for _ in range(2))
    books = np.random.default_rng(0).normal(size=(2, 256, dim // 2)).astype(np.float32)
    books *= 0.45
    books[:, :200] = 0  # x̂ that is zero, of some
    for q in (scanned, fine):
        q.set_codebooks(list(books))
    index = RerankIndex(FlatIndex(scanned, "cosine"), fine, refines="vectors", shortlist=400).add(x)
    approximation = index.reconstruct(np.arange(400))
    lengths = np.linalg.norm(approximation, axis=1)
    assert (lengths == 0).any()
    assert (lengths > 0).any()
    distances, ids = index.search(x[:5], 400)
    q = index.prepared(x[:5], "queries")
    expected = 1 - (q @ approximation.T) / np.maximum(lengths, 1e-9)
    np.testing.assert_array_equal(np.sort(ids, 1), np.tile(np.arange(400), (5, 1)))
    np.testing.assert_allclose(distances, np.take_along_axis(expected, ids, 1), atol=1e-5)


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
