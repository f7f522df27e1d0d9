"""bfloat16 in every form it comes in: what is computed is what float32 copies of the same values give, bit for bit."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import annvq
from annvq.arrays import BFLOAT16, as_bfloat16, as_float32, check_vectors, rows_to_numpy
from annvq.choosing import choose
from annvq.training import KMeans, Recipe, Trainer

QUICK = Recipe((KMeans(3),))
TENSOR = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)).bfloat16()
EXACT = TENSOR.float().numpy()
BYTES = TENSOR.view(torch.int16).numpy().view(BFLOAT16)


class Exported:
    """A library's array that only exports DLPack."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.dtype = tensor, tuple(tensor.shape), tensor.dtype

    def __getitem__(self, rows):
        return Exported(self.tensor[rows])

    def __dlpack__(self, **kwargs):
        return self.tensor.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@pytest.fixture(params=["tensor", "bytes", "strided", "ml_dtypes", "npy", "hdf5", "dlpack"])
def given(request, tmp_path):
    """The vectors in one of the forms."""
    form = request.param
    if form == "tensor":
        return TENSOR
    if form == "bytes":
        return BYTES
    if form == "strided":
        return torch.cat([TENSOR, TENSOR], 1)[:, :16]
    if form == "ml_dtypes":
        return BYTES.view(pytest.importorskip("ml_dtypes").bfloat16)
    if form == "npy":
        np.save(tmp_path / "x.npy", BYTES)
        return annvq.datasets.load_vectors(tmp_path / "x.npy")
    if form == "hdf5":
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"] = BYTES
        return h5py.File(tmp_path / "x.h5")["x"]
    return Exported(TENSOR)


def test_rounding_is_that_of_pytorch():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    halves = (rng.integers(0, 1 << 15, 1000, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], halves[np.isfinite(halves)], np.float32([0, -0.0, 3.4e38, 1e-45])])
    rounded = torch.from_numpy(x).bfloat16()
    np.testing.assert_array_equal(as_bfloat16(x).view(np.uint16), rounded.view(torch.int16).numpy().view(np.uint16))
    np.testing.assert_array_equal(as_float32(as_bfloat16(x)), rounded.float().numpy())


def test_values_are_exact(given):
    check_vectors(given, 16)
    np.testing.assert_array_equal(rows_to_numpy(given, 3, 90), EXACT[3:90])


def test_fit_add_and_search_are_those_of_float32(given):
    q, same = (annvq.ProductVQ(16, 4, 4).fit(x, recipe=QUICK) for x in (given, EXACT))
    np.testing.assert_array_equal(q.codebooks_copy(), same.codebooks_copy())
    np.testing.assert_array_equal(np.asarray(q.encode(given)), same.encode(EXACT))
    queries = given[:7]
    for metric in ("l2", "cosine"):
        for make in (
            lambda q: annvq.FlatIndex(q, metric),  # noqa: B023
            lambda q: annvq.IVFIndex(q, 4, metric),  # noqa: B023
            lambda q: annvq.RerankIndex(annvq.FlatIndex(q, metric), "bfloat16", shortlist=20),  # noqa: B023
        ):
            index, other = make(q).fit(given).add(given), make(same).fit(EXACT).add(EXACT)
            for a, b in zip(index.search(queries, 5), other.search(EXACT[:7], 5), strict=True):
                assert isinstance(a, torch.Tensor) == isinstance(given, torch.Tensor)
                np.testing.assert_array_equal(np.asarray(a), b)


def test_kept_as_bfloat16_vectors_that_are_bfloat16_lose_nothing(tmp_path):
    q = annvq.ProductVQ(16, 4, 4).fit(EXACT, recipe=QUICK)
    index = annvq.RerankIndex(annvq.FlatIndex(q), "bfloat16", shortlist=400).add(TENSOR)
    assert index.refine_bits_per_vector == 16 * 16
    np.testing.assert_array_equal(index.reconstruct(np.arange(400)), EXACT)
    index.save(tmp_path / "i")
    again = annvq.load_index(tmp_path / "i")
    distances, ids = again.search(EXACT[:9] + np.float32(0.1), 400)
    wanted = ((EXACT[:9, None] + np.float32(0.1) - EXACT[None]).astype(np.float64) ** 2).sum(-1)
    np.testing.assert_allclose(distances, np.take_along_axis(wanted, ids, 1), rtol=1e-5)
    assert (np.diff(np.take_along_axis(wanted, ids, 1), axis=1) > -1e-4).all()
    with pytest.raises(ValueError, match="x must be finite in bfloat16 to be re-ranked from; row 1 is not"):
        index.add(np.stack([EXACT[0], np.full(16, 3.4e38, np.float32) * 0.9999999]))
    assert len(index) == 400


def test_outside_vectors_are_read_where_they_lie(tmp_path):
    np.save(tmp_path / "x.npy", BYTES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    q = annvq.ProductVQ(16, 4, 4).fit(mapped, recipe=QUICK)
    for outside in (mapped, BYTES):
        index = annvq.RerankIndex(annvq.FlatIndex(q, "cosine"), outside, shortlist=30).add(mapped)
        raw = annvq.RerankIndex(annvq.FlatIndex(q, "cosine"), "float32", shortlist=30).add(EXACT)
        for a, b in zip(index.search(mapped[:9], 5), raw.search(EXACT[:9], 5), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(index.reconstruct([3, 5]), raw.reconstruct([3, 5]))
        index.save(tmp_path / "i")
        again = annvq.load_index(tmp_path / "i")
        if outside is BYTES:
            again.attach(BYTES)
        np.testing.assert_array_equal(again.search(mapped[:9], 5)[1], index.search(mapped[:9], 5)[1])


@pytest.mark.parametrize("form", ["tensor", "bytes"])
def test_training_by_batches(form):
    q, same = (annvq.ProductVQ(16, 4, 4).fit(EXACT, recipe=QUICK) for _ in range(2))
    Trainer(steps=3, batch_size=16).run(q, TENSOR if form == "tensor" else BYTES)
    Trainer(steps=3, batch_size=16).run(same, EXACT)
    np.testing.assert_array_equal(q.codebooks_copy(), same.codebooks_copy())


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_data_sets_and_choosing(tmp_path, metric):
    rng = np.random.default_rng(2)
    tensor = torch.from_numpy(rng.normal(size=(1100, 16)).astype(np.float32)).bfloat16()
    held, exact = tensor.view(torch.int16).numpy().view(BFLOAT16), tensor.float().numpy()
    a, b = (annvq.datasets.from_vectors(x, nq=20, metric=metric) for x in (held, exact))
    np.testing.assert_array_equal(a.neighbors, b.neighbors)
    np.testing.assert_array_equal(a.distances, b.distances)
    np.testing.assert_array_equal(as_float32(a.learn), b.learn)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name, x in (("train", a.base), ("test", a.queries), ("learn", a.learn)):
            file[name] = x
    loaded = annvq.datasets.load(str(tmp_path / "x.hdf5"), metric=metric)
    assert isinstance(loaded.base, np.memmap)
    np.testing.assert_array_equal(loaded.neighbors, b.neighbors)
    choice = choose(held, bits=16, metric=metric, seconds=0.01)
    assert choice.recommended.recall > 0.1


def test_the_command_line_takes_npy_files(tmp_path):
    np.save(tmp_path / "x.npy", BYTES)
    np.save(tmp_path / "exact.npy", EXACT)
    for name in ("x", "exact"):
        command = [sys.executable, "-m", "annvq.cli", "build", "product", str(tmp_path / f"{name}.npy")]
        options = ["--bits", "16", "--nbits", "4", "--metric", "cosine", "--out", str(tmp_path / name)]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    a, b = (annvq.load_index(tmp_path / name) for name in ("x", "exact"))
    np.testing.assert_array_equal(a.search(BYTES[:9], 5)[1], b.search(EXACT[:9], 5)[1])
