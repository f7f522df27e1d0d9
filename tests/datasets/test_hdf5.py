"""HDF5 files of the ann-benchmarks layout: metrics and distances converted, bad files refused by name."""

import h5py
import numpy as np
import pytest

from annvq import datasets
from annvq.datasets import files, groundtruth


def truth(x, metric, k=100):
    return datasets.exact_neighbors(x["train"], x["test"], k, metric)


STATED = {
    "euclidean": ("l2", np.sqrt),
    "l2": ("l2", lambda t: t),
    "angular": ("cosine", lambda t: t),
    "cosine": ("cosine", lambda t: t),
    "dot": ("ip", np.negative),
    "ip": ("ip", lambda t: t),
}


@pytest.mark.parametrize("stated", STATED)
def test_metric_and_distances_become_ours(write_hdf5, vectors, stated, monkeypatch):
    metric, convert = STATED[stated]
    ids, distances = truth(vectors, metric)
    path = write_hdf5(distance=stated, **vectors, neighbors=ids.astype(np.int32), distances=convert(distances))
    monkeypatch.setattr(groundtruth, "exact_neighbors", lambda *a, **k: pytest.fail("computed"))
    got = datasets.load(path)
    assert (got.name, got.metric, got.source) == ("toy", metric, str(path))
    assert (got.n, got.nq, got.d, got.k) == (300, 20, 12, 100)
    np.testing.assert_array_equal(got.base, vectors["train"])
    np.testing.assert_array_equal(got.queries, vectors["test"])
    np.testing.assert_array_equal(got.neighbors, ids)
    np.testing.assert_array_equal(got.distances, distances)
    assert got.neighbors.dtype == np.int64
    assert got.distances.dtype == np.float32


def test_base_is_mapped_and_keeps_its_type(write_hdf5, vectors):
    x = {key: (value * 20 + 100).astype(np.uint8) for key, value in vectors.items()}
    got = datasets.load(write_hdf5(**x))
    assert isinstance(got.base, np.memmap)
    assert got.base.dtype == got.queries.dtype == got.learn.dtype == np.uint8


def test_chunked_and_compressed_files_are_read(tmp_path, vectors):
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = np.bytes_("euclidean")
        file.create_dataset("train", data=vectors["train"].astype(">f8"), chunks=(64, 12), compression="gzip")
        file.create_dataset("test", data=vectors["test"], chunks=(8, 12))
    got = datasets.load(path)
    assert got.base.dtype == np.float32
    np.testing.assert_array_equal(got.base, vectors["train"])


@pytest.mark.parametrize("held", [None, 10], ids=["none", "ten"])
def test_missing_neighbours_are_computed_once(write_hdf5, vectors, held, monkeypatch):
    ids, distances = truth(vectors, "l2")
    extra = {} if held is None else {"neighbors": ids[:, :held], "distances": np.sqrt(distances[:, :held])}
    path = write_hdf5(**vectors, **extra)
    np.testing.assert_array_equal(datasets.load(path).neighbors, ids)
    monkeypatch.setattr(groundtruth, "exact_neighbors", lambda *a, **k: pytest.fail("computed again"))
    np.testing.assert_array_equal(datasets.load(path).distances, distances)


def test_a_small_base_has_fewer_neighbours(write_hdf5, vectors):
    got = datasets.load(write_hdf5(train=vectors["train"][:30], test=vectors["test"]))
    assert got.neighbors.shape == (20, 30)


def test_missing_distances_are_computed(write_hdf5, vectors):
    ids, distances = truth(vectors, "l2")
    got = datasets.load(write_hdf5(**vectors, neighbors=ids))
    np.testing.assert_array_equal(got.distances, distances)


def test_another_metric_is_computed(write_hdf5, vectors):
    ids, distances = truth(vectors, "l2")
    path = write_hdf5(**vectors, neighbors=ids, distances=np.sqrt(distances))
    got = datasets.load(path, metric="ip")
    assert got.metric == "ip"
    np.testing.assert_array_equal(got.neighbors, truth(vectors, "ip")[0])


def test_a_file_without_distance_needs_a_metric(write_hdf5, vectors):
    ids, _ = truth(vectors, "l2")
    path = write_hdf5(distance=None, **vectors, neighbors=ids)
    with pytest.raises(ValueError, match=r"toy\.hdf5: no attribute 'distance' in it; pass metric="):
        datasets.load(path)
    np.testing.assert_array_equal(datasets.load(path, metric="l2").neighbors, ids)


def test_wrong_neighbours_are_refused_unless_ignored(write_hdf5, vectors):
    ids, distances = truth(vectors, "l2")
    for wrong, message in (
        ({"neighbors": ids[:, ::-1]}, "not in order of the distance 'l2'"),
        ({"neighbors": (ids + 1) % 300}, "not in order of the distance 'l2'"),
        ({"neighbors": ids + 250}, r"neighbour ids must lie in \[0, 300\)"),
        ({"neighbors": ids - 1}, r"neighbour ids must lie in \[0, 300\)"),
        ({"neighbors": ids, "distances": np.sqrt(distances) * 3}, "its distances do not agree"),
        ({"neighbors": ids, "distances": np.sqrt(distances)[:, :5]}, r"distances has \(20, 5\)"),
    ):
        path = write_hdf5(**vectors, **wrong)
        with pytest.raises(ValueError, match=message) as caught:
            datasets.load(path)
        assert str(path) in str(caught.value)
        np.testing.assert_array_equal(datasets.load(path, recompute=True).neighbors, ids)


@pytest.mark.parametrize("stated", ["jaccard", "hamming", "L7"])
def test_other_distances_are_refused(write_hdf5, vectors, stated):
    with pytest.raises(ValueError, match=rf"toy\.hdf5: distance '{stated}' is not supported"):
        datasets.load(write_hdf5(distance=stated, **vectors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": None},
            r"no dataset 'train' in it \(it has 'test'\).*; where one alone is meant, '.*:NAME' names it",
        ),
        ({"train": None, "test": None}, r"no dataset 'train' or 'test' in it \(it has nothing\)"),
        ({"train": np.zeros(7, np.float32)}, r"dataset 'train' must be two-dimensional .* shape \(7,\)"),
        ({"train": np.zeros((5, 3), np.float32)}, r"base has dimension 3, queries has shape \(20, 12\)"),
        ({"train": np.zeros((5, 12), np.int64)}, "dataset 'train' must hold uint8, .* got int64"),
        ({"test": np.zeros((0, 12), np.float32)}, "dataset 'test' is empty"),
        ({"learn": np.zeros((5, 3), np.float32)}, r"learn has shape \(5, 3\)"),
        ({"neighbors": np.zeros((3, 5), np.int32)}, r"'neighbors' must have one row per query, \(20, k\)"),
        ({"neighbors": np.zeros((20, 100), np.float32)}, "'neighbors' holds float32 values"),
        ({"train": b"text"}, "dataset 'train' must be two-dimensional"),
    ],
)
def test_wrong_layouts_are_named(write_hdf5, vectors, change, message):
    arrays = {key: value for key, value in {**vectors, **change}.items() if value is not None}
    path = write_hdf5(**arrays)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["train", "mine"])
@pytest.mark.parametrize("distance", [None, "angular"])
def test_a_file_of_one_dataset_is_vectors_and_no_set(write_hdf5, vectors, name, distance):
    path = write_hdf5(distance=distance, **{name: vectors["train"]})
    assert files.plain(path)
    assert files.stated_metric(path) == (None if distance is None else "cosine")
    np.testing.assert_array_equal(datasets.load_vectors(path), vectors["train"])
    with pytest.raises(
        ValueError, match=r"vectors without queries; load_vectors\(\) reads it, from_vectors\(\) splits"
    ):
        datasets.load(path)


def test_a_file_with_queries_or_learn_vectors_is_a_set(write_hdf5, vectors):
    for more in ("test", "learn"):
        assert not files.plain(write_hdf5(train=vectors["train"], **{more: vectors["test"]}))
    with pytest.raises(ValueError, match=r"no dataset 'test' in it \(it has 'learn', 'train'\)"):
        datasets.load(write_hdf5(train=vectors["train"], learn=vectors["test"]))


def test_a_group_in_place_of_a_dataset(tmp_path, vectors):
    path = tmp_path / "group.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "euclidean"
        file.create_group("train")
        file["test"] = vectors["test"]
    with pytest.raises(ValueError, match="'train' is a group"):
        datasets.load(path)


def test_truncated_and_other_files(write_hdf5, vectors):
    path = write_hdf5(**vectors)
    whole = path.read_bytes()
    for content in (b"", b"not hdf5", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"toy\.hdf5: (not a readable HDF5 file|truncated)"):
            datasets.load(path)


def test_plain_vectors_of_a_file(write_hdf5, vectors):
    np.testing.assert_array_equal(datasets.load_vectors(write_hdf5(**vectors)), vectors["train"])
    only = write_hdf5(embeddings=vectors["test"], labels=np.arange(20))
    np.testing.assert_array_equal(datasets.load_vectors(only), vectors["test"])
    with pytest.raises(ValueError, match="expected a dataset 'train' or one two-dimensional dataset"):
        datasets.load_vectors(write_hdf5(a=vectors["test"], b=vectors["test"]))
