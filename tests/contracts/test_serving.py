"""A process that loads an index, searches, adds and removes takes NumPy alone, and answers as one that has all."""

import json
import subprocess
import sys

import numpy as np
import pytest

import annvq
from annvq.quantizers.coder import Coder

ALLOWED = {"annvq", "numpy", "cython_runtime"}  # the last one is of NumPy's own making
CHILD = """
import json, sys

BLOCKED = {blocked!r}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
before = set(sys.modules)
import numpy as np
import annvq

def error(call):
    try:
        call()
    except (Exception, SystemExit) as e:
        return [type(e).__name__, str(e)]

data, found, errors = np.load("data.npz"), {{}}, {{}}
for name in json.load(open("names.json")):
    for mmap in (False, True):
        index = annvq.load_index(name + ".annvq", mmap=mmap)
        out = [*index.search(data["queries"], 5)]
        index.add(data["more"])
        index.remove(data["gone"])
        out += [*index.search(data["queries"], 5, filter=np.arange(0, 400, 3))]
        index.save(name + ".saved")
        out += [*annvq.load_index(name + ".saved").search(data["queries"], 5), index.reconstruct(data["kept"])]
        found |= {{f"{{name}} {{mmap}} {{i}}": a for i, a in enumerate(out)}}
    coder = index.quantizer
    assert coder is index.coder
    found[name + " codes"] = coder.encode(data["more"])
    errors[name] = [error(lambda: coder.fit(data["more"])), error(lambda: coder(data["more"]))]
annvq.set_num_threads(1)
errors["names"] = [error(lambda: getattr(annvq, n)) for n in ("ProductVQ", "make", "from_codebooks", "Transformed")]
errors["training"] = [error(lambda: annvq.training.NSVQ)]
import annvq.command
errors["data"] = [error(lambda: annvq.datasets.load("patches"))]
errors["exact"] = [
    error(lambda: annvq.datasets.exact_neighbors(data["more"], data["more"], 3)),
    error(lambda: annvq.datasets.gaussian(4, 100, 100, 10)),
]
errors["sklearn"] = [error(lambda: __import__("annvq.sklearn"))]
errors["command"] = [error(annvq.command.main)]
errors["progress"] = [error(lambda: coder.encode(data["more"], progress=True))]
errors["unfitted"] = [error(lambda: annvq.IVFIndex(coder, nlist=4).fit(data["more"]))]
np.savez("found.npz", **found)
loaded = {{m.partition(".")[0] for m in set(sys.modules) - before}} - set(sys.stdlib_module_names)
json.dump([sorted(m for m in loaded if not m.startswith("_")), errors], open("said.json", "w"))
"""
BLOCKED = [
    "torch", "faiss", "scipy", "sklearn", "h5py", "tqdm", "threadpoolctl", "matplotlib", "requests", "safetensors",
    "PIL", "click", "rich", "typing_extensions", "tomli",
]  # fmt: skip


def indexes(kind, quantizer, x):
    """Every kind of index that annvq has over this quantizer, trained on x, by a name."""
    twin = annvq.make("residual", dim=12, M=2, nbits=4)
    made = {
        "flat": annvq.FlatIndex(quantizer),
        "ip": annvq.FlatIndex(quantizer, "ip"),
        "ivf": annvq.IVFIndex(quantizer, nlist=7),
        "ivf-residual": annvq.IVFIndex(quantizer, nlist=5, residual=True),
        "ivf-cosine": annvq.IVFIndex(quantizer, nlist=5, metric="cosine"),
        "rerank": annvq.RerankIndex(annvq.FlatIndex(quantizer), "float16"),
        "rerank-code": annvq.RerankIndex(annvq.IVFIndex(quantizer, nlist=4), twin, refines="rest"),
    }
    if kind == "residual":
        whole = annvq.make("residual", dim=12, M=5, nbits=4)
        head = annvq.make("residual", dim=12, M=3, nbits=4)
        made["rerank-stages"] = annvq.RerankIndex(annvq.FlatIndex(head), whole, refines="stages")
    return {f"{kind}-{name}": index.fit(x) for name, index in made.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory, quick):
    """What a process without any library but NumPy answered, what it loaded and said, and the indexes it was given."""
    folder = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(900, 12)) @ rng.normal(size=(12, 12))).astype(np.float32)
    data = {"queries": x[:20] + 0.1, "more": x[400:430], "gone": np.arange(10, 60), "kept": np.arange(100, 120)}
    kinds = {
        "product": {"M": 3},
        "residual": {"M": 3},
        "additive": {"M": 3, "rounds": 4, "norm_free": True},
        "rotated-product": {"M": 3},
        "transformed": {"M": 3, "transform": {"kind": "linear", "dim": 12, "shift": True}, "quantizer": "product"},
    }
    made = {}
    for kind, config in kinds.items():
        q = annvq.make(kind, dim=12, nbits=4, **config).fit(x, recipe=quick(kind))
        if kind == "transformed":  # a map that is more than the identity
            q.transform.set_matrix(np.eye(12) + 0.2 * rng.normal(size=(12, 12)), np.full(12, 0.5))
            q.fit_norms(x)
        made |= indexes(kind, q, x)
    for name, index in made.items():
        index.add(x[:400])
        index.save(folder / f"{name}.annvq")
    np.savez(folder / "data.npz", **data)
    (folder / "names.json").write_text(json.dumps(list(made)))
    subprocess.run([sys.executable, "-c", CHILD.format(blocked=BLOCKED)], cwd=folder, check=True)
    loaded, errors = json.loads((folder / "said.json").read_text())
    return made, data, np.load(folder / "found.npz"), loaded, errors


def test_only_numpy_is_loaded(served):
    loaded = served[3]
    assert set(loaded) <= ALLOWED | {m for m in loaded if "editable" in m}


def test_answers_are_those_of_the_quantizer(served):
    made, data, found, _, _ = served
    for name, index in made.items():
        expected = [*index.search(data["queries"], 5)]
        index.add(data["more"])
        index.remove(data["gone"])
        expected += [*index.search(data["queries"], 5, filter=np.arange(0, 400, 3))]
        expected += [*index.search(data["queries"], 5), index.reconstruct(data["kept"])]
        for mmap in (False, True):
            for i, array in enumerate(expected):
                np.testing.assert_array_equal(found[f"{name} {mmap} {i}"], array, err_msg=f"{name} {mmap} {i}")
        np.testing.assert_array_equal(found[f"{name} codes"], index.quantizer.encode(data["more"]), err_msg=name)


def test_what_is_missing_is_named_in_one_line(served):
    made, errors = served[0], served[4]
    for name in made:
        for kind, message in errors[name]:
            assert kind == "ImportError"
            assert message.endswith("needs torch, which is not installed: pip install torch")
    assert [e[0] for e in errors["names"]] == ["ImportError"] * 4
    assert all("torch, which is not installed: pip install torch" in e[1] for e in errors["names"] + errors["training"])
    assert errors["progress"] == [["ImportError", "progress=True needs tqdm, which is not installed: pip install tqdm"]]
    assert errors["unfitted"] == [
        ["ImportError", "IVFIndex.fit needs faiss, which is not installed: pip install faiss-cpu"]
    ]
    assert errors["data"][0][1] == "annvq.datasets.load needs sklearn, which is not installed: pip install scikit-learn"
    exact = "annvq.datasets.exact_neighbors needs faiss, which is not installed: pip install faiss-cpu"
    assert errors["exact"] == [["ImportError", exact]] * 2
    assert errors["sklearn"][0][1].endswith("needs torch, which is not installed: pip install torch")
    assert errors["command"] == [["SystemExit", "1"]]
    assert not any("\n" in message for said in errors.values() for _, message in said)


def test_many_lists_are_compared_one_by_one_without_a_library_for_graphs(monkeypatch):
    from annvq.indexes.ivf import coarse

    monkeypatch.setattr(coarse, "EXACT_LISTS", 16)
    monkeypatch.setattr(coarse, "_graphs_can_be_built", lambda: False)
    rng = np.random.default_rng(0)
    centroids, x = rng.normal(size=(200, 4)).astype(np.float32), rng.normal(size=(30, 4)).astype(np.float32)
    found = coarse.Coarse(centroids, "l2")
    distances = np.square(x[:, None].astype(np.float64) - centroids).sum(2)
    np.testing.assert_array_equal(found.assign(x), distances.argmin(1))
    np.testing.assert_array_equal(found.probe(x, 3)[0], distances.argsort(1)[:, :3])


def test_the_quantizer_of_a_loaded_index_is_what_it_was(kind, small, tmp_path):
    q, x = small(kind)
    index = annvq.FlatIndex(q).add(x)
    index.save(tmp_path / "index")
    loaded = annvq.load_index(tmp_path / "index")
    before = loaded.search(x[:5], 3)
    assert isinstance(loaded.coder, Coder)
    whole = loaded.quantizer
    assert type(whole) is type(q)
    assert not whole.training
    assert loaded.quantizer is whole is loaded.coder is loaded.coding.quantizer
    for one, other in zip(before, loaded.search(x[:5], 3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.fingerprint() == index.fingerprint()
    assert loaded.facts() == index.facts()
