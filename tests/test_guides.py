"""What README and guides say in Python runs as it stands, given the vectors that it speaks of.

The blocks of a guide are run one after another, as a reader would, in one namespace and an empty folder. A block after
`<!-- not run: … -->` is left out, for the reason that stands there.
"""

import re
from functools import partial
from importlib import import_module
from pathlib import Path

import faiss
import numpy as np
import pytest

import annvq
from annvq.training import KMeans, Recipe

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n\n)?^```python\n(.*?)^```", re.S | re.M)
NOT_RUN = {"datasets.md": 1, "scale.md": 2}
ELSEWHERE = {"adapters.md"}  # each block needs a library of its own: tests/adapters/test_guide.py
GUIDES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}


def blocks(guide):
    """Whether each Python block of a guide is run, and its code."""
    return [(not left_out, code) for left_out, code in BLOCK.findall(GUIDES[guide].read_text(encoding="utf-8"))]


def installed(name):
    try:
        return import_module(name)
    except ImportError:
        return None


def some(d, n=600):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + 20, d)).astype(np.float32)
    return {"learn": x[:n], "base": x[:n], "queries": x[n:]}


def real_collections():
    ids = {"my_ids": np.arange(2100) * 2, "their_ids": [4, 7], "gone_ids": [6], "allowed_ids": np.arange(100)}
    empty = annvq.FlatIndex(annvq.ProductVQ(128, 4))
    return some(128, 2100) | ids | {"changed": some(128)["queries"][:2], "empty_index": empty}


def hugging_face():
    hf = installed("datasets")
    if hf is None or not hasattr(hf, "load_from_disk"):  # the checkout has a folder of that name
        return None
    x = some(96)
    hf.Dataset.from_dict({"text": [str(i) for i in range(600)], "embedding": x["base"]}).save_to_disk("passages")
    return {"queries": x["queries"]}


def files():
    pq, pa = installed("pyarrow.parquet"), installed("pyarrow")
    if pa is None:
        return None
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 8)).astype(np.float32)
    np.save("embeddings.npy", x)
    Path("shards").mkdir()
    table = pa.table({"text": list(x), "picture": list(x)})
    pq.write_table(table, "table.parquet")
    for number in range(2):
        pq.write_table(table.select(["text"]), f"shards/{number:05}-of-00016.parquet")
    return {"datasets": annvq.datasets}


def faiss_index():
    x = some(32)
    theirs = faiss.index_factory(32, "OPQ4,IVF8,PQ4x4")
    theirs.train(x["learn"])
    theirs.add(x["base"])
    faiss.write_index(theirs, "production.faiss")
    return {"queries": x["queries"]}


def served():
    x = some(16)
    index = annvq.FlatIndex(annvq.ProductVQ(16, 4, nbits=4)).fit(x["learn"]).add(x["base"])
    index.save("vectors.annvq")
    return {"queries": x["queries"][:1], "more": x["base"][:5]}


def saved_vectors():
    np.save("base.npy", some(128)["base"])
    return some(128)


def coded():
    x = some(16)["base"]
    return {"quantizer": annvq.ProductVQ(16, 4, nbits=4).fit(x), "x": x}


GIVEN = {
    ("README.md", 1): real_collections,
    ("choose.md", 0): lambda: {"x": some(16, 3000)["base"]},
    ("conditional.md", 0): lambda: some(128),
    ("datasets.md", 1): files,
    ("datasets.md", 2): hugging_face,
    ("datasets.md", 3): lambda: some(384),
    ("embeddings.md", 0): lambda: some(384),
    ("faiss.md", 0): faiss_index,
    ("faiss.md", 1): lambda: some(8) | {"codebooks": np.random.default_rng(1).normal(size=(3, 16, 8)).astype("f4")},
    ("faiss.md", 2): lambda: {"x": some(16, 300)["base"]},
    ("index.md", 0): lambda: {"sample": some(384)["learn"], "vectors": some(384)["base"], **some(384)},
    ("indexes.md", 0): lambda: some(128),
    ("indexes.md", 1): lambda: some(1536),
    ("indexes.md", 3): lambda: {"radius": 1500.0, "i": 3},
    ("indexes.md", 4): lambda: (
        some(128, 2100) | {"keys": [f"doc-{i}" for i in range(2100)], "vectors": some(128)["base"][:2]}
    ),
    ("indexes.md", 5): saved_vectors,
    ("indexes.md", 7): coded,
    ("serving.md", 0): served,
}


def of_start(names, said):
    assert names["distances"].shape == names["ids"].shape == (10, 5)
    assert names["index"].bits_per_vector == 48
    assert 0.3 < names["recall"] < 1
    assert "in 6 bytes a vector" in said


def of_readme(names, said):
    assert names["distances"].shape == (10, 5)
    assert (names["distances"].dtype, names["ids"].dtype) == ("float32", "int64")
    assert said == "26\n"
    assert (names["flat"].bits_per_vector, names["text"].bits_per_vector) == (64, 8 * 48)
    assert (names["index"].bits_per_vector, len(names["index"])) == (8 * 8, 2100)  # one id new, one gone


def of_indexes(names, said):
    lims, distances = names["lims"], names["distances"]
    assert lims.shape == (21,)
    x, q = names["x"], names["quantizer"]
    np.testing.assert_array_equal(names["codes"], q.encode(x))
    luts, bias = q.tables(x[:3], "ip")
    np.testing.assert_allclose(names["score"](luts, bias, q.encode(x)), -x[:3] @ q.decode(q.encode(x)).T, atol=1e-4)
    books = q.books()
    np.testing.assert_allclose(names["products"](books.split(), books.starts, x[:3]), luts, atol=1e-4)
    assert distances.shape == (20, 10)


def of_choose(names, said):
    assert names["choice"].bits == 64
    assert names["choice"].reason in said
    assert annvq.indexes.recipes.load_recipe("choice.toml").quantizer["M"] > 0


CHECKS = {
    "README.md": of_readme,
    "start.md": of_start,
    "pytorch.md": lambda names, said: np.testing.assert_equal(tuple(names["ids"].shape), (3, 5)),
    "indexes.md": of_indexes,
    "choose.md": of_choose,
}
AS_THEY_LEARN = ("start.md", "pytorch.md")  # elsewhere a few rounds of k-means are enough


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if guide not in ELSEWHERE and blocks(guide)])
def test_examples_run(guide, tmp_path, monkeypatch, quick_fits, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(annvq.choosing, "choose", partial(annvq.choosing.choose, seconds=1))
    if guide not in AS_THEY_LEARN:
        quick_fits(Recipe((KMeans(iterations=2),)))
    names = {"__name__": guide}
    for number, (run, code) in enumerate(blocks(guide)):
        given = GIVEN.get((guide, number), dict)() if run else None
        if given is not None:  # all that it needs is there
            names |= given
            exec(compile(code, f"{guide}, block {number}", "exec"), names)
    CHECKS.get(guide, lambda names, said: None)(names, capsys.readouterr().out)


def test_few_blocks_are_left_out():
    left_out = {guide: sum(not run for run, _ in blocks(guide)) for guide in GUIDES}
    assert {guide: number for guide, number in left_out.items() if number} == NOT_RUN
    assert GIVEN.keys() <= {(guide, number) for guide in GUIDES for number in range(len(blocks(guide)))}


def test_python_is_fenced():
    """Code of Python's stands between fences, so that it is among what is run."""
    for guide, path in GUIDES.items():
        indented = re.findall(
            r"^    (?:import |from \w+ import |\w+ = \w+\.|>>> ).*", path.read_text(encoding="utf-8"), re.M
        )
        fenced = "".join(code for _, code in blocks(guide))
        assert [line for line in indented if line.strip() not in fenced] == []
