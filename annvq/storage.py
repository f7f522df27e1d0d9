"""Files: safetensors with a JSON header, written atomically, verified on load.

A file is one safetensors archive whose metadata holds one key, ``annvq``: JSON with ``format``, ``version``,
``config`` and, for every tensor, its dtype, shape and CRC-32. Nothing in it is ever executed.
"""

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.errors import FormatError

KEY = "annvq"


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


def write(
    path: str | os.PathLike[str],
    format: str,
    version: int,
    config: Mapping[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write a file atomically: readers see the old file or the new one, whole.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    from safetensors.numpy import save_file

    target = Path(path)
    arrays = {name: np.asarray(a, order="C") for name, a in tensors.items()}
    header = {
        "format": format,
        "version": version,
        "config": dict(config),
        "tensors": {name: _describe(a) for name, a in arrays.items()},
    }
    text = json.dumps(header, sort_keys=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        save_file(arrays, temporary, metadata={KEY: text, "crc32": str(zlib.crc32(text.encode()))})
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str], format: str, versions: tuple[int, ...]) -> Stored:
    """Read and verify a file written by :func:`write`.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not such a file, an unknown version, truncated or corrupt.
    """
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"no such file: {name}")
    try:
        with safe_open(name, framework="numpy") as f:
            header = _header(name, f.metadata() or {}, format, versions)
            keys = set(f.keys())
            if keys != set(header["tensors"]):
                raise FormatError(f"{name} is corrupt: its tensors are not the ones its header lists")
            tensors = {key: f.get_tensor(key) for key in keys}
    except SafetensorError as e:
        raise FormatError(f"{name} is not an annvq file, or truncated or corrupt: {e}") from None
    for key, array in tensors.items():
        if _describe(array) != header["tensors"][key]:
            raise FormatError(f"{name} is corrupt: tensor {key!r} fails its checksum")
    return Stored(format, header["version"], header["config"], tensors)


def _header(name: str, metadata: Mapping[str, str], format: str, versions: tuple[int, ...]) -> dict[str, Any]:
    text = metadata.get(KEY)
    if text is None:
        raise FormatError(f"{name} is not an annvq file: its metadata has no {KEY!r} entry")
    if metadata.get("crc32") != str(zlib.crc32(text.encode())):
        raise FormatError(f"{name} is corrupt: its header fails its checksum")
    header: dict[str, Any] = json.loads(text)
    if header.get("format") != format:
        raise FormatError(f"{name} holds {header.get('format')!r}, expected {format!r}")
    if header.get("version") not in versions:
        known = ", ".join(map(str, versions))
        raise FormatError(f"{name} has {format} version {header.get('version')}; this annvq reads {known}")
    return header
