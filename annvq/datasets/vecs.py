"""Readers for plain vector files.

fvecs, bvecs, ivecs (TEXMEX); fbin, u8bin, i8bin, ibin (big-ann-benchmarks); npy. All of them return memory
maps: nothing is read before it is used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.datasets.dataset import Vectors, as_vectors
from annvq.paths import home_hint

#: Suffix → element type, for vectors. Every row of a *vecs file starts with its dimension as an int32.
_VECS: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1")}
#: A *bin file starts with n and d as int32, then n × d values.
_BIN: dict[str, np.dtype[Any]] = {
    ".fbin": np.dtype("<f4"),
    ".u8bin": np.dtype("u1"),
    ".i8bin": np.dtype("i1"),
}

VECTOR_SUFFIXES = (*_VECS, *_BIN)
ID_SUFFIXES = (".ivecs", ".ibin")

_ROWS_CHECKED = 4096


def read_vectors(path: str | Path) -> Vectors:
    """A .fvecs, .bvecs, .fbin, .u8bin, .i8bin or .npy file as a read-only memory map (n, d).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, or a truncated or malformed file.
    """
    path = Path(path)
    if path.suffix in _VECS:
        return _read_vecs(path, _VECS[path.suffix])
    if path.suffix in _BIN:
        return _read_bin(path, _BIN[path.suffix])
    if path.suffix == ".npy":
        return _read_npy(path)
    raise ValueError(f"{path}: expected a file ending in {', '.join((*VECTOR_SUFFIXES, '.npy'))}")


def read_ids(path: str | Path) -> npt.NDArray[np.int32]:
    """An .ivecs or .ibin file of neighbour ids as a read-only memory map (nq, k) int32.

    An .ibin file may hold distances after the ids, as big-ann-benchmarks' ground truth does; they are left
    out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another suffix, or a truncated or malformed file.
    """
    path = Path(path)
    if path.suffix == ".ivecs":
        return _read_vecs(path, np.dtype("<i4"))
    if path.suffix == ".ibin":
        return _read_bin(path, np.dtype("<i4"), may_hold_distances=True)
    raise ValueError(f"{path}: expected a file ending in {', '.join(ID_SUFFIXES)}")


def require_file(path: Path) -> None:
    """Raise an error that says what is wrong unless ``path`` is a file, or a link to one.

    Raises:
        FileNotFoundError: there is nothing.
        IsADirectoryError: a folder.
        ValueError: a pipe or a device, which cannot be mapped into memory.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file of vectors")
    if path.exists():
        raise ValueError(f"{path} is no regular file")
    raise FileNotFoundError(f"no such file: {path}{home_hint(str(path))}")


def _size(path: Path, at_least: int) -> int:
    require_file(path)
    size = path.stat().st_size
    if size < at_least:
        raise ValueError(f"{path}: truncated: {size} bytes, too few for one vector")
    return size


def _read_vecs(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    size = _size(path, 4 + dtype.itemsize)
    with open(path, "rb") as file:
        d = int.from_bytes(file.read(4), "little", signed=True)
    if d < 1:
        raise ValueError(f"{path}: malformed: its first vector claims dimension {d}")
    row = 4 + d * dtype.itemsize
    if size % row:
        raise ValueError(
            f"{path}: truncated or malformed: {size} bytes is not a multiple of the {row} bytes that a "
            f"vector of dimension {d} takes"
        )
    mapped = np.memmap(path, dtype=np.uint8, mode="r", shape=(size // row, row))
    step = max(1, len(mapped) // _ROWS_CHECKED)
    heads = np.ascontiguousarray(mapped[::step, :4]).view("<i4")[:, 0]
    if (heads != d).any():
        bad = int(np.flatnonzero(heads != d)[0])
        raise ValueError(f"{path}: malformed: vector {bad * step} claims dimension {heads[bad]}, the first has {d}")
    if dtype.itemsize == 1:
        return mapped[:, 4:].view(dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(size // row, d + 1))[:, 1:]


def _read_bin(path: Path, dtype: np.dtype[Any], *, may_hold_distances: bool = False) -> npt.NDArray[Any]:
    size = _size(path, 8 + dtype.itemsize)
    with open(path, "rb") as file:
        n, d = (int.from_bytes(file.read(4), "little", signed=True) for _ in range(2))
    if n < 1 or d < 1:
        raise ValueError(f"{path}: malformed: its header claims shape ({n}, {d})")
    expected = 8 + n * d * dtype.itemsize
    sizes = (expected, expected + 4 * n * d) if may_hold_distances else (expected,)
    if size not in sizes:
        raise ValueError(
            f"{path}: truncated or malformed: its header claims shape ({n}, {d}), which takes {expected} "
            f"bytes; it has {size}"
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=8, shape=(n, d))


def _read_npy(path: Path) -> Vectors:
    return as_vectors(read_array(path), str(path))


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array in a .npy file, of any shape, as a read-only memory map.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, or one of Python objects.
    """
    _size(path, 1)
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK":
        raise ValueError(f"{path}: an .npz archive; save the array alone with numpy.save")
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise ValueError(f"{path}: not a readable .npy file of numbers") from error
    return array
