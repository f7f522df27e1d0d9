"""Vectors in archives of several arrays: NumPy's .npz and .safetensors. What is not compressed is memory-mapped."""

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from annvq.arrays import dtype_name
from annvq.datasets.dataset import VECTOR_DTYPES, Vectors
from annvq.datasets.vecs import require_file
from annvq.errors import FormatError
from annvq.storage import mapped_tensors

_LOCAL_HEADER = 30  # bytes before a member's name in a zip archive


def read_npz(path: Path, column: str | None) -> Vectors:
    """An array of a .npz archive: the named one, or the only one of vectors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, or no such array, or several that could be meant.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            found = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            members = {m.filename.removesuffix(".npy"): m for m in found}
            shapes = {name: _header(archive.open(member)) for name, member in members.items()}
            vectors = [name for name, (shape, _, dtype) in shapes.items() if is_vectors(shape, dtype)]
            name = chosen(path, column, vectors, members, "array")
            member = members[name]
            if member.compress_type != zipfile.ZIP_STORED:
                return np.lib.format.read_array(archive.open(member), allow_pickle=False)
            # In a local header the length of the name and of what follows it stand at 26.
            file.seek(member.header_offset)
            local = file.read(_LOCAL_HEADER)
            skipped = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
            file.seek(member.header_offset + _LOCAL_HEADER + skipped)
            shape, fortran, dtype = _header(file)
            return np.memmap(path, dtype, "r", file.tell(), shape, order="F" if fortran else "C")
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a readable .npz archive ({error})") from None


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array in .npy form."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return found


def read_safetensors(path: Path, column: str | None) -> Vectors:
    """A tensor of a .safetensors file as a read-only memory map: the named one, or the only one of vectors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, or no such tensor, or several that could be meant.
    """
    require_file(path)
    try:
        tensors = mapped_tensors(path)
    except FormatError as error:
        raise ValueError(str(error)) from None
    vectors = [name for name, x in tensors.items() if is_vectors(x.shape, x.dtype)]
    return tensors[chosen(path, column, vectors, tensors, "tensor")]


def is_vectors(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array could be meant where vectors are asked for."""
    return len(shape) == 2 and dtype_name(np.empty(0, dtype)) in (*VECTOR_DTYPES, "float64")


def chosen(where: object, column: str | None, vectors: list[str], names: Collection[str], what: str) -> str:
    """The name that ``column`` asks for, or the only one of ``vectors``.

    Raises:
        ValueError: there is no such name, or none or several of vectors; the message lists what there is.
    """
    listed = ", ".join(map(repr, names)) or "none"
    if column is not None:
        if column not in names:
            raise ValueError(f"{where}: no {what} {column!r} in it; it has {listed}")
        return column
    if len(vectors) != 1:
        found = ", ".join(map(repr, vectors)) or "none"
        how = f"; {where}:{vectors[0]} names the first" if vectors and isinstance(where, Path) else ""
        raise ValueError(f"{where}: expected one {what} of vectors, or the name of one; got {found} of {listed}{how}")
    return vectors[0]
