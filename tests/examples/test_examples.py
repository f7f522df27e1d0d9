"""The examples run, in a short form, and do what they say."""

import gzip
import runpy
import sqlite3
import sys
import wave
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from scipy.linalg import solve_toeplitz

from annvq import make
from annvq.training import History

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


def test_image_compression(monkeypatch, tmp_path):
    plot = tmp_path / "images.png"
    short = ("--nbits", "2", "4", "--steps=4", "--width=4", "--beam=2", f"--plot={plot}")
    rows = run("image_compression.py", monkeypatch, *short)
    assert [(row["bits"], row["code"]) for row in rows] == [(b, c) for b in (8, 16) for c in ("AVQ", "RVQ", "PVQ")]
    for few, many in zip(rows[:3], rows[3:], strict=True):
        assert few["wmops"] < many["wmops"]
        assert all(5 < row["psnr"] < 30 and 0 < row["ssim"] < 1 for row in (few, many))
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["product", "residual", "additive"])
def test_images_are_learned_through_a_code(kind):
    names = runpy.run_path(str(EXAMPLES / "image_compression.py"))
    torch.manual_seed(0)
    images = torch.rand(128, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)  # fields of 8x8 equal pixels
    coded = names["with_quantizer"](names["Compressor"](1, 4), kind, 4, images, beam=2)
    parts = (coded.encoder, coded.quantizer, coded.decoder)
    before = [next(part.parameters()).detach().clone() for part in parts]
    start = names["quality"](coded, images)[0]
    names["train"](coded, images, 40, 5e-3)
    assert names["quality"](coded, images)[0] > start + 3  # dB
    # The gradient reaches all three.
    for part, old in zip(parts, before, strict=True):
        assert not torch.equal(next(part.parameters()), old)


def test_images_in_a_file(monkeypatch, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (700, 28, 28), np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(np.array([2051, 700, 28, 28], ">i4").tobytes() + images.tobytes()))
    names = runpy.run_path(str(EXAMPLES / "image_compression.py"))
    train, test = names["idx_images"](path, 150)
    assert (train.shape, test.shape) == ((150, 1, 32, 32), (500, 1, 32, 32))
    assert np.allclose(255 * test[:, 0, 2:-2, 2:-2].numpy(), images[150:650])
    assert names["ssim"](test, test) == pytest.approx(1, abs=1e-5)
    assert names["psnr"](test, test + 0.1) == pytest.approx(20, abs=1e-3)
    assert names["ssim"](test, test.flip(0)) < 0.2  # (the border is alike)


def test_speech_coding(monkeypatch, tmp_path):
    plot = tmp_path / "speech.svg"
    rows = run("speech_coding.py", monkeypatch, "--synthetic=12", "--nbits", "2", "5", f"--plot={plot}")
    assert [(row["bits"], row["code"]) for row in rows] == [(b, c) for b in (8, 20) for c in ("AVQ", "RVQ", "PVQ")]
    for few, many in zip(rows[:3], rows[3:], strict=True):
        assert 0 < many["lsd"] < few["lsd"] < 6
        assert many["beyond"] <= few["beyond"]
    assert "<svg" in plot.read_text()


def test_speech_of_recordings(monkeypatch, tmp_path):
    signal = np.random.default_rng(0).normal(size=(5, 12_000)).cumsum(1)
    for i, row in enumerate(signal):
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((30 * row).astype("<i2").tobytes())
    rows = run("speech_coding.py", monkeypatch, str(tmp_path), "--nbits", "3")
    assert len(rows) == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SystemExit, match="no WAV files"):
        run("speech_coding.py", monkeypatch, str(empty))


def test_speech_with_coded_envelopes(monkeypatch):
    names = runpy.run_path(str(EXAMPLES / "speech_coding.py"))
    signal = np.concatenate([np.zeros(800), np.random.default_rng(0).normal(size=4000).cumsum(), np.zeros(800)])
    a = names["predictors"](signal, 8000, silent=True)
    assert len(a) == (5600 - 240) // 160 + 1
    assert np.isfinite(a).all()
    assert len(names["predictors"](signal, 8000)) < len(a)
    same = names["through"](signal, a, a, 40, 160)
    assert np.allclose(same, signal[40 : 40 + len(same)], atol=1e-6)
    flat = np.zeros_like(a)
    flat[:, 0] = 1.0
    error = names["through"](signal, a, flat, 40, 160)  # what is not predicted, a fraction of the signal
    assert np.square(error).sum() < 0.2 * np.square(same).sum()

    # PESQ is asked about the signal and what comes back of it; recordings without speech are left out.
    asked = []

    def pesq(rate, original, coded, mode, on_error):
        asked.append((rate, mode, original, coded))
        return [3.0, -1.0][len(asked) - 1]

    errors = SimpleNamespace(RETURN_VALUES=1)
    monkeypatch.setitem(sys.modules, "pesq", SimpleNamespace(pesq=pesq, PesqError=errors))
    x = names["line_frequencies"](a).astype(np.float32)
    coder = make("residual", dim=10, M=4, nbits=3).fit(x)
    assert names["heard"]([(100 * signal, 8000)] * 2, coder) == 3.0
    rate, mode, original, coded = asked[0]
    assert (rate, mode, original.dtype, coded.shape) == (8000, "nb", np.int16, original.shape)
    assert 0 < np.abs(original.astype(float) - coded).mean() < np.abs(original.astype(float)).mean()


def test_line_frequencies_are_those_of_the_predictors():
    names = runpy.run_path(str(EXAMPLES / "speech_coding.py"))
    signal = np.random.default_rng(0).normal(size=8000).cumsum() + np.sin(np.arange(8000) / 3) * 50
    a = names["predictors"](signal, 8000)
    # Levinson and Durbin's recursion solves the normal equations of the windowed frame.
    frame = signal[160 * 5 : 160 * 5 + 240] * np.hamming(240)
    r = np.array([frame[: 240 - k] @ frame[k:] for k in range(11)]) * np.exp(
        -0.5 * (0.015 * np.pi * np.arange(11)) ** 2
    )
    r[0] *= 1.0001
    assert np.allclose(a[5, 1:], solve_toeplitz(r[:-1], -r[1:]))
    frequencies = names["line_frequencies"](a)
    for row, f in zip(a[:20], frequencies, strict=False):
        angles = []
        for sign in (1, -1):
            roots = np.roots(np.pad(row, (0, 1)) + sign * np.pad(row[::-1], (1, 0)))
            angles += [angle for angle in np.angle(roots) if 1e-4 < angle < np.pi - 1e-4]
        assert np.allclose(np.sort(angles), f, atol=1e-6)
    again = names["predictors_of"](frequencies, gap=1e-9)
    assert np.allclose(again, a)
    assert names["distortion"](a, again).max() < 1e-6
    # What is decoded out of order gives a stable predictor all the same.
    for row in names["predictors_of"](np.random.default_rng(1).uniform(-1, 4, (50, 10))):
        assert np.abs(np.roots(row)).max() < 1
    db = names["distortion"](a[:1], a[:1] * 10.0)
    assert np.allclose(db, 20)


def test_training_log(monkeypatch, tmp_path):
    log, plot = tmp_path / "log.json", tmp_path / "log.png"
    short = ("residual", "--steps=60", "--nbits=4", f"--history={log}", f"--plot={plot}")
    history = run("training_log.py", monkeypatch, *short)
    assert len(history.loss) == 60
    assert history.validation[-1][1] < 0.5 * history.validation[0][1]
    assert [step for step, _ in history.replaced] == [25]
    assert History.load(log) == history
    assert plot.read_bytes().startswith(b"\x89PNG")
