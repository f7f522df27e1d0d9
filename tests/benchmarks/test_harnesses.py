"""Adapters for other people's benchmarks, against stand-ins of what these give them."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

HARNESSES = Path(__file__).parents[2] / "benchmarks" / "harnesses"
RNG = np.random.default_rng(0)
BASE = (RNG.normal(size=(30, 16))[RNG.integers(30, size=3000)] * 3 + RNG.normal(size=(3000, 16))).astype(np.float32)
QUERIES = BASE[:20] + 0.1 * RNG.normal(size=(20, 16)).astype(np.float32)
FLAT = {"index": {"kind": "flat"}, "quantizer": {"kind": "product", "M": 8, "nbits": 6}}
LISTS = {
    "index": {"kind": "ivf", "nlist": 8, "residual": False},
    "quantizer": {"kind": "product", "M": 4, "nbits": 4},
    "refine": {"vectors": "base"},
}


class BaseANN:
    """What both harnesses give algorithms."""

    def done(self):
        pass

    def get_results(self):
        return self.res

    def __str__(self):
        return self.name


def stand_in(monkeypatch, name, **contents):
    """A module of this name, and packages above it."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:i]))
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for key, value in contents.items():
        setattr(module, key, value)


def exact(queries, k, base=BASE):
    return ((queries[:, None] - base) ** 2).sum(2).argsort(1)[:, :k]


def recall(found, true):
    return np.mean([len(set(map(int, a)) & set(b)) / len(b) for a, b in zip(found, true, strict=True)])


@pytest.fixture
def ann(monkeypatch):
    stand_in(monkeypatch, "ann_benchmarks.algorithms.base.module", BaseANN=BaseANN)
    monkeypatch.setitem(sys.modules, "ann_benchmarks.algorithms.annvq", ModuleType("ann_benchmarks.algorithms.annvq"))
    source = (HARNESSES / "ann-benchmarks" / "module.py").read_text()
    module = {"__name__": "ann_benchmarks.algorithms.annvq.module", "__package__": "ann_benchmarks.algorithms.annvq"}
    exec(source, module)
    return module["Annvq"]


def test_ann_benchmarks_flat(ann):
    algorithm = ann("euclidean", FLAT)
    algorithm.fit(BASE.astype(np.float64))
    one = [algorithm.query(q, 10) for q in QUERIES]
    algorithm.batch_query(QUERIES, 10)
    assert [row.tolist() for row in algorithm.get_batch_results()] == [row.tolist() for row in one]
    assert recall(one, exact(QUERIES, 10)) > 0.6
    assert str(algorithm) == "annvq(given, nlist=auto)"
    assert algorithm.get_additional()["bits_per_vector"] == 48


def test_ann_benchmarks_settings_and_metrics(ann):
    algorithm = ann("angular", LISTS)
    algorithm.fit(BASE)
    recalls = []
    unit = BASE / np.linalg.norm(BASE, axis=1, keepdims=True)
    true = exact(QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True), 10, unit)
    for nprobe, shortlist in ((1, 10), (8, 500)):
        algorithm.set_query_arguments(nprobe, shortlist)
        recalls.append(recall([algorithm.query(q, 10) for q in QUERIES], true))
    assert recalls[0] < recalls[1] > 0.99
    assert str(algorithm) == "annvq(given, nlist=auto, nprobe=8, shortlist=500)"
    with pytest.raises(NotImplementedError, match="hamming"):
        ann("hamming", FLAT)
    assert ann("euclidean", "ivf-pvq-8", 64).recipe.index["nlist"] == 64
    few = ann("euclidean", LISTS)
    few.fit(BASE)
    few.set_query_arguments(1)
    few.batch_query(QUERIES, 3000)  # one list has fewer: no id stands for what is not there
    assert all(len(ids) < 3000 and (ids >= 0).all() for ids in few.get_batch_results())


class Samples:
    """A data set of big-ann-benchmarks."""

    nb, d = BASE.shape

    def get_dataset(self):
        return BASE

    def get_dataset_iterator(self, bs):
        return (BASE[i : i + bs] for i in range(0, self.nb, bs))

    def search_type(self):
        return "knn_filtered"

    def get_dataset_metadata(self):
        rows = np.arange(self.nb)
        words = np.concatenate([rows % 3, 3 + rows % 2])
        return sp.csr_matrix((np.ones(2 * self.nb), (np.tile(rows, 2), words)))


@pytest.fixture
def big(monkeypatch, tmp_path):
    stand_in(monkeypatch, "benchmark.algorithms.base", BaseANN=BaseANN)
    stand_in(monkeypatch, "benchmark.datasets", DATASETS={"samples": Samples})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return SimpleNamespace(**runpy.run_path(str(HARNESSES / "big-ann-benchmarks" / "tracks.py")))


def test_big_ann_benchmarks(big):
    algorithm = big.Annvq("euclidean", {"recipe": FLAT, "learn": 1000})
    assert not algorithm.load_index("samples")
    algorithm.fit("samples")
    algorithm.query(QUERIES, 10)
    assert recall(algorithm.get_results(), exact(QUERIES, 10)) > 0.6
    again = big.Annvq("euclidean", {"recipe": FLAT})
    assert again.load_index("samples")
    again.query(QUERIES, 10)
    assert np.array_equal(again.get_results(), algorithm.get_results())
    again.range_query(QUERIES, 16.0)
    lims, distances, ids = again.res
    assert lims[-1] == len(ids) == len(distances) > 20
    assert (distances <= 16.0).all()
    lists = big.Annvq("euclidean", {"recipe": LISTS})
    lists.fit("samples")
    lists.set_query_arguments({"nprobe": 8, "shortlist": 500})
    lists.query(QUERIES, 10)
    assert recall(lists.get_results(), exact(QUERIES, 10)) > 0.99
    assert str(lists) == "annvq(given, nprobe=8, shortlist=500)"


def test_big_ann_benchmarks_filter(big):
    algorithm = big.AnnvqFilter("euclidean", {"recipe": LISTS})
    algorithm.fit("samples")
    algorithm.set_query_arguments({"nprobe": 8, "shortlist": 500})
    wanted = [(0, 3), (1,), (2, 4), (0, 3)] * 5
    asked = sp.csr_matrix(
        (np.ones(sum(map(len, wanted))), np.concatenate(wanted), np.cumsum([0, *map(len, wanted)])), shape=(20, 5)
    )
    algorithm.filtered_query(QUERIES, asked, 5)
    words = Samples().get_dataset_metadata().toarray() > 0
    for query, want, ids in zip(QUERIES, wanted, algorithm.get_results(), strict=True):
        allowed = np.flatnonzero(words[:, list(want)].all(1))
        assert allowed[exact(query[None], 5, BASE[allowed])[0]].tolist() == ids.tolist()
    assert algorithm.track() == "filter"


def test_big_ann_benchmarks_streaming(big):
    recipe = {**FLAT, "refine": {"vectors": "float32"}}
    algorithm = big.AnnvqStreaming("euclidean", {"recipe": recipe, "learn": 600})
    algorithm.setup("float32", 3000, 16)
    algorithm.insert(BASE[:500], np.arange(500, dtype=np.uint32))
    algorithm.query(QUERIES, 10)
    assert np.array_equal(algorithm.get_results(), exact(QUERIES, 10, BASE[:500]))
    algorithm.insert(BASE[500:], np.arange(500, 3000, dtype=np.uint32))
    algorithm.delete(np.arange(20, 1000, dtype=np.uint32))
    algorithm.replace(BASE[20:40], np.arange(20, dtype=np.uint32))
    algorithm.query(BASE[20:40], 1)
    assert (algorithm.get_results()[:, 0] == np.arange(20)).mean() > 0.9
    assert not algorithm.load_index("samples")
    assert algorithm.track() == "stream"


@pytest.mark.parametrize("path", sorted(HARNESSES.rglob("*.y*ml")), ids=lambda path: path.stem)
def test_configurations_name_what_there_is(path, ann, big):
    yaml = pytest.importorskip("yaml")

    def entries(node):
        if isinstance(node, dict) and "constructor" in node:
            yield node
        elif isinstance(node, dict | list):
            for part in node.values() if isinstance(node, dict) else node:
                yield from entries(part)

    found = list(entries(yaml.safe_load(path.read_text())))
    assert found
    for entry in found:
        if path.suffix == ".yml":
            groups = [group["args"] for group in entry["run_groups"].values()]
            made = [ann("euclidean", recipe) for recipes, *_ in groups for recipe in recipes]
        else:
            groups = [json.loads(group["args"]) for group in entry["run-groups"].values()]
            made = [getattr(big, entry["constructor"])("euclidean", params) for group in groups for params in group]
        assert made


def test_bitbudget_methods(monkeypatch):
    methods, indexes = {}, {}

    def register(into):
        return lambda name, **about: lambda function: into.setdefault(name, function)

    stand_in(monkeypatch, "bitbudget.cli", main=None)
    stand_in(monkeypatch, "bitbudget.indexes", index=register(indexes))
    stand_in(monkeypatch, "bitbudget.methods", method=register(methods))
    runpy.run_path(str(HARNESSES / "bitbudget_annvq.py"))
    unit = BASE / np.linalg.norm(BASE, axis=1, keepdims=True)
    scores, size = methods["annvq-pvq-32x"](unit, unit[:50])
    assert size == 2
    assert scores.shape == (50, 3000)
    true = (unit[:50] @ unit.T).argsort(1)[:, -10:]
    assert recall(scores.argsort(1)[:, -10:], true) > 0.1
    ids, size, qps = indexes["annvq-ivf-int8"](unit, unit[:50], 10)
    assert (ids[:, 0] == np.arange(50)).mean() > 0.9
    assert size > 16
    assert qps > 0


def test_corect_compression(monkeypatch):
    class Registry:
        _compression_methods: dict = {}  # noqa: RUF012

        @classmethod
        def add_compressions(cls):
            cls._compression_methods["32_full"] = None

    stand_in(monkeypatch, "corect.compression_registry", CompressionRegistry=Registry)
    stand_in(monkeypatch, "corect.quantization.AbstractCompression", AbstractCompression=object)
    module = runpy.run_path(str(HARNESSES / "corect_annvq.py"))
    module["register"]()
    Registry.add_compressions()
    assert {"32_full", "128_annvq_product", "1024_annvq_principal-product"} <= set(Registry._compression_methods)
    compression = module["AnnvqCompression"]("product", 32)
    x = torch.from_numpy(BASE)
    out = compression.compress(x)
    assert out.shape == x.shape
    assert float((out - x).square().mean()) < 0.5 * float(x.var())
    first = compression.coder
    compression.compress(x[:10])
    assert compression.coder is first  # queries are coded as documents were
    compression.compute_threshold(x[:1000])
    assert compression.coder is not first
