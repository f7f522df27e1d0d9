"""A file is read whole and as it was written, or refused with FormatError."""

import numpy as np
import pytest

from annvq import storage
from annvq.errors import FormatError

TENSORS = {
    "codes": np.arange(60, dtype=np.uint8).reshape(20, 3),
    "norms": np.linspace(0, 1, 7, dtype=np.float32),
    "none": np.empty((0, 3), np.int64),
}
CONFIG = {"metric": "l2", "nbits": [3, 4]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.annvq"
    storage.write(path, "thing", 1, CONFIG, TENSORS)
    return path


def require_same(stored):
    assert (stored.format, stored.version, stored.config) == ("thing", 1, CONFIG)
    assert set(stored.tensors) == set(TENSORS)
    for name, array in TENSORS.items():
        assert stored.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(stored.tensors[name], array)


def test_round_trip_leaves_no_other_file(file):
    require_same(storage.read(file, "thing", (1,)))
    assert list(file.parent.iterdir()) == [file]


def test_truncated_anywhere(file):
    data = file.read_bytes()
    for length in range(0, len(data), 7):
        file.write_bytes(data[:length])
        with pytest.raises(FormatError):
            storage.read(file, "thing", (1,))


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_flipped_bytes(file, flip):
    data = file.read_bytes()
    refused = 0
    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
        try:
            require_same(storage.read(file, "thing", (1,)))
        except FormatError:
            refused += 1
    assert refused > len(data) // 2


def test_other_formats_and_versions(file):
    with pytest.raises(FormatError, match="holds 'thing', expected 'other'"):
        storage.read(file, "other", (1,))
    storage.write(file, "thing", 9, CONFIG, TENSORS)
    with pytest.raises(FormatError, match="version 9; this annvq reads 1, 2"):
        storage.read(file, "thing", (1, 2))
    file.write_text("not a file of vectors")
    with pytest.raises(FormatError, match="not an annvq file"):
        storage.read(file, "thing", (1,))
    with pytest.raises(FileNotFoundError):
        storage.read(file.parent / "absent", "thing", (1,))


def test_failed_write_keeps_the_old_file(file, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(storage.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        storage.write(file, "thing", 2, {}, {"a": np.zeros(3)})
    monkeypatch.undo()
    require_same(storage.read(file, "thing", (1,)))
    assert list(file.parent.iterdir()) == [file]
