"""``convert``: from every format to every other, what is there stays; numbers that do not fit are refused."""

import numpy as np
import pytest

from annvq.arrays import as_bfloat16, as_float32, dtype_name
from annvq.cli import main
from annvq.datasets import convert, load_vectors, writing

X = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
WHOLE = np.random.default_rng(1).integers(0, 100, (300, 6)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(writing, "_CHUNK_BYTES", 4 * 6 * 70)  # so that several are written


@pytest.mark.parametrize("suffix", sorted(writing._WRITERS))
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8", "int8"])
def test_what_is_written_is_read(tmp_path, suffix, dtype):
    if suffix in (".parquet", ".pq", ".arrow", ".feather", ".ipc"):
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x{suffix}"
    if dtype not in writing._WRITERS[suffix][1]:
        with pytest.raises(ValueError, match=f"dtype must be .* in {suffix} files, got '{dtype}'"):
            convert(X, path, dtype=dtype)
        assert not path.exists()
        return
    x = WHOLE if dtype in ("uint8", "int8") else X
    assert convert(x, path, dtype=dtype) == path
    got = load_vectors(path)
    expected = as_float32(as_bfloat16(x)) if dtype == "bfloat16" else x.astype(dtype)
    assert (dtype_name(got), got.shape) == (dtype, x.shape)
    np.testing.assert_array_equal(as_float32(np.asarray(got)), expected.astype(np.float32))
    # And on to another format, with numbers as they are.
    convert(path, tmp_path / "y.npz")
    again = load_vectors(tmp_path / "y.npz")
    assert dtype_name(again) == dtype
    np.testing.assert_array_equal(as_float32(again), as_float32(np.asarray(got)))


def test_names(tmp_path, write_hdf5):
    write_hdf5("x.hdf5", a=X, b=X + 1)
    convert(f"{tmp_path}/x.hdf5:b", f"{tmp_path}/x.npz:mine")
    with np.load(tmp_path / "x.npz") as held:
        np.testing.assert_array_equal(held["mine"], X + 1)
    convert(tmp_path / "x.hdf5", tmp_path / "x.npy", column="a")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)
    with pytest.raises(ValueError, match="files hold one array without a name"):
        convert(X, f"{tmp_path}/x.npy:mine")


def test_the_format_says_the_numbers_where_the_source_has_none_of_its(tmp_path):
    convert(X.astype("f8"), tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").dtype == np.float32
    convert(WHOLE, tmp_path / "x.fvecs")
    np.testing.assert_array_equal(load_vectors(tmp_path / "x.fvecs"), WHOLE)
    convert(WHOLE.astype("f4"), tmp_path / "x.bvecs")
    np.testing.assert_array_equal(load_vectors(tmp_path / "x.bvecs"), WHOLE)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [(X, "uint8"), (WHOLE.astype("f4") + 200, "int8"), (X * 1e6, "float16"), (X.astype("f8") * 1e40, None)],
)
def test_numbers_that_do_not_fit(tmp_path, x, dtype):
    good = np.zeros((80, 6), x.dtype)
    (tmp_path / "x.npy").write_bytes(b"as it was")
    with pytest.raises(ValueError, match=r"must hold all vectors; it does not hold row 8[0-9]"):
        convert(np.concatenate([good, x]), tmp_path / "x.npy", dtype=dtype)
    assert (tmp_path / "x.npy").read_bytes() == b"as it was"
    assert len(list(tmp_path.iterdir())) == 1 + (tmp_path / "annvq-data").exists()


def test_the_command(tmp_path, capsys):
    (tmp_path / "shards").mkdir()
    np.save(tmp_path / "shards" / "a.npy", X[:100])
    np.save(tmp_path / "shards" / "b.npy", X[100:])
    out = tmp_path / "x.fbin"
    for arguments, code, said in (
        ([tmp_path / "shards", out], None, f"wrote {out}: 7,208 bytes\n"),
        ([tmp_path / "shards", tmp_path / "x.txt"], 1, "expected a file ending in .npy"),
        ([tmp_path / "absent.npy", out], 1, "no such file"),
        ([out], 2, "Missing argument 'TARGET'"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["convert", *map(str, arguments)])
        assert (stop.value.code or None) == code
        captured = capsys.readouterr()
        assert said in captured.out + captured.err
    np.testing.assert_array_equal(load_vectors(out), X)
