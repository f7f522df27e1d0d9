"""Data sets of Hugging Face's ``datasets``: a column as vectors, and our index as the one that they search by."""

import warnings

import numpy as np
import pytest

import annvq
from annvq.indexes.building import add_in_chunks
from annvq.training import KMeans, Recipe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    hf = pytest.importorskip("datasets")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

X = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
QUICK = Recipe((KMeans(3),))


@pytest.fixture
def table():
    return hf.Dataset.from_dict({"text": [f"text {i}" for i in range(500)], "embedding": X})


@pytest.fixture
def index():
    return annvq.FlatIndex(annvq.ProductVQ(8, 4, nbits=4)).fit(X, recipe=QUICK)


@pytest.mark.parametrize("form", ["whole", "picked", "float64", "numpy", "fixed", "saved"])
def test_a_column_is_vectors(table, form, tmp_path):
    expected = X
    if form == "picked":
        rows = np.random.default_rng(1).permutation(500)[:77]
        table, expected = table.select(rows), X[rows]
    elif form == "float64":
        table = table.cast_column("embedding", hf.Sequence(hf.Value("float64")))
    elif form == "numpy":
        table = table.with_format("numpy")
    elif form == "fixed":
        table = table.cast_column("embedding", hf.Sequence(hf.Value("float32"), length=8))
    elif form == "saved":
        table.save_to_disk(tmp_path / "saved", num_shards=3)
        np.testing.assert_array_equal(np.asarray(annvq.datasets.load_vectors(tmp_path / "saved")), X)
    for column in (annvq.datasets.column(table), annvq.datasets.column(table, "embedding")):
        assert (column.shape, column.dtype) == (expected.shape, np.float32)
        np.testing.assert_array_equal(np.asarray(column), expected)
        np.testing.assert_array_equal(column[[20, 3]], expected[[20, 3]])


def test_indexes_take_columns(table, index):
    expected = annvq.FlatIndex(index.quantizer).add(X).search(X[:7], 5)
    for given in (table["embedding"], annvq.datasets.column(table)):
        made = annvq.FlatIndex(index.quantizer).add(given)
        for a, b in zip(made.search(X[:7], 5), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (
        len(
            add_in_chunks(index, (np.asarray(part["embedding"], "f4") for part in table.to_iterable_dataset().iter(99)))
        )
        == 500
    )


def test_what_is_no_column(table, index):
    with pytest.raises(TypeError, match=r"x must be a column: annvq.datasets.column\(table, name\)"):
        index.add(table)
    with pytest.raises(TypeError, match="must be a column of vectors"):
        index.add(table["text"])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_split_must_be_chosen(table, index, streamed, tmp_path):
    held = hf.DatasetDict({"train": table, "test": table})
    held.save_to_disk(tmp_path / "saved")
    if streamed:
        held = hf.IterableDatasetDict({name: part.to_iterable_dataset() for name, part in held.items()})
    takers = (index.add, index.fit, annvq.datasets.column, annvq.datasets.from_vectors)
    for take in (*takers, lambda x: add_in_chunks(index, x)):
        with pytest.raises(
            TypeError, match=r"must be one split of a data set, got \w+ of 'train', 'test': choose a spl"
        ):
            take(held)
    with pytest.raises(ValueError, match="there are some in its folders test, train: name one of these"):
        annvq.datasets.load_vectors(tmp_path / "saved")
    assert len(annvq.datasets.load_vectors(tmp_path / "saved" / "train")) == 500


def test_streams_come_in_batches(table, index):
    stream = table.to_iterable_dataset()
    for take in (index.add, annvq.datasets.column, lambda x: add_in_chunks(index, x)):
        with pytest.raises(TypeError, match=r"got IterableDataset, which is streamed: .*add_in_chunks takes arrays of"):
            take(stream)


def test_no_rows(table, index):
    empty = table.select([])
    for take in (lambda: annvq.datasets.column(empty), lambda: index.add(empty["embedding"])):
        with pytest.raises(ValueError, match="must have at least one row, got none"):
            take()


def test_their_search_by_our_index(table, index):
    """``add_faiss_index(custom_index=…)`` adds the vectors and asks for neighbours through FAISS."""
    table.add_faiss_index("embedding", custom_index=annvq.to_faiss(index))
    distances, ids = index.add(X).search(X[:20], 5)
    scores, found = table.get_nearest_examples_batch("embedding", X[:20], k=5)
    np.testing.assert_allclose(scores, distances, rtol=1e-4, atol=1e-4)
    texts = [batch["text"] for batch in found]
    assert np.mean([a == [f"text {i}" for i in row] for a, row in zip(texts, ids, strict=True)]) > 0.9  # ties, rounding
