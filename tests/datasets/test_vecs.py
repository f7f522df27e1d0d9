"""Plain vector files: read back as written, memory-mapped, and refused with a reason when malformed."""

import numpy as np
import pytest

from annvq.datasets import load_vectors, vecs


def write_vecs(path, x):
    heads = np.full((len(x), 1), x.shape[1], "<i4").view(np.uint8)
    np.hstack([heads, np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)]).tofile(path)
    return path


def write_bin(path, x, tail=b""):
    path.write_bytes(np.array(x.shape, "<i4").tobytes() + np.ascontiguousarray(x).tobytes() + tail)
    return path


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".fvecs", "f4"), (".bvecs", "u1"), (".fbin", "f4"), (".u8bin", "u1"), (".i8bin", "i1"), (".npy", "f4")],
)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (9000, 7)])
def test_vectors_come_back_as_written(tmp_path, suffix, dtype, shape):
    x = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, x)
    else:
        (write_vecs if suffix.endswith("vecs") else write_bin)(path, x)
    got = load_vectors(path)
    assert isinstance(got, np.memmap)
    assert not got.flags.writeable
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(load_vectors(str(path))[-1:], x[-1:])


def test_ids_come_back_as_written(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**31 - 1, (6, 10)).astype("<i4")
    distances = np.zeros((6, 10), "<f4").tobytes()
    for path in (
        write_vecs(tmp_path / "x.ivecs", ids),
        write_bin(tmp_path / "x.ibin", ids),
        write_bin(tmp_path / "y.ibin", ids, distances),
    ):
        np.testing.assert_array_equal(vecs.read_ids(path), ids)


def test_every_truncation_is_refused(tmp_path):
    x = np.arange(12, dtype="<f4").reshape(3, 4)
    for suffix, write in ((".fvecs", write_vecs), (".fbin", write_bin)):
        path = write(tmp_path / f"x{suffix}", x)
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            if suffix == ".fvecs" and size and size % 20 == 0:
                continue  # whole vectors: a shorter file, not a broken one
            with pytest.raises(ValueError, match=rf"x{suffix}: truncated"):
                load_vectors(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.fvecs", b"\0" * 20, "its first vector claims dimension 0"),
        ("x.fvecs", b"\xff" * 20, "its first vector claims dimension -1"),
        ("x.fbin", b"\0" * 20, r"claims shape \(0, 0\)"),
        ("x.fbin", b"\xff\xff\xff\x7f" * 5, r"claims shape \(2147483647, 2147483647\)"),
        ("x.npy", b"not numpy at all", "not a readable .npy file"),
        ("x.npy", b"", "truncated: 0 bytes"),
        ("x.txt", b"1 2 3", "expected a file ending in .fvecs, .bvecs, .fbin, .u8bin, .i8bin, .npy"),
    ],
)
def test_malformed_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_vectors(tmp_path / name)


def test_a_dimension_that_changes_is_noticed(tmp_path):
    x = np.ones((4, 3), "<f4")
    path = write_vecs(tmp_path / "x.fvecs", x)
    content = bytearray(path.read_bytes())
    content[32] = 9
    path.write_bytes(content)
    with pytest.raises(ValueError, match="vector 2 claims dimension 9, the first has 3"):
        load_vectors(path)


def test_npy_of_other_shapes_and_types(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.float64).reshape(2, 3))
    assert load_vectors(path).dtype == np.float32
    np.save(path, np.ones((2, 3), ">f4"))
    np.testing.assert_array_equal(load_vectors(path), np.ones((2, 3), np.float32))
    for array, message in (
        (np.zeros(3, np.float32), "two-dimensional"),
        (np.zeros((2, 2, 2), np.float32), "two-dimensional"),
        (np.zeros((0, 4), np.float32), "empty"),
        (np.zeros((2, 2), np.int64), "got int64"),
        (np.zeros((2, 2), bool), "got bool"),
        (np.full((2, 2), 1e300), "beyond float32's range"),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=message):
            load_vectors(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a readable \.npy file"):
        load_vectors(path)


def test_missing_files(tmp_path):
    for name in ("x.fvecs", "x.fbin", "x.npy", "x.hdf5"):
        with pytest.raises(FileNotFoundError, match=f"no such file: .*{name}"):
            load_vectors(tmp_path / name)
