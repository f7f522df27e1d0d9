"""Names and paths, learn vectors, folders of vector files, splits of plain vectors, synthetic sets."""

import subprocess
import sys

import numpy as np
import pytest

from annvq import datasets
from annvq.datasets import builtin, cards, named
from annvq.datasets.download import DownloadError


def write_vecs(path, x):
    heads = np.full((len(x), 1), x.shape[1], "<i4").view(np.uint8)
    np.hstack([heads, np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)]).tofile(path)


def rows(x):
    return {row.tobytes() for row in np.ascontiguousarray(x)}


class TestNames:
    def test_unknown_names_list_the_known_and_the_nearest(self):
        for call in (datasets.load, datasets.info, datasets.get):
            with pytest.raises(ValueError, match=r"unknown data set 'sift-128'; known: patches, .*glove-25-an"):
                call("sift-128")
        with pytest.raises(ValueError, match="Did you mean 'sift-128-euclidean'"):
            datasets.load("sift-128-euclidian")

    def test_names_and_info(self, data_dir):
        assert datasets.names()[0] == "patches"
        assert {"sift-128-euclidean", "nytimes-256-angular", "deep-image-96-angular"} <= set(datasets.names())
        for name in datasets.names():
            facts = datasets.info(name)
            assert facts["name"] == name
            assert facts["metric"] in ("l2", "ip", "cosine")
        facts = datasets.info("sift1m")
        assert (facts["name"], facts["n"], facts["d"], facts["nq"]) == (
            "sift-128-euclidean",
            10**6,
            128,
            10**4,
        )
        assert facts["path"] == str(data_dir / "sift-128-euclidean.hdf5")
        assert facts["downloaded"] is False
        assert datasets.info("builtin")["downloaded"] is True
        assert datasets.get("builtin") is None

    def test_a_card_leads_to_a_set(self, site, make_card, write_hdf5, vectors, monkeypatch):
        site.files["/toy.hdf5"] = write_hdf5(**vectors).read_bytes()
        card = make_card(aliases=("plaything",), licence="free")
        monkeypatch.setattr(cards, "all_cards", lambda: {"toy": card})
        path = datasets.get("plaything")
        assert path == card.path
        got = datasets.load("plaything")
        assert (got.name, got.source, got.info["licence"]) == ("toy", str(path), "free")
        assert len(site.requests) == 1

    def test_no_network(self, site, make_card, monkeypatch):
        card = make_card()
        monkeypatch.setattr(cards, "all_cards", lambda: {"toy": card})
        with pytest.raises(DownloadError, match=r"404 .*by hand"):
            datasets.load("toy")

    def test_paths_are_not_names(self, tmp_path):
        for path in (tmp_path / "none.hdf5", str(tmp_path / "none.hdf5"), "none.hdf5", tmp_path / "none"):
            with pytest.raises(FileNotFoundError, match="no such file"):
                datasets.load(path)
        np.save(tmp_path / "x.npy", np.zeros((3, 3), np.float32))
        with pytest.raises(ValueError, match=r"load_vectors\(\) reads it, from_vectors\(\) splits it"):
            datasets.load(tmp_path / "x.npy")

    def test_a_folder_in_the_current_one_is_a_path(self, tmp_path, vectors, monkeypatch):
        (tmp_path / "mine").mkdir()
        for role, x in (("base", vectors["train"]), ("query", vectors["test"])):
            write_vecs(tmp_path / "mine" / f"mine_{role}.fvecs", x)
        monkeypatch.chdir(tmp_path)
        assert datasets.load("mine").name == "mine"

    @pytest.mark.parametrize("options", [{"k": 0}, {"learn_size": -1}, {"metric": "l1"}])
    def test_bad_options(self, write_hdf5, vectors, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            datasets.load(write_hdf5(**vectors), **options)


class TestLearn:
    def test_own_learn_vectors(self, write_hdf5, vectors):
        learn = np.random.default_rng(3).standard_normal((50, 12)).astype(np.float32)
        path = write_hdf5(**vectors, learn=learn)
        got = datasets.load(path)
        assert got.learn_is_base_sample is False
        np.testing.assert_array_equal(got.learn, learn)
        some = datasets.load(path, learn_size=20)
        assert len(some.learn) == 20
        assert rows(some.learn) <= rows(learn)

    def test_a_seeded_base_sample_in_place_of_learn(self, write_hdf5, vectors):
        path = write_hdf5(**vectors)
        got = datasets.load(path)
        assert got.learn_is_base_sample is True
        assert "(from base)" in repr(got)
        np.testing.assert_array_equal(got.learn, vectors["train"])
        first, again, other = (datasets.load(path, learn_size=40, seed=seed).learn for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert len(first) == 40
        assert len(rows(first)) == 40
        assert rows(first) <= rows(vectors["train"])
        assert rows(first) != rows(other)

    @pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float16])
    def test_queries_are_never_trained_on(self, write_hdf5, vectors, dtype):
        x = {key: np.round(value * 20 + 100).astype(dtype) for key, value in vectors.items()}
        x["test"][0] = x["train"][17]
        got = datasets.load(write_hdf5(**x))
        assert len(got.learn) == 299
        assert not rows(got.learn) & rows(got.queries)
        got = datasets.load(write_hdf5(**x, learn=np.vstack([x["train"][:30], x["test"][5:8]])))
        assert len(got.learn) == 29

    def test_minus_zero_is_zero(self):
        query = np.array([[0.0, 1.0]], np.float32)
        learn = np.array([[-0.0, 1.0], [2.0, 3.0]], np.float32)
        got = datasets.loading.training_vectors(learn, learn, query)
        np.testing.assert_array_equal(got, learn[1:])

    def test_nothing_left_to_train_on(self, write_hdf5, vectors):
        with pytest.raises(ValueError, match="every one of them is also a query"):
            datasets.load(write_hdf5(train=vectors["test"], test=vectors["test"]))


class TestFolders:
    def fill(self, folder, vectors, **more):
        folder.mkdir()
        parts = {"base": vectors["train"], "query": vectors["test"], **more}
        for role, x in parts.items():
            write_vecs(folder / f"sift_{role}.{'ivecs' if role == 'groundtruth' else 'fvecs'}", x)
        return folder

    def test_the_texmex_layout(self, tmp_path, vectors):
        ids, distances = datasets.exact_neighbors(vectors["train"], vectors["test"], 100)
        learn = vectors["train"][:70] + np.float32(1)
        folder = self.fill(tmp_path / "sift", vectors, learn=learn, groundtruth=ids.astype("<i4"))
        got = datasets.load(folder)
        assert (got.name, got.metric, got.learn_is_base_sample) == ("sift", "l2", False)
        assert isinstance(got.base, np.memmap)
        np.testing.assert_array_equal(got.base, vectors["train"])
        np.testing.assert_array_equal(got.learn, learn)
        np.testing.assert_array_equal(got.neighbors, ids)
        np.testing.assert_array_equal(got.distances, distances)

    def test_vectors_of_a_set_are_its_base(self, tmp_path, vectors):
        folder = self.fill(tmp_path / "sift", vectors, learn=vectors["train"][:70])
        np.testing.assert_array_equal(datasets.load_vectors(folder), vectors["train"])
        (folder / "sift_query.fvecs").unlink()  # no set any more, whatever names say
        assert len(datasets.load_vectors(folder)) == 370

    @pytest.mark.parametrize("suffix", ["npy", "npz", "parquet"])
    def test_other_formats(self, tmp_path, vectors, suffix):
        if suffix == "parquet":
            pytest.importorskip("pyarrow")
        (tmp_path / "x").mkdir()
        for role, key in (("base", "train"), ("query", "test")):
            datasets.convert(vectors[key], tmp_path / "x" / f"x_{role}.{suffix}")
        got = datasets.load(tmp_path / "x")
        np.testing.assert_array_equal(got.base, vectors["train"])
        ids, _ = datasets.exact_neighbors(vectors["train"], vectors["test"], 100)
        np.testing.assert_array_equal(got.neighbors, ids)

    def test_other_metric_and_no_ground_truth(self, tmp_path, vectors):
        got = datasets.load(self.fill(tmp_path / "x", vectors), metric="cosine")
        ids, _ = datasets.exact_neighbors(vectors["train"], vectors["test"], 100, "cosine")
        np.testing.assert_array_equal(got.neighbors, ids)
        assert got.learn_is_base_sample is True

    def test_incomplete_and_ambiguous_folders(self, tmp_path, vectors):
        folder = self.fill(tmp_path / "x", vectors)
        write_vecs(folder / "other_base.fvecs", vectors["train"])
        with pytest.raises(ValueError, match=r"more than one file ending in _base: other_base.fvecs, sift_base"):
            datasets.load(folder)
        for path in folder.glob("*_base.fvecs"):
            path.unlink()
        with pytest.raises(ValueError, match=r"no file ending in _base\{.fvecs,"):
            datasets.load(folder)

    def test_ground_truth_of_other_queries(self, tmp_path, vectors):
        ids = np.zeros((3, 100), "<i4")
        with pytest.raises(ValueError, match="neighbours of 3 queries, but there are 20"):
            datasets.load(self.fill(tmp_path / "x", vectors, groundtruth=ids))


class TestZeroVectors:
    def test_they_are_left_out_under_cosine(self, write_hdf5, vectors, caplog):
        vectors["train"][[5, 200]] = 0
        vectors["test"][3] = 0
        stated = np.tile(np.arange(100), (20, 1))  # whatever the file says: ids move
        got = datasets.load(write_hdf5(distance="angular", **vectors, neighbors=stated))
        assert (got.n, got.nq) == (298, 19)
        assert (np.abs(got.base).sum(axis=1) > 0).all()
        np.testing.assert_array_equal(got.neighbors, datasets.exact_neighbors(got.base, got.queries, 100, "cosine")[0])
        assert "left out zero vectors: 2 of base, 1 queries" in caplog.text

    def test_they_stay_under_l2(self, write_hdf5, vectors):
        vectors["train"][5] = 0
        assert datasets.load(write_hdf5(**vectors)).n == 300

    def test_nothing_but_zeros(self, write_hdf5, vectors):
        with pytest.raises(ValueError, match="all base vectors or all queries are zero"):
            datasets.load(write_hdf5(distance="angular", train=vectors["train"] * 0, test=vectors["test"]))


class TestFromVectors:
    @pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
    def test_queries_are_held_out(self, metric):
        x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
        got = datasets.from_vectors(x, nq=30, metric=metric, k=10, name="mine")
        assert (got.name, got.n, got.nq, got.k, got.learn_is_base_sample) == ("mine", 370, 30, 10, True)
        assert rows(got.base) | rows(got.queries) == rows(x)
        assert not rows(got.base) & rows(got.queries)
        np.testing.assert_array_equal(got.neighbors, datasets.exact_neighbors(got.base, got.queries, 10, metric)[0])

    def test_seeds(self):
        x = np.random.default_rng(0).integers(0, 255, (300, 6)).astype(np.uint8)
        first, again, other = (datasets.from_vectors(x, nq=30, seed=s) for s in (4, 4, 5))
        np.testing.assert_array_equal(first.queries, again.queries)
        assert rows(first.queries) != rows(other.queries)
        assert first.base.dtype == np.uint8

    def test_too_few(self):
        with pytest.raises(ValueError, match="nq=6 queries are more than half of the 10 vectors"):
            datasets.from_vectors(np.zeros((10, 3), np.float32), nq=6)


class TestGaussian:
    def test_moments_and_seeds(self):
        got = datasets.gaussian(8, n=20_000, n_learn=5000, nq=50, correlation=0.7, k=10)
        assert (got.name, got.n, got.nq, got.d, got.k) == ("gaussian-8-corr0.7", 20_000, 50, 8, 10)
        expected = 0.7 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
        np.testing.assert_allclose(np.cov(got.base.T), expected, atol=0.05)
        np.testing.assert_allclose(got.base.mean(axis=0), 0, atol=0.04)
        assert not rows(got.base) & rows(got.learn)

    def test_a_larger_base_changes_neither_learn_nor_queries(self):
        small, large = (builtin.normal(4, n, seed=3) for n in (10, 2000))
        np.testing.assert_array_equal(small[1], large[1])
        np.testing.assert_array_equal(small[2], large[2])
        assert not np.array_equal(builtin.normal(4, 10, seed=4)[1], small[1])

    @pytest.mark.parametrize(("options", "name"), [({"d": 0}, "d"), ({"d": 2, "correlation": 1}, "correlation")])
    def test_bad_options(self, options, name):
        with pytest.raises(ValueError, match=f"{name} must be"):
            datasets.gaussian(**options)


@pytest.fixture(scope="module")
def patches():
    return builtin.patches()


class TestPatches:
    def test_shapes_and_distinct_rows(self, patches):
        base, learn, queries = patches
        assert [x.shape for x in patches] == [(100_000, 64), (20_000, 64), (1000, 64)]
        assert all(x.dtype == np.uint8 for x in patches)
        assert [len(rows(x)) for x in patches] == [100_000, 20_000, 1000]
        assert not rows(learn) & rows(base)
        assert not rows(queries) & (rows(base) | rows(learn))

    def test_the_same_every_time(self, patches):
        for x, y in zip(patches, builtin.patches(), strict=True):
            np.testing.assert_array_equal(x, y)

    def test_no_pixel_is_shared(self, monkeypatch):
        """With every pixel numbered, no number may appear in two of the sets."""
        numbered = [np.arange(427 * 640).reshape(427, 640) + i * 427 * 640 for i in range(2)]
        monkeypatch.setattr(builtin, "_photographs", lambda: numbered)
        base, learn, queries = (np.unique(x) for x in builtin.patches())
        assert not np.intersect1d(base, learn).size
        assert not np.intersect1d(queries, np.concatenate([base, learn])).size

    def test_loads_with_exact_neighbours(self, patches):
        got = datasets.load("builtin")
        assert (got.name, got.metric, got.learn_is_base_sample) == ("patches", "l2", False)
        assert got.neighbors.shape == got.distances.shape == (1000, 100)
        base, _, queries = (x.astype(np.int64) for x in patches)
        for q in (0, 500, 999):
            distances = ((base - queries[q]) ** 2).sum(axis=1)
            order = np.lexsort((np.arange(len(base)), distances))[:100]
            np.testing.assert_array_equal(got.neighbors[q], order)
            np.testing.assert_array_equal(got.distances[q], distances[order])


def test_importing_stays_light():
    heavy = ("h5py", "sklearn", "faiss", "requests", "torch", "tqdm", "safetensors", "PIL")
    code = f"import sys, annvq.datasets; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_public_names_exist():
    assert all(hasattr(datasets, name) for name in datasets.__all__)
    assert named.load is datasets.load
