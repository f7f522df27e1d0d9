"""Recipes, and builds that stop and go on."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import annvq
from annvq.cli import main
from annvq.indexes import FlatIndex, IVFIndex, RerankIndex
from annvq.indexes.building import Build, add_in_chunks, merge
from annvq.indexes.recipes import load_recipe, make_index, recipe_names
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(3),))


@pytest.fixture(autouse=True)
def _short_training(quick_fits):
    quick_fits(QUICK)


def vectors(n, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(30, dim)) * 2
    return (centers[rng.integers(30, size=n)] + rng.normal(size=(n, dim))).astype(np.float32)


def recipe_file(refine=""):
    text = f"""
    [index]
    kind = "ivf"
    nlist = 12
    residual = true
    [quantizer]
    kind = "residual"
    M = 2
    nbits = 4
    {refine}
    """
    Path("mine.toml").write_text(textwrap.dedent(text))
    return "mine.toml"


REFINE = ('[refine]\nvectors = "base"', '[refine]\nvectors = "float16"', '[refine]\nkind = "product"\nM = 4\nnbits = 4')


@pytest.mark.parametrize("refine", ["", *REFINE])
def test_in_chunks_or_at_once_the_index_is_the_same(refine):
    x = vectors(2000)
    np.save("base.npy", x)
    base = annvq.datasets.load_vectors("base.npy")
    recipe = load_recipe(recipe_file(textwrap.indent(refine, "    ")))
    work = Build(make_index(recipe, 16, n=2000, base=base), base, x[:1000], "index", chunk_rows=300)
    built = work.run()
    assert sorted(p.name for p in Path().iterdir()) == ["base.npy", "index", "mine.toml"]
    whole = make_index(recipe, 16, n=2000, base=base).fit(work._learn_split()[0]).add(base)
    for index in (built, annvq.load_index("index"), annvq.load_index("index", mmap=True)):
        settings = {"nprobe": 12} | ({"shortlist": 50} if refine else {})
        for a, b in zip(whole.search(x[:9], 20, **settings), index.search(x[:9], 20, **settings), strict=True):
            np.testing.assert_array_equal(a, b)
    assert 1 <= built.facts()["nprobe"] <= 12
    if refine:
        assert built.shortlist == annvq.load_index("index").shortlist


def test_a_build_goes_on_where_it_stopped(monkeypatch):
    x = vectors(1500)
    recipe = load_recipe(recipe_file())

    def work(base=x, **settings):
        return Build(make_index(recipe, 16, n=len(base)), base, x, "index", chunk_rows=200, **settings)

    expected = work().run().search(x[:5], 10, nprobe=12)
    Path("index").unlink()
    added = []
    plain = IVFIndex.add

    def stopping(self, rows, ids=None):
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(int(ids[0]))
        return plain(self, rows, ids)

    monkeypatch.setattr(IVFIndex, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        work().run()
    assert added == [0, 200, 400]
    assert not Path("index").exists()
    monkeypatch.setattr(
        IVFIndex, "add", lambda self, rows, ids=None: added.append(int(ids[0])) or plain(self, rows, ids)
    )
    monkeypatch.setattr(IVFIndex, "fit", lambda *a, **k: pytest.fail("trained again"))
    with pytest.raises(ValueError, match=r"index\.building holds another build"):
        work(vectors(1500, seed=1)).run()
    with pytest.raises(ValueError, match="another build"):
        work(seed=5).run()
    for a, b in zip(expected, work().run().search(x[:5], 10, nprobe=12), strict=True):
        np.testing.assert_array_equal(a, b)
    assert added == list(range(0, 1500, 200))


def test_killed_builds_end_the_same():
    np.save("base.npy", vectors(4000))
    recipe_file()
    code = (
        "import annvq, sys; from annvq.cli import main; from annvq.training import KMeans, Recipe;"
        "annvq.ResidualVQ.default_recipe = lambda q: Recipe((KMeans(3),));"
        "import annvq.indexes.building as b; b.CHUNK_BYTES = 1 << 12; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "build", "mine.toml", "base.npy"]
    subprocess.run([*command, "whole", "--threads", "1"], check=True, capture_output=True)
    for wait in (2.0, 2.5, 3.0):
        process = subprocess.Popen([*command, "killed", "--threads", "1"], stderr=subprocess.DEVNULL)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if Path("killed").exists():
            break
    subprocess.run([*command, "killed", "--threads", "1"], check=True, capture_output=True)
    assert Path("killed").read_bytes() == Path("whole").read_bytes()
    assert not Path("killed.building").exists()


@pytest.mark.parametrize("kind", ["flat", "ivf", "raw", "code"])
def test_indexes_trained_alike_merge(kind):
    x = vectors(900)

    def make():
        q = annvq.make("residual", dim=16, M=2, nbits=4)
        if kind == "flat":
            return FlatIndex(q).fit(x)
        index = IVFIndex(q, 8)
        if kind == "ivf":
            return index.fit(x)
        refine = "float32" if kind == "raw" else annvq.make("product", dim=16, M=4, nbits=4)
        return RerankIndex(index, refine, shortlist=60).fit(x)

    whole, a, b = make().add(x), make().add(x[:500]), make().add(x[500:], np.arange(500, 900))
    settings = {} if kind == "flat" else {"nprobe": 8}
    expected = whole.search(x[:7], 12, **settings)
    for left, right in zip(merge(a, b).search(x[:7], 12, **settings), expected, strict=True):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(ValueError, match="ids must be new"):
        merge(a, b)
    assert len(a) == 900
    with pytest.raises(TypeError, match="other must be a"):
        merge(a, FlatIndex(b.quantizer) if kind != "flat" else IVFIndex(b.quantizer))
    with pytest.raises(ValueError, match="codebooks"):
        merge(a, make_other(type(a), x))


def make_other(cls, x):
    q = annvq.make("residual", dim=16, M=2, nbits=4)
    index = FlatIndex(q) if cls is FlatIndex else IVFIndex(q, 8)
    return (RerankIndex(index) if cls is RerankIndex else index).fit(x[:500], seed=3)


def test_vectors_from_an_iterator(capsys):
    x = vectors(700)
    q = annvq.make("product", dim=16, M=2, nbits=4).fit(x, recipe=QUICK)
    whole = FlatIndex(q).add(x)
    parts = add_in_chunks(FlatIndex(q), (x[i : i + 90] for i in range(0, 700, 90)))
    mapped = add_in_chunks(FlatIndex(q), x, progress=True)
    assert "add" in capsys.readouterr().err
    for index in (parts, mapped):
        for a, b in zip(whole.search(x[:5], 9), index.search(x[:5], 9), strict=True):
            np.testing.assert_array_equal(a, b)


def test_shipped_recipes_make_indexes():
    names = recipe_names()
    assert {"flat-pvq-8x8", "ivf-pvq-8", "ivf-rvq-7x8", "ivf-rerank"} <= set(names)
    base = np.zeros((10, 128), np.float32)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.title
        for metric in ("l2", "ip"):
            index = make_index(recipe, 128, n=10**6, metric=metric, base=base)
            assert index.metric == metric
            if recipe.index["kind"] == "ivf":
                assert index.facts()["nlist"] == 4000
    assert make_index(load_recipe("ivf-rvq-7x8"), 128, n=1000).bits_per_vector == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[index\n", "not readable TOML"),
        ('[index]\nkind = "hnsw"', "kind must be one of flat, ivf"),
        ('[index]\nkind = "flat"\nnlist = 3', "unknown key 'nlist'"),
        ('[index]\nkind = "ivf"\nnlist = "many"', "nlist must be int"),
        ('[index]\nkind = "ivf"\nnlist = true', "nlist must be int"),
        ('[index]\nkind = "flat"', "must have kind and M"),
        ('[index]\nkind = "flat"\n[quantizer]\nkind = "product"\nM = 2\n[refine]\nshortlist = 3', "either vectors or"),
        ('[index]\nkind = "flat"\n[quantizer]\nkind = "product"\nM = 2\n[refine]\nvectors = 3', "vectors must be str"),
        ("colour = 3", "got colour"),
    ],
)
def test_bad_recipes_are_refused(text, message):
    Path("bad.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe("bad.toml")


def test_unknown_recipes_and_quantizers():
    with pytest.raises(ValueError, match="Did you mean 'ivf-rvq-7x8'"):
        load_recipe("ivf-rvq-7x9")
    with pytest.raises(ValueError, match="no recipe file"):
        load_recipe("absent.toml")
    with pytest.raises(ValueError, match="give base"):
        make_index(load_recipe("ivf-rerank"), 128, n=100)


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


def test_command_line(run):
    x = vectors(1200)
    np.save("base.npy", x)
    recipe_file('    [refine]\n    vectors = "base"')
    code, out, err = run("build", "mine.toml", "base.npy", "index", "--nlist", 9)
    assert code == 0, err
    assert "1,200 vectors" in out
    facts = json.loads(run("info", "index", "--json")[1])
    assert (facts["kind"], facts["scanned"], facts["nlist"]) == ("rerank", "ivf", 9)
    assert facts["scan_bits_per_vector"] == 16
    assert facts["bits_per_vector"] == 16 + 512
    assert facts["shortlist"] >= 10
    assert "refined_by" in run("info", "index")[1]
    code, _, err = run("search", "index", "base.npy", "-k", 3, "--out", "f.npz", "--nprobe", 9, "--shortlist", 50)
    assert code == 0, err
    with np.load("f.npz") as found:
        assert (found["ids"][:, 0] == np.arange(1200)).mean() > 0.9
    np.save("allow.npy", np.arange(5))
    run("search", "index", "base.npy", "-k", 3, "--out", "f.npz", "--allow", "allow.npy")
    with np.load("f.npz") as found:
        assert found["ids"].max() == 4
    assert run("build", "product", "base.npy", "flat", "--bits", 8, "--nbits", 4)[0] == 0
    code, _, err = run("search", "flat", "base.npy", "--nprobe", 3)
    assert code == 2
    assert "--nprobe means nothing to an index of kind 'flat'" in err
    for arguments, message in (
        (("build", "ivf-rvq-7x9", "base.npy", "o"), "RECIPE must be"),
        (("build", "product", "base.npy"), "give the index's file once"),
        (("build", "product", "base.npy", "a", "--out", "b"), "give the index's file once"),
        (("build", "product", "base.npy", "a", "--nlist", "5"), "--nlist is for recipes with lists"),
        (("search", "index", "base.npy", "--nprobe", "100"), "nprobe must be"),
    ):
        code, _, err = run(*arguments)
        assert code != 0
        assert message in err
