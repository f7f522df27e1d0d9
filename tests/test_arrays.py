"""What is accepted as vectors, and what is refused by name."""

import json

import numpy as np
import pytest

import annvq
from annvq import storage
from annvq.arrays import FEW, normalized, to_numpy
from annvq.kernels import _native
from annvq.training import History, KMeans, Recipe, Trainer

X = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
QUICK = Recipe((KMeans(3),))


def test_masked_values_are_refused_and_a_mask_of_nothing_is_not():
    masked = np.ma.masked_array(X, mask=np.zeros(X.shape, bool))
    q = annvq.ProductVQ(8, 2, 4).fit(masked, recipe=QUICK)
    np.testing.assert_array_equal(q.encode(masked), q.encode(X))
    masked[3, 1] = np.ma.masked
    index = annvq.FlatIndex(q)
    for use in (q.encode, index.add, lambda x: index.search(x, 3), annvq.ProductVQ(8, 2, 4).fit):
        with pytest.raises(ValueError, match="no masked values, got 1"):
            use(masked)
    assert len(index) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_byte_order_does_not_matter(dtype):
    native = X.astype(dtype)
    swapped = native.astype(native.dtype.newbyteorder("S"))
    q, other = (annvq.ResidualVQ(8, 2, 4).fit(x, recipe=QUICK) for x in (native, swapped))
    np.testing.assert_array_equal(q.codebooks_copy(), other.codebooks_copy())
    np.testing.assert_array_equal(q.encode(native), q.encode(swapped))
    index = annvq.FlatIndex(q).add(swapped)
    for a, b in zip(index.search(native[:9], 3), index.search(swapped[:9], 3), strict=True):
        np.testing.assert_array_equal(a, b)
    again = annvq.RerankIndex(annvq.FlatIndex(q), "float32").add(swapped)
    assert (again.search(swapped[:9], 1)[1][:, 0] == np.arange(9)).all()
    a, b = (annvq.ProductVQ(8, 2, 3).set_codebooks(np.zeros((2, 8, 4), np.float32)) for _ in range(2))
    for quantizer, x in ((a, native), (b, swapped)):
        Trainer(steps=3, batch_size=16).run(quantizer, x)
    np.testing.assert_array_equal(a.codebooks_copy(), b.codebooks_copy())


def test_nbits_may_be_an_array(tmp_path):
    q = annvq.ResidualVQ(8, 3, np.array([3, 4, 5])).fit(X, recipe=QUICK)
    assert q.nbits == (3, 4, 5)
    q.save(tmp_path / "q")
    assert annvq.load_quantizer(tmp_path / "q").nbits == (3, 4, 5)
    with pytest.raises(ValueError, match="nbits must be one int or M=3"):
        annvq.ResidualVQ(8, 3, np.array([3, 4]))
    with pytest.raises(TypeError, match="nbits must be an integer"):
        annvq.ResidualVQ(8, 2, np.array([3.0, 4.0]))


def test_a_missing_folder_is_named(tmp_path):
    q = annvq.ProductVQ(8, 2, 4).fit(X, recipe=QUICK)
    for save in (q.save, annvq.FlatIndex(q).save, History().save):
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere$"):
            save(tmp_path / "nowhere" / "file")


def test_a_history_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "history.json"
    History(loss=[1.0]).save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(storage.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        History(loss=[2.0]).save(path)
    assert json.loads(path.read_text())["loss"] == [1.0]
    assert list(tmp_path.iterdir()) == [path]


def by_numpy(x):
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    return np.divide(x, norms[:, None], out=np.empty(x.shape, np.float32), casting="same_kind")


@pytest.mark.parametrize("dim", [1, 3, 96, 384, 1000])
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1, 1e36])
def test_few_rows_are_normalised_as_many_are(dim, scale):
    x = (np.random.default_rng(dim).normal(size=(400, dim)) * scale).astype(np.float32)
    x = x[x.any(axis=1)]
    natively = 0
    for start in range(0, len(x), FEW):
        rows = np.ascontiguousarray(x[start : start + FEW])
        natively += _native.unit_rows(rows, np.empty(rows.shape, np.float32))
        np.testing.assert_array_equal(normalized(rows).view(np.uint32), by_numpy(rows).view(np.uint32))
    assert natively > 0


def test_rows_whose_last_bits_hang_on_the_order_of_a_sum_are_left_to_numpy():
    x = np.random.default_rng(0).normal(size=(1, 100_000)).astype(np.float32)  # one in a thousand numbers does
    assert not _native.unit_rows(x, np.empty(x.shape, np.float32))
    np.testing.assert_array_equal(normalized(x), by_numpy(x))
    wide = np.ones((3, 16), np.float32)[:, ::2]
    np.testing.assert_array_equal(normalized(wide), by_numpy(wide))
    with pytest.raises(ValueError, match="x must not hold zero vectors under cosine; row 6 is zero"):
        normalized(np.float32([[1, 2], [0, 0]]), start=5)


@pytest.mark.parametrize("n", [1, 8, 37])
def test_numbers_not_above_zero_become_zero_bit_for_bit(n):
    x = np.resize(np.float32([-0.0, 0, -1, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 2]), n)
    expected = np.maximum(x, 0)
    _native.raise_to_zero(x)
    np.testing.assert_array_equal(x.view(np.uint32), expected.view(np.uint32))


def test_rows_that_can_be_read_as_they_are_are_not_copied():
    fixed = X.copy()
    fixed.flags.writeable = False
    for rows in (X, X[5:9], X[:0], X[:, :][::1], fixed):
        assert to_numpy(rows, 8) is rows
    unaligned = np.frombuffer(b"\0" + X.tobytes(), np.float32, offset=1).reshape(X.shape)
    for rows in (X[::2], np.asfortranarray(X), X.astype(">f4"), unaligned, X.astype(np.float64), X.view(np.recarray)):
        own = to_numpy(rows, 8)
        assert own.dtype == np.float32
        assert own.flags.c_contiguous
        assert own.flags.aligned
        np.testing.assert_array_equal(own, rows)
    for odd in (np.nan, np.inf, -np.inf):
        broken = X.copy()
        broken[7, 3] = odd
        with pytest.raises(ValueError, match="x must be finite in float32; row 7 has NaN or infinity"):
            to_numpy(broken, 8)
    with pytest.raises(ValueError, match=r"x must be float32 of shape \(n, 8\), got float32 \(300, 4\)"):
        to_numpy(np.ascontiguousarray(X[:, :4]), 8)
    with pytest.raises(ValueError, match=r"got float32 \(8,\); for a single vector give queries\[None\]$"):
        to_numpy(X[0], 8, "queries")
    with pytest.raises(ValueError, match=r"got float32 \(4,\)$"):  # of another dimension: that says it
        to_numpy(X[0, :4], 8, "queries")
