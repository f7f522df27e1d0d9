"""What is accepted as vectors, and what is refused by name."""

import json

import numpy as np
import pytest

import annvq
from annvq import storage
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
