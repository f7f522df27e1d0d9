"""The command line: what it prints, writes and returns."""

import json
import os
import re
import stat
import subprocess
import sys

import numpy as np
import pytest

from annvq import FlatIndex, KeyedIndex, ProductVQ, __version__, load_index
from annvq.choosing.grid import NORM_FREE
from annvq.cli import main
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe


@pytest.fixture(autouse=True)
def _short_training(quick_fits):
    """A few rounds of k-means are enough here: what is learned is not what is tested."""
    quick_fits(Recipe((KMeans(iterations=2),)))


@pytest.fixture
def annvq(capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1200, 8)).astype(np.float32))
    return path


def test_help_and_version(annvq):
    code, out, _ = annvq("--help")
    assert code == 0
    for name in ("bench", "choose", "datasets", "train", "build", "search", "info", "complexity", "config", "convert"):
        assert f"\n  {name} " in out
        assert annvq(name, "--help")[0] == 0
    assert annvq("--version")[1] == f"annvq, version {__version__}\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom annvq.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'faiss', 'matplotlib', 'h5py', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_train_build_search_info(annvq, vectors, tmp_path):
    q, index, found = tmp_path / "q.annvq", tmp_path / "index.annvq", tmp_path / "found.npz"
    code, out, err = annvq("train", vectors, "--kind", "product", "--bits", 16, "--nbits", 4, "--out", q)
    assert code == 0, err
    assert "16 bits" in out
    code, out, err = annvq("info", q, "--json")
    assert code == 0, err
    assert json.loads(out)["holds"] == "quantizer"
    code, out, err = annvq("build", q, vectors, "--out", index)
    assert code == 0, err
    assert "1,200 vectors, 16 bits each" in out
    facts = json.loads(annvq("info", index, "--json")[1])
    assert (facts["holds"], facts["vectors"], facts["bits_per_vector"]) == ("index", 1200, 16)
    code, out, err = annvq("search", index, vectors, "-k", 5, "--out", found)
    assert code == 0, err
    with np.load(found) as results:
        assert results["ids"].shape == results["distances"].shape == (1200, 5)
        ids = results["ids"]
    ivecs = tmp_path / "found.ivecs"
    annvq("search", index, vectors, "-k", 5, "--out", ivecs)
    read = np.fromfile(ivecs, "<i4").reshape(1200, 6)
    np.testing.assert_array_equal(read, np.hstack([np.full((1200, 1), 5), ids]))
    code, out, _ = annvq("search", index, vectors, "-k", 3)
    assert code == 0
    assert len(out.splitlines()) == 10
    assert out.startswith("query 0: ")


def test_shards_and_columns(annvq, vectors, tmp_path):
    """Every command takes what a file of all vectors would be, and gives what it gives."""
    shards = tmp_path / "shards"
    shards.mkdir()
    x = np.load(vectors)
    for number, rows in enumerate(np.split(x, [500, 501])):
        np.savez(shards / f"{number}.npz", ids=np.arange(len(rows)), x=rows, y=rows + 1)
    kind = ("product", "--bits", 16, "--nbits", 4)
    for data, out in ((vectors, "whole"), (f"{shards}:x", "parts"), (f"{shards}/*.npz:x", "matched")):
        code, _, err = annvq("build", kind[0], data, tmp_path / out, *kind[1:])
        assert code == 0, err
        code, _, err = annvq("search", tmp_path / out, data, "-k", 3, "--out", tmp_path / f"{out}.npz")
        assert code == 0, err
        assert annvq("train", data, "--kind", *kind, "--dims", 4, "--out", tmp_path / f"{out}.q")[0] == 0
        for suffix in ("", ".npz", ".q"):
            assert (tmp_path / f"{out}{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    code, said, err = annvq("choose", f"{shards}:x", "--bits", 16, "--seconds", 1, "--queries", 20)
    assert code == 0, err
    assert "Recommended" in said
    code, _, err = annvq("build", "product", shards, tmp_path / "x")
    assert code == 1
    assert "expected one array of vectors, or the name of one; got 'x', 'y' of 'ids', 'x', 'y'" in err
    code, _, err = annvq("build", "ivf-rerank", f"{shards}:x", tmp_path / "x")
    assert code == 1
    assert "got Shards; annvq.datasets.convert writes a file that can be mapped" in err


def test_hdf5_of_vectors_alone(annvq, vectors, tmp_path):
    """A file without queries is vectors to every command, and what it says of its metric holds."""
    h5py = pytest.importorskip("h5py")
    path, kind = tmp_path / "mine.hdf5", ("--bits", 16, "--nbits", 4)
    with h5py.File(path, "w") as file:
        file["train"] = np.load(vectors)
        file.attrs["distance"] = "angular"
    for data, out, more in ((path, "a", ()), (f"{path}:train", "b", ()), (vectors, "c", ("--metric", "cosine"))):
        code, _, err = annvq("build", "product", data, tmp_path / out, *kind, *more)
        assert code == 0, err
        code, _, err = annvq("search", tmp_path / out, data, "-k", 3, "--out", tmp_path / f"{out}.npz")
        assert code == 0, err
        assert annvq("train", data, "--kind", "product", *kind, "--out", tmp_path / f"{out}.q")[0] == 0
        assert annvq("convert", data, tmp_path / f"{out}.npy")[0] == 0
        for suffix in ("", ".npz", ".q", ".npy"):
            assert (tmp_path / f"{out}{suffix}").read_bytes() == (tmp_path / f"a{suffix}").read_bytes()
    out = tmp_path / "c.toml"
    code, _, err = annvq("choose", path, "--bits", 16, "--seconds", 1, "--queries", 20, "-o", out)
    assert code == 0, err
    assert 'metric = "cosine"' in out.read_text()


def test_build_by_kind(annvq, vectors, tmp_path):
    out = tmp_path / "index.annvq"
    code, said, err = annvq("build", "product", vectors, "--bits", 16, "--nbits", 4, "--metric", "cosine", "--out", out)
    assert code == 0, err
    assert "16 bits each" in said


def test_bench(annvq, vectors, tmp_path):
    suite, out = tmp_path / "mine.toml", tmp_path / "out"
    suite.write_text('bits = [16]\n[[methods]]\nuse = "faiss.pq"\noptions = { nbits = 4 }\n')
    code, said, err = annvq("bench", suite, "--dataset", vectors, "--out", out, "--threads", 1)
    assert code == 0, err
    assert "faiss.pq" in said
    assert (out / "report.png").exists()
    assert len((out / "results.jsonl").read_text().splitlines()) == 1
    assert "there already" in annvq("bench", suite, "--dataset", vectors, "--out", out, "--threads", 1)[1]
    suite.write_text('bits = [16]\n[[methods]]\nuse = "faiss.pq"\noptions = { nbits = 5 }\n')
    code, said, err = annvq("bench", suite, "--dataset", vectors, "--out", out)
    assert code == 1
    assert "no row could be measured" in err


def test_complexity(annvq):
    code, out, _ = annvq("complexity", "--dim", 64, "--bits", 64, "--json")
    assert code == 0
    product, residual, additive = json.loads(out)
    assert product["encode_wmops"] < residual["encode_wmops"] < additive["encode_wmops"]
    assert product["bits"] == residual["bits"] == additive["bits"] == 64
    assert "product" in annvq("complexity")[1]


def test_datasets(annvq):
    assert "patches" in annvq("datasets", "list")[1]
    code, out, _ = annvq("datasets", "info", "patches")
    assert code == 0
    assert "100000" in out
    assert "built in" in annvq("datasets", "get", "patches")[1]


def test_config(annvq):
    assert "simd" in annvq("config")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bunch"], 2, "No such command 'bunch'"),
        (["bench", "--threads", "0"], 2, "--threads"),
        (["bench", "quickstar"], 1, "Did you mean 'quickstart'?"),
        (["bench", "toy", "--dataset", "patches"], 1, "makes its own data"),
        (["bench", "toy", "--published", "."], 1, "unknown key 'published'"),
        (["datasets", "info", "sift2m"], 1, "sift2m"),
        (["complexity", "--nbits", "40"], 2, "--nbits must be between 1 and 16"),
        (["complexity", "--convention", "paper"], 2, "--convention"),
        (["info", "absent.annvq"], 2, "absent.annvq"),
        (["complexity", "--dim", "0"], 1, "dim must be at least 1"),
        (["complexity", "--bits", "0", "--json"], 1, "nothing is left for the code"),
        (["train", "absent.npy", "--out", "q"], 1, "absent.npy"),
        (["train", "absent.npy", "--out", "absent/q"], 1, "there is no folder"),
    ],
)
def test_errors_are_one_line_without_a_traceback(annvq, arguments, code, message):
    got, _, err = annvq(*arguments)
    assert got == code
    assert message in err
    assert "Traceback" not in err
    if code == 1:
        assert err.startswith("annvq: error: ")
        assert len(err.strip().splitlines()) == 1


BAD_FILES = {
    "empty.npy": b"",
    "empty.fvecs": b"",
    "empty.hdf5": b"",
    "empty.toml": b"",
    "text.npy": b"no array",
    "zip.npy": b"PK\3\4" + bytes(99),
    "negative.npy": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 8), }".ljust(117)
    + b"\n",
    "header.npy": b"\x93NUMPY\x01\x00v\x00",
    "bytes.fvecs": b"\xff" * 99,
    "bytes.fbin": b"\xff" * 99,
    "bytes.hdf5": bytes(range(256)),
    "bytes.toml": bytes(range(256)),
    "bytes.annvq": bytes(range(256)),
}


@pytest.fixture
def bad_paths(tmp_path, monkeypatch):
    """A folder, as working folder, in which paths are bad in many ways."""
    folder = tmp_path / "bad"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, data in BAD_FILES.items():
        (folder / name).write_bytes(data)
    names = ["folder", "folder.npy", "folder.fvecs", "folder.hdf5", "folder.toml"]
    for name in names:
        (folder / name).mkdir()
    os.mkfifo(folder / "pipe.npy")
    (folder / "circle.npy").symlink_to("circle.npy")
    (folder / "nowhere.npy").symlink_to("absent.npy")
    inside = ["mine.npy/x.npy", "absent/x.npy", "x" * 300 + ".npy", "~/x.npy", "", "absent", "absent.hdf5"]
    return [*BAD_FILES, *names, "pipe.npy", "circle.npy", "nowhere.npy", *inside]


def test_bad_files_are_one_line_without_a_traceback(annvq, vectors, tmp_path, bad_paths):
    x = np.load(vectors)
    FlatIndex(ProductVQ(x.shape[1], 2, 4)).fit(x).add(x).save(tmp_path / "index")
    commands = [
        ("choose", None, "--seconds", "1"),
        ("train", None, "--out", "o"),
        ("build", "product", None, "o"),
        ("build", None, vectors, "o"),
        ("search", tmp_path / "index", None),
        ("search", None, vectors),
        ("search", tmp_path / "index", vectors, "--allow", None),
        ("info", None),
        ("bench", None),
        ("bench", "--quick", "--out", "results", "--dataset", None),
    ]
    for command in commands:
        for path in bad_paths:
            code, _, err = annvq(*(path if part is None else part for part in command))
            assert code in (1, 2), (command, path)
            assert "Traceback" not in err
            if code == 1:
                lines = [line for line in err.strip().splitlines() if "error" in line]
                assert len(lines) == 1, (command, path, err)
                assert lines[0].startswith("annvq: error: ")


def test_where_nothing_can_be_written_nothing_is_learned(annvq, vectors, tmp_path, bad_paths, monkeypatch):
    monkeypatch.setattr(ProductVQ, "fit", lambda *_, **__: pytest.fail("it was trained"))
    for out in ("pipe.npy", "absent/o", "circle.npy", "mine.npy/o"):
        for command in (("train", vectors, "--kind", "product", "--out"), ("build", "product", vectors)):
            code, _, err = annvq(*command, out)
            assert code == 1
            assert err.startswith("annvq: error: ")
            assert out in err
    assert stat.S_ISFIFO(os.stat("pipe.npy").st_mode)


def test_a_file_that_is_neither_quantizer_nor_index(annvq, vectors):
    code, _, err = annvq("info", vectors)
    assert code == 1
    assert "mine.npy" in err


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("ANNVQ_DEBUG", "1")
    with pytest.raises(ValueError, match="quickstar"):
        main(["bench", "quickstar"])


def test_search_refuses_an_unknown_suffix(annvq, vectors):
    code, _, err = annvq("search", vectors, vectors, "--out", "found.txt")
    assert code == 2
    assert "must end in .npz or .ivecs" in err


def test_search_refuses_a_filter_that_is_no_array_of_numbers(annvq, vectors, tmp_path):
    x = np.load(vectors)
    FlatIndex(ProductVQ(x.shape[1], 2, 4)).fit(x).add(x).save(tmp_path / "i")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "archive.npz", ids=np.arange(3))
    for name, message in (
        ("empty.npy", "truncated"),
        ("text.npy", "not a readable"),
        ("archive.npz", "an .npz archive"),
    ):
        code, _, err = annvq("search", tmp_path / "i", vectors, "--allow", tmp_path / name)
        assert code == 1
        assert name in err
        assert message in err
    np.save(tmp_path / "ids.npy", np.array([5, 7]))
    code, out, err = annvq("search", tmp_path / "i", vectors, "--allow", tmp_path / "ids.npy", "-k", 2)
    assert code == 0, err
    assert {part.split(":")[0] for part in out.split("query 1:")[1].split("\n")[0].split()} == {"5", "7"}


def test_search_by_keys(annvq, vectors, tmp_path):
    x = np.load(vectors)
    index = FlatIndex(ProductVQ(x.shape[1], 2, 4)).fit(x)
    keyed = KeyedIndex(index).add(x[:50], [f"é{i}" for i in range(50)])
    keyed.save(tmp_path / "i")
    np.save(tmp_path / "allow.npy", np.array(["é3", "é7"]))
    code, out, err = annvq("search", tmp_path / "i", vectors, "--allow", tmp_path / "allow.npy", "-k", 2)
    assert code == 0, err
    assert {part.split(":")[0] for part in out.splitlines()[0].removeprefix("query 0: ").split()} == {"é3", "é7"}
    code, _, err = annvq("search", tmp_path / "i", vectors, "-k", 60, "--limit", 3, "--out", tmp_path / "found.npz")
    assert code == 0, err
    with np.load(tmp_path / "found.npz") as found:
        keys = keyed.search(x[:3], 60)[1]
        np.testing.assert_array_equal(found["keys"], np.where(np.equal(keys, None), "", keys))
    code, _, err = annvq("search", tmp_path / "i", vectors, "--out", tmp_path / "found.ivecs")
    assert code == 1
    assert "write .npz" in err
    code, _, err = annvq("search", tmp_path / "i", vectors, "--nprobe", 3)
    assert code == 2
    assert "--nprobe means nothing" in err
    facts = json.loads(annvq("info", tmp_path / "i", "--json")[1])
    assert (facts["kind"], facts["keys"], facts["vectors"]) == ("flat", "str", 50)


def test_choose(annvq, vectors, monkeypatch):
    monkeypatch.setattr("annvq.choosing.grid.GRID", (("product", 4, "auto"),))
    code, out, err = annvq("choose", vectors, "--bits", 16, "--threads", 1)
    assert code == 0, err
    assert "Recommended: product 4x4" in out
    code, out, err = annvq("choose", vectors, "--bits", 16, "--threads", 1, "--json")
    assert json.loads(out)["recommended"]["nbits"] == [4, 4, 4, 4]
    code, out, err = annvq("choose", vectors, "--bits", 16, "--threads", 1, "--n", "1e6", "--keep", "kept")
    assert code == 0, err
    assert "At n = 1,000,000 (predicted, from " in out
    code, out, err = annvq("choose", vectors, "--bits", 16, "--threads", 1, "--n", "1e6", "--keep", "kept")
    assert "rows were there already" in err


def test_rows_are_lines_where_there_is_no_terminal(annvq, vectors, monkeypatch, tmp_path):
    monkeypatch.setattr("annvq.choosing.grid.GRID", (("product", 4, "auto"), ("product", 2, "auto")))
    code, _, err = annvq("choose", vectors, "--bits", 16, "--threads", 1, "--seconds", 600)
    assert code == 0, err
    rows = [line for line in err.splitlines() if " of " in line]
    first = re.fullmatch(r"1 of \d+  product \S+ \(\w+\)  recall@1 \S+  recall@10 \S+  10-recall@10 (\S+) .*", rows[0])
    assert 0 < float(first[1]) <= 1
    assert any("product 8x2" in row for row in rows)


def test_choose_by_recall_k_and_time_to_learn(annvq, vectors, monkeypatch, tmp_path):
    monkeypatch.setattr("annvq.choosing.grid.GRID", (("product", 4, "auto"),))
    asked = ("choose", vectors, "--threads", 1, "--recall", 0.05, "--k", 3, "--train-s", 1e-6)
    code, out, err = annvq(*asked, "-o", tmp_path / "c.toml")
    assert code == 0, err
    assert "1 bytes are the fewest of those tried that are enough for 3-recall@3 0.05" in out
    assert "The quickest to learn: none is learned in about 1e-06 s at n." in out
    assert "★×" in out
    text = (tmp_path / "c.toml").read_text()
    assert "--recall 0.05 --train-s 1e-06 --k 3" in text
    assert "3-recall@3" in (tmp_path / "c.html").read_text()
    held = json.loads(annvq(*asked, "--json")[1])
    assert (held["bits"], held["asked"]["k"], held["asked"]["train_s"]) == (8, 3, 1e-6)
    # A budget and a recall: the quickest of that budget.
    held = json.loads(annvq(*asked, "--bits", 16, "--json")[1])
    assert (held["bits"], held["tried"]) == (16, [])


def test_what_is_chosen_is_built(annvq, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr("annvq.choosing.grid.GRID", (("additive", 4, NORM_FREE), ("product", 4, "auto")))
    out = tmp_path / "choice.toml"
    arguments = ["--bytes-per-vector", 2, "--threads", 1, "--metric", "cosine", "--seconds", 20]
    code, printed, err = annvq("choose", vectors, *arguments, "-o", out)
    assert code == 0, err
    assert f"wrote {out} and {tmp_path / 'choice.html'}; next: annvq build {out} {vectors} index.annvq" in printed
    text = out.read_text()
    assert (
        f"# Chosen by: annvq choose {vectors} --bytes-per-vector 2 --metric cosine --seconds 20.0 --threads 1" in text
    )
    assert "Recommended: " in (tmp_path / "choice.html").read_text()
    code, _, err = annvq("build", out, vectors, tmp_path / "i.annvq")
    assert code == 0, err
    index = load_index(tmp_path / "i.annvq")
    assert (index.metric, index.bits_per_vector) == ("cosine", 16)
    # What is asked for outright counts more.
    assert annvq("build", out, vectors, tmp_path / "ip.annvq", "--metric", "ip")[0] == 0
    assert load_index(tmp_path / "ip.annvq").metric == "ip"


def test_budgets_of_choose_are_checked(annvq, vectors, tmp_path):
    for arguments, message in (
        (["--bits", 8, "--memory", "1GB"], "give one of bits, bytes_per_vector and memory; got bits, memory"),
        (["--memory", "1GB"], "the vectors themselves take"),
        (["--bits", 8, "--fresh"], "--fresh forgets what the folder of --keep holds; give --keep"),
        (["--memory", "much", "--n", "1e6"], "expected a size such as 8GB"),
        (["--memory", "1GB", "--n", "many"], "expected a number of vectors"),
        (["--memory", "1MB", "--n", "1e6"], "leaves no byte for a code"),
        (["--bits", 8, "-o", "x.json"], "--out must end in .toml"),
    ):
        code, _, err = annvq("choose", vectors, *arguments)
        assert code in (1, 2)
        assert message in err


def test_beam_is_refused_where_codes_have_none(annvq, vectors, tmp_path):
    code, _, err = annvq("train", vectors, "--out", tmp_path / "q", "--kind", "product", "--beam", 4)
    assert code == 2
    assert "--beam is for residual and additive codes" in err


def test_a_build_that_fails_says_what_it_keeps(annvq, vectors, tmp_path):
    x = np.load(vectors)
    x[500, 3] = np.nan
    np.save(tmp_path / "bad.npy", x)
    arguments = ["build", "product", tmp_path / "bad.npy", tmp_path / "out.annvq", "--bits", 8, "--nbits", 4]
    folder = tmp_path / "out.annvq.building"
    assert annvq(*arguments)[0] == 1
    assert not folder.exists()  # nothing was learned
    code, _, err = annvq(*arguments, "--learn", vectors)
    assert code == 1
    assert f"kept in {folder}: the same command goes on from there" in err
    assert (folder / "trained.annvq").is_file()
