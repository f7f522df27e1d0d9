"""Files: safetensors with a JSON header, written atomically, verified on load, mapped into memory on request.

A file is one safetensors archive whose metadata holds a key ``annvq``: JSON with ``format``, ``version``, ``config``
and, for every tensor, its dtype, shape and CRC-32; and a key ``crc32``, that of the JSON. Nothing in it is ever
executed.

The same may be written to and read from file objects and bytes.

It is read here and not by the safetensors library, because one mapping of one open file serves the header, the
checksums and the tensors that stay mapped: a file replaced meanwhile cannot mix with the old one.
"""

import io
import json
import math
import mmap
import os
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.errors import FormatError
from annvq.paths import home_hint
from annvq.replacing import replacing

KEY = "annvq"
ALIGNMENT = 64
MAX_HEADER = 100_000_000  # as the safetensors library has it

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
}
_CODES = {name: code for code, name in _DTYPES.items()}


class Readable(Protocol):
    """A file object opened for reading in binary mode."""

    def read(self, /) -> bytes: ...


class Writable(Protocol):
    """A file object opened for writing in binary mode."""

    def write(self, data: Any, /) -> Any: ...


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""A path, the bytes that a file would hold, or a file object: it is read from where it stands to its end."""

Target: TypeAlias = str | os.PathLike[str] | Writable
"""A path, or a file object, which is written to from where it stands."""


class Stored(NamedTuple):
    """What a file holds."""

    format: str
    version: int
    config: dict[str, Any]
    tensors: dict[str, npt.NDArray[Any]]


def _crc(array: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B")) if array.size else 0


def _describe(array: npt.NDArray[Any]) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "crc32": _crc(array)}


# -- writing -----------------------------------------------------------------------------------------------------


def write(
    target: Target,
    format: str,
    version: int,
    config: Mapping[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write a file atomically: readers see the old file or the new one, whole (see :func:`~annvq.replacing.replacing`).
    Into a file object it is written as it is made, the same bytes.

    Raises:
        OSError: the folder does not exist or cannot be written; the path is a folder.
        ValueError: the path is a pipe or a device.
        TypeError: neither a path nor a file object opened in binary mode.
    """
    arrays = {name: np.asarray(a, order="C") for name, a in tensors.items()}
    header = {
        "format": format,
        "version": version,
        "config": dict(config),
        "tensors": {name: _describe(a) for name, a in arrays.items()},
    }
    text = json.dumps(header, sort_keys=True)
    if isinstance(target, str | os.PathLike):
        with replacing(target) as temporary, open(temporary, "wb") as f:
            _write_archive(f, arrays, text)
        return
    if not hasattr(target, "write") or isinstance(target, io.TextIOBase):
        raise TypeError(f"target must be a path or a file object opened in binary mode, got {type(target).__name__}")
    _write_archive(target, arrays, text)


def saved_bytes(save: Callable[[io.BytesIO], None]) -> bytes:
    """What ``save`` writes into a file object."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of text atomically, as :func:`write` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def _write_archive(f: Writable, arrays: Mapping[str, npt.NDArray[Any]], text: str) -> None:
    """A safetensors archive in which the largest tensor (usually the codes) begins at a multiple of ALIGNMENT."""
    # Items of eight bytes come first, so that all that may be mapped lies at multiples of its item size.
    order = sorted(arrays, key=lambda name: (arrays[name].itemsize != 8, -arrays[name].nbytes, name))
    entries: dict[str, Any] = {"__metadata__": {KEY: text, "crc32": str(zlib.crc32(text.encode()))}}
    at = 0
    for name in order:
        a = arrays[name]
        entries[name] = {
            "dtype": _CODES[str(a.dtype)],
            "shape": list(a.shape),
            "data_offsets": [at, at + a.nbytes],
        }
        at += a.nbytes
    first = sum(a.nbytes for a in arrays.values() if a.itemsize == 8)
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-(8 + len(head) + first) % ALIGNMENT)
    _write_all(f, len(head).to_bytes(8, "little") + head)
    for name in order:
        if arrays[name].size:
            _write_all(f, arrays[name].data.cast("B"))


def _write_all(f: Writable, data: bytes | memoryview) -> None:
    """Write bytes to a file object that may take only a part of them at once."""
    left = memoryview(data)
    while len(left):
        written = f.write(left)
        if written == 0:
            raise OSError(f"the file object takes no more: {len(left)} bytes are left")
        left = left[len(left) if written is None else written :]


# -- reading -----------------------------------------------------------------------------------------------------


def read(
    source: Source,
    format: str,
    versions: tuple[int, ...],
    *,
    mapped: Callable[[dict[str, Any]], Collection[str]] | None = None,
    verify: bool = False,
) -> Stored:
    """Read and verify a file written by :func:`write`.

    Args:
        mapped: says, from the config, which tensors of a file by path to leave in a read-only memory map, unread;
            default: none.
        verify: check their checksums all the same.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: a folder.
        FormatError: not such a file, an unknown version, truncated or corrupt.
        TypeError: neither a path, nor bytes, nor a file object opened in binary mode.
        ValueError: ``mapped``, but no path.
    """
    name = name_of(source)
    if isinstance(source, str | os.PathLike):
        content: mmap.mmap | memoryview = _mapped_file(name)
    elif mapped is not None:
        raise ValueError(f"only files can be mapped into memory, by their path; got {name}")
    else:
        content = _bytes_of(source)
        if len(content) < 8:
            raise FormatError(f"{name} is not an annvq file: it is shorter than any")
    try:
        metadata, tensors = _archive(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise FormatError(f"{name} is not an annvq file, or truncated or corrupt: {e}") from None
    header = _header(name, metadata, format, versions)
    listed = header["tensors"]
    unread = () if mapped is None else mapped(header["config"])
    if tensors.keys() != listed.keys():
        raise FormatError(f"{name} is corrupt: its tensors are not the ones its header lists")
    for key, array in tensors.items():
        stays = key in unread and array.flags.aligned
        if {k: listed[key].get(k) for k in ("dtype", "shape")} != {"dtype": str(array.dtype), "shape": [*array.shape]}:
            raise FormatError(f"{name} is corrupt: tensor {key!r} is not of the dtype and shape that its header lists")
        if not stays:
            tensors[key] = array = array.copy()
        if (not stays or verify) and _crc(array) != listed[key].get("crc32"):
            raise FormatError(f"{name} is corrupt: tensor {key!r} fails its checksum")
    return Stored(format, header["version"], header["config"], tensors)


def offsets(path: str | os.PathLike[str]) -> dict[str, int]:
    """Where each tensor begins in a file that :func:`read` has found to be whole."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        entries = json.loads(f.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in entries.items() if name != "__metadata__"}


def name_of(source: Source) -> str:
    """What errors call it."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"the given {type(source).__name__}"


def _bytes_of(source: bytes | bytearray | memoryview | Readable) -> memoryview:
    """All bytes of a source that is no path."""
    read = getattr(source, "read", None)
    data = source if read is None else read()
    if not isinstance(data, bytes | bytearray | memoryview):
        found = type(source).__name__ if read is None else f"one that reads {type(data).__name__}"
        raise TypeError(f"source must be a path, bytes, or a file object opened in binary mode, got {found}")
    return memoryview(data).cast("B")


def _mapped_file(name: str) -> mmap.mmap:
    if os.path.isdir(name):
        raise IsADirectoryError(f"cannot read {name}: it is a folder")
    if not os.path.exists(name):
        raise FileNotFoundError(f"no such file: {name}{home_hint(name)}")
    if not os.path.isfile(name):
        raise FormatError(f"{name} is not an annvq file: it is no regular file")
    with open(name, "rb") as f:
        if os.fstat(f.fileno()).st_size < 8:
            raise FormatError(f"{name} is not an annvq file: it is shorter than any")
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


def mapped_tensors(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """The tensors of anybody's safetensors file by name, as read-only memory maps; bfloat16 as two bytes without name.

    Raises:
        FileNotFoundError, IsADirectoryError: no such file.
        FormatError: not such a file, truncated or corrupt, or with tensors of types that NumPy has no numbers for.
    """
    content = _mapped_file(os.fspath(path))
    try:
        return _archive(content, _DTYPES | {"BF16": "V2"})[1]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise FormatError(f"{os.fspath(path)} is not a readable safetensors file: {e}") from None


def _archive(
    content: mmap.mmap | memoryview, dtypes: Mapping[str, str] = _DTYPES
) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Metadata and tensors (views of ``content``) of a safetensors archive, whose format is checked in full."""
    length = int.from_bytes(content[:8], "little")
    data = 8 + length
    if length > min(MAX_HEADER, len(content) - 8):
        raise ValueError(f"no header of {length} bytes, as its first eight say, fits into its {len(content)} bytes")
    entries = json.loads(bytes(content[8:data]).decode("utf-8"))
    metadata = entries.pop("__metadata__", {})
    if not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not text")
    tensors, at = {}, 0
    for name, entry in sorted(entries.items(), key=lambda e: (e[1]["data_offsets"], e[0])):
        dtype, shape = np.dtype(dtypes[entry["dtype"]]), entry["shape"]
        start, stop = entry["data_offsets"]
        if not all(type(v) is int and v >= 0 for v in (*shape, start, stop)):
            raise ValueError(f"tensor {name!r} has a shape or place that is no number")
        count = math.prod(shape)
        if start != at or stop - start != count * dtype.itemsize or stop > len(content) - data:
            raise ValueError(f"tensor {name!r} does not lie where it should, or not whole")
        flat = np.frombuffer(content, dtype, count, data + start) if count else np.empty(0, dtype)
        tensors[name], at = flat.reshape(shape), stop
    if at != len(content) - data:
        raise ValueError(f"{len(content) - data - at} bytes follow its last tensor")
    return metadata, tensors


def _header(name: str, metadata: Mapping[str, str], format: str, versions: tuple[int, ...]) -> dict[str, Any]:
    text = metadata.get(KEY)
    if text is None:
        raise FormatError(f"{name} is not an annvq file: its metadata has no {KEY!r} entry")
    if metadata.get("crc32") != str(zlib.crc32(text.encode())):
        raise FormatError(f"{name} is corrupt: its header fails its checksum")
    try:
        header: Any = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise FormatError(f"{name} is corrupt: its header is no JSON: {e}") from None
    if not isinstance(header, dict) or header.get("format") != format:
        held = header.get("format") if isinstance(header, dict) else header
        raise FormatError(f"{name} holds {held!r}, expected {format!r}")
    version = header.get("version")
    if type(version) is not int or version not in versions:
        known = ", ".join(map(str, versions))
        raise FormatError(f"{name} has {format} version {version}; this annvq reads {known}")
    tensors = header.get("tensors")
    if not isinstance(header.get("config"), dict) or not isinstance(tensors, dict):
        raise FormatError(f"{name} is corrupt: its header lacks a config or a list of tensors")
    if not all(isinstance(t, dict) for t in tensors.values()):
        raise FormatError(f"{name} is corrupt: its list of tensors is not one")
    return header
