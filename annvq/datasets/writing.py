"""Files of vectors, written a part at a time: from one format to another without holding all of them in memory."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from annvq.arrays import BFLOAT16, as_bfloat16, as_float32, check_vectors, chunks, dtype_name, host_array, item_bytes
from annvq.datasets import files, hdf5, tables
from annvq.optional import needed_by
from annvq.paths import check_path
from annvq.replacing import destination, replacing
from annvq.types import Array

_CHUNK_BYTES = 1 << 25
_SAFETENSORS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "uint8": "U8", "int8": "I8"}
_WHOLE = {"uint8": (0, 255), "int8": (-128, 127)}

Parts = Iterable[npt.NDArray[Any]]
"""Rows (b, d) of one dtype, in order."""


def convert(
    source: str | os.PathLike[str] | Array,
    target: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    column: str | None = None,
    progress: bool = False,
) -> Path:
    """Write vectors in another format, a part at a time; the file appears when it is whole.

    Args:
        source: a path as :func:`~annvq.datasets.load_vectors` takes it, or vectors (n, d).
        target: a file, which is replaced: .npy, .npz, .fvecs, .bvecs, .fbin, .u8bin, .i8bin, .hdf5, .h5, .safetensors,
            .parquet or .arrow. ``"table.parquet:text"`` names the column (or array, data set, tensor), else it is
            called "vectors", in HDF5 "train".
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"uint8"`` or ``"int8"``; default: that of the source, or
            the one that the format has. Floats are rounded to halves; whole numbers are only written where all vectors
            hold them exactly.
        column: of the source, where it holds several.
        progress: show a progress bar.

    Raises:
        ValueError: formats that are not known or do not take such numbers, vectors that ``dtype`` does not hold.
        FileNotFoundError, TypeError: as :func:`~annvq.datasets.load_vectors`.
    """
    path, name = files.split_column(check_path(target, "target"))
    write, only = _writer(path)
    if name is not None and path.suffix.lower() in _NAMELESS:
        raise ValueError(f"target must be a path alone, as {path.suffix} files hold one array without a name")
    given = files.read_vectors(source, column) if isinstance(source, str | os.PathLike) else source
    x = check_vectors(given, None, "source")
    n, d = map(int, x.shape)
    held = dtype_name(x) if dtype_name(x) != "float64" else "float32"
    kind = dtype or (held if held in only else only[-1])
    if kind not in only:
        raise ValueError(f"dtype must be {' or '.join(only)} in {path.suffix} files, got {kind!r}")
    ranges: Iterable[tuple[int, int]] = chunks(n, d, chunk_bytes=_CHUNK_BYTES)
    if progress:
        ranges = tqdm(list(ranges), desc="convert", unit="chunk")
    with needed_by(f"writing {path.suffix} files"), replacing(path) as temporary:
        write(temporary, n, d, kind, name or "vectors", (_as(kind, x[a:b, :], a) for a, b in ranges))
    return destination(path)


def _as(kind: str, part: Array, start: int) -> npt.NDArray[Any]:
    """Rows in dtype ``kind``, C-contiguous; ValueError naming a row that it does not hold."""
    rows = np.asarray(host_array(part))
    if dtype_name(rows) == kind:
        return np.ascontiguousarray(rows, BFLOAT16 if kind == "bfloat16" else kind)
    numbers = as_float32(rows)
    if kind == "bfloat16":
        made: npt.NDArray[Any] = as_bfloat16(numbers)
        back = as_float32(made)
    else:
        low, high = _WHOLE.get(kind, (-np.inf, np.inf))
        with np.errstate(over="ignore", invalid="ignore"):
            made = np.clip(numbers, low, high).astype(kind)
        back = made.astype(np.float32)
    finite = np.isfinite(numbers if dtype_name(rows) == "bfloat16" else rows)
    held = back == numbers if kind in _WHOLE else np.isfinite(back) == finite
    if not held.all():
        row = start + int(np.argmin(held.all(axis=1)))
        raise ValueError(f"{kind} must hold all vectors; it does not hold row {row}")
    return made


# -- one writer for each format: (path, n, d, dtype, name, parts) --------------------------------------------------


def _write_raw(file: Any, parts: Parts) -> None:
    for part in parts:
        file.write(part.data.cast("B") if part.dtype != BFLOAT16 else part.view(np.uint16).data.cast("B"))


def _npy(file: Any, n: int, d: int, kind: str, parts: Parts) -> None:
    dtype = BFLOAT16 if kind == "bfloat16" else np.dtype(kind)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n, d)}
    np.lib.format.write_array_header_1_0(file, header)
    _write_raw(file, parts)


def _write_npy(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    with open(path, "wb") as file:
        _npy(file, n, d, kind, parts)


def _write_npz(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        _npy(file, n, d, kind, parts)


def _write_bin(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    if n > np.iinfo(np.int32).max:
        raise ValueError(f"target must be of another format: such files hold at most {np.iinfo(np.int32).max} vectors")
    with open(path, "wb") as file:
        file.write(np.array([n, d], "<i4").tobytes())
        _write_raw(file, parts)


def _write_vecs(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    with open(path, "wb") as file:
        for part in parts:
            heads = np.full((len(part), 1), d, "<i4").view(np.uint8)
            file.write(np.hstack([heads, part.view(np.uint8).reshape(len(part), -1)]).data)


def _write_hdf5(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        dtype = BFLOAT16 if kind == "bfloat16" else np.dtype(kind)
        made, at = file.create_dataset("train" if name == "vectors" else name, (n, d), dtype), 0
        for part in parts:
            made[at : at + len(part)] = part
            at += len(part)


def _write_safetensors(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    entry = {"dtype": _SAFETENSORS[kind], "shape": [n, d], "data_offsets": [0, n * d * item_bytes(kind)]}
    head = json.dumps({name: entry}).encode()
    head += b" " * (-(8 + len(head)) % 64)
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        _write_raw(file, parts)


def _batches(d: int, kind: str, name: str, parts: Parts) -> tuple[Any, Iterator[Any]]:
    """Schema and record batches of a table with one column of vectors."""
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.list_(pa.from_numpy_dtype(np.dtype(kind)), d), nullable=False)])
    lists = (pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), type=schema.types[0]) for part in parts)
    return schema, (pa.record_batch([column], schema=schema) for column in lists)


def _write_parquet(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    import pyarrow.parquet as pq

    schema, batches = _batches(d, kind, name, parts)
    with pq.ParquetWriter(path, schema, use_dictionary=False) as file:
        for batch in batches:  # a row group each: what readers hold at a time
            file.write_batch(batch)


def _write_arrow(path: Path, n: int, d: int, kind: str, name: str, parts: Parts) -> None:
    import pyarrow as pa

    schema, batches = _batches(d, kind, name, parts)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for batch in batches:
            file.write_batch(batch)


_Write = Callable[[Path, int, int, str, str, Parts], None]
_ANY = ("float16", "bfloat16", "uint8", "int8", "float32")  # the last one is written where a source has none of them
_ARROW = ("float16", "uint8", "int8", "float32")
_WRITERS: dict[str, tuple[_Write, tuple[str, ...]]] = {
    ".npy": (_write_npy, _ANY),
    ".npz": (_write_npz, _ANY),
    ".fvecs": (_write_vecs, ("float32",)),
    ".bvecs": (_write_vecs, ("uint8",)),
    ".fbin": (_write_bin, ("float32",)),
    ".u8bin": (_write_bin, ("uint8",)),
    ".i8bin": (_write_bin, ("int8",)),
    **dict.fromkeys(hdf5.SUFFIXES, (_write_hdf5, _ANY)),
    ".safetensors": (_write_safetensors, _ANY),
    **dict.fromkeys(tables.PARQUET_SUFFIXES, (_write_parquet, _ARROW)),
    **dict.fromkeys(tables.ARROW_SUFFIXES, (_write_arrow, _ARROW)),
}
_NAMELESS = (".npy", ".fvecs", ".bvecs", ".fbin", ".u8bin", ".i8bin")


def _writer(path: Path) -> tuple[_Write, tuple[str, ...]]:
    found = _WRITERS.get(path.suffix.lower())
    if found is None:
        raise ValueError(f"{path}: expected a file ending in {', '.join(_WRITERS)}")
    return found
