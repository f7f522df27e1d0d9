"""The examples run, in a short form, and do what they say."""

import runpy
import sqlite3
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", [name, *arguments])
    return runpy.run_path(str(EXAMPLES / name))["main"]()


def test_normal_distribution(monkeypatch, tmp_path):
    plot = tmp_path / "training.png"
    errors = run("normal_distribution.py", monkeypatch, "--dim=8", "--bits=12", "--steps=60", f"--plot={plot}")
    assert set(errors) == {"product", "residual", "additive"}
    assert all(error < 0.7 for error in errors.values())
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_network_layer(monkeypatch):
    before, after = run("network_layer.py", monkeypatch, "--epochs=4")
    assert after < 0.6 * before


def test_sharded_search(monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    try:
        done = run("sharded_search.py", monkeypatch, "--vectors=3000")
    finally:
        ray.shutdown()
    assert done == {"same": True, "kept": True, "whole": True}


def test_sift_to_index(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "small.hdf5"
    with h5py.File(path, "w") as f:
        f["train"] = rng.normal(size=(1500, 16)).astype("f4")
        f["test"] = f["train"][:20] + rng.normal(size=(20, 16), scale=0.01).astype("f4")
        f["learn"] = rng.normal(size=(1000, 16)).astype("f4")
        f.attrs["distance"] = "euclidean"
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    recall = run("sift_to_index.py", monkeypatch, str(path), "--codebooks=2", f"--out={tmp_path / 'index'}")
    assert recall[100] == pytest.approx(1.0, abs=0.11)
    assert recall[1] <= recall[10] <= recall[100]


def test_ivf_search(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "small.hdf5"
    centers = rng.normal(size=(40, 16)) * 3
    with h5py.File(path, "w") as f:
        for name, n in (("train", 3000), ("test", 20), ("learn", 1500)):
            f[name] = (centers[rng.integers(40, size=n)] + rng.normal(size=(n, 16))).astype("f4")
        f.attrs["distance"] = "euclidean"
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    results = run("ivf_search.py", monkeypatch, str(path), "--codebooks=2", f"--out={tmp_path / 'index'}")
    assert results["codes"] < results["re-ranked"]
    assert results["all lists, 500 re-ranked"] > 0.99


def test_faiss_bridge(monkeypatch):
    results = run("faiss_bridge.py", monkeypatch, "--base=2000", "--learn=1500")
    assert results["same from FAISS"] > 0.95
    assert results["same to FAISS"] > 0.95
    assert results["learned rotation"] < 1.05 * results["FAISS OPQ"]


def test_codes_in_sqlite(monkeypatch, tmp_path):
    path = tmp_path / "codes.db"
    shares = run("codes_in_sqlite.py", monkeypatch, "--base=600", "--codebooks=2", f"--out={path}")
    assert shares == {"all": 1.0, "one shelf": 1.0}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*), min(length(code)), max(length(code)) FROM vectors").fetchone() == (
            600,
            2,
            2,
        )


def test_deduplicate(monkeypatch):
    results = run("deduplicate.py", monkeypatch, "--vectors=800", "--copies=200")
    assert results == {"copies found": 1.0, "others dropped": 0.0}


def test_codes_in_duckdb(monkeypatch, tmp_path):
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    path = tmp_path / "codes.duckdb"
    shares = run("codes_in_duckdb.py", monkeypatch, "--base=600", "--codebooks=2", f"--out={path}")
    assert shares == {"all": 1.0, "one shelf": 1.0}
    assert path.stat().st_size > 0
