"""The write-ahead log of a sharded index: every write since the shards were last saved, in one file.

A record is a head (magic, length and CRC-32 of what follows, CRC-32 of these) and a small annvq archive with the codes,
ids and kind of one write. Only the driver appends, and flushes to disk before it says that a write is done. Shards read
the log and take their rows from it, each up to the offset that it is asked for, so a write is seen whole or not at all.
"""

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq import storage
from annvq.distributed.forms import Form, Kept, keep
from annvq.errors import FormatError
from annvq.indexes.coding import Encoded
from annvq.indexes.keyed.kinds import PackedKeys
from annvq.replacing import replacing
from annvq.types import I64

FORMAT, VERSIONS = "annvq.log", (1,)
_HEAD = struct.Struct("<4sQII")
_MAGIC = b"avqw"


def _head(data: bytes) -> bytes:
    fields = (_MAGIC, len(data), zlib.crc32(data))
    return _HEAD.pack(*fields, zlib.crc32(repr(fields).encode()))


def _fields(head: bytes) -> tuple[int, int] | None:
    """Length and checksum of a record; None where this is no head of one."""
    if len(head) < _HEAD.size:
        return None
    *fields, crc = _HEAD.unpack(head)
    if fields[0] != _MAGIC or zlib.crc32(repr(tuple(fields)).encode()) != crc:
        return None
    return fields[1], fields[2]


class Write(NamedTuple):
    """One write: ``op`` is ``"add"``, ``"upsert"`` or ``"remove"``."""

    op: str
    ids: I64  # (n,)
    kept: Kept | None  # of n vectors; None for a removal
    grows: int
    """How many vectors more there are after it."""
    keys: PackedKeys | None = None
    """Of an index with keys: those of the n vectors; None for a removal."""

    @property
    def next_id(self) -> int:
        """One more than the largest id that it stores, 0 if none."""
        return 0 if self.kept is None else int(self.ids.max(initial=-1)) + 1

    def to_bytes(self) -> bytes:
        tensors: dict[str, npt.NDArray[Any]] = {"ids": self.ids}
        if self.kept is not None:
            parts = {**self.kept.encoded._asdict(), "refine": self.kept.rows}
            tensors |= {name: part for name, part in parts.items() if part is not None}
        about: dict[str, Any] = {"op": self.op, "grows": self.grows}
        if self.keys is not None:
            about["keys"] = self.keys.kind
            tensors |= {"keys.bytes": self.keys.data, "keys.ends": self.keys.ends}
        file = io.BytesIO()
        storage.write(file, FORMAT, VERSIONS[-1], about, tensors)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Write":
        stored = storage.read(data, FORMAT, VERSIONS)
        held = stored.tensors
        kept = None
        if "codes" in held:
            kept = Kept(Encoded(held["codes"], held.get("norms"), held.get("lists")), held.get("refine"))
        about, keys = stored.config, None
        if "keys" in about:
            keys = PackedKeys(about["keys"], held["keys.bytes"], held["keys.ends"])
        return cls(about["op"], held["ids"], kept, about["grows"], keys)

    def apply(self, index: Form, mine: npt.NDArray[np.bool_]) -> None:
        """Do to ``index`` what concerns the ids ``mine`` (n,)."""
        if not mine.any():
            return
        ids = self.ids[mine]
        if self.kept is None:
            index.remove(ids)
        else:
            keep(index, self.kept.some(mine), ids, replace=self.op == "upsert")


def read_writes(file: io.FileIO, start: int, stop: int) -> Iterator[tuple[int, Write]]:
    """The writes between two offsets, each with the offset where it ends.

    Raises:
        FormatError: a record is not whole.
    """
    while start < stop:
        file.seek(start)
        fields = _fields(_read(file, _HEAD.size))
        if fields is None or start + _HEAD.size + fields[0] > stop:
            raise FormatError(f"{file.name} is truncated or corrupt at {start}")
        length, crc = fields
        data = _read(file, length)
        if len(data) < length or zlib.crc32(data) != crc:
            raise FormatError(f"{file.name} is corrupt at {start}: the record fails its checksum")
        start += _HEAD.size + length
        yield start, Write.from_bytes(data)


def open_log(path: Path) -> io.FileIO:
    """A log to read writes from, without a buffer: what lies behind the last write may change."""
    return open(path, "rb", buffering=0)


def _read(file: io.FileIO, size: int) -> bytes:
    """So many bytes, fewer at the end of the file."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class WriteLog:
    """The log as the driver has it, open for appending.

    Attributes:
        end: the offset behind the last write that is on disk.
    """

    def __init__(self, path: Path, end: int) -> None:
        self.path, self.end = path, end
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, end)

    @classmethod
    def made(cls, path: Path) -> "WriteLog":
        """A new, empty log."""
        with replacing(path):
            pass
        return cls(path, 0)

    def append(self, write: Write) -> None:
        """Put a write behind the others and flush it to disk.

        Raises:
            OSError: the disk is full, or fails; the write has not happened. Where what is on disk cannot be known,
                because it could not be flushed, further writes are refused.
        """
        data = write.to_bytes()
        record = _head(data) + data
        if self._descriptor is None:
            raise OSError(f"{self.path} failed before, or is closed: open the index anew")
        try:
            os.ftruncate(self._descriptor, self.end)  # a write that was stopped half way may have been longer
            at = self.end
            for part in range(0, len(record), 1 << 26):
                piece = record[part : part + (1 << 26)]
                while piece:
                    done = os.pwrite(self._descriptor, piece, at)
                    at, piece = at + done, piece[done:]
        except OSError:
            with contextlib.suppress(OSError):  # (else the next write does it, or fails)
                os.ftruncate(self._descriptor, self.end)
            raise
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.close()
            raise
        self.end = at

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Survived(NamedTuple):
    """What a log holds: the offset behind its last whole record, by how many vectors its writes grow the index, and one
    more than the largest id stored by them, 0 if none was."""

    end: int
    grows: int
    next_id: int


def survived(path: Path, follow: Callable[[Write], None] = lambda _: None) -> Survived:
    """Read a log whose writer may have been stopped in the middle of a record; ``follow`` is given each write.

    Raises:
        FileNotFoundError: there is none.
        FormatError: what is broken is not the last record, which nobody was told is there.
    """
    size = path.stat().st_size
    held = Survived(0, 0, 0)
    with open_log(path) as file:
        while held.end < size:
            try:
                end, write = next(read_writes(file, held.end, size))
            except FormatError:
                if not _unfinished(file, held.end, size):
                    raise
                break
            follow(write)
            held = Survived(end, held.grows + write.grows, max(held.next_id, write.next_id))
    return held


def _unfinished(file: io.FileIO, at: int, size: int) -> bool:
    """Whether a broken record is one that was being written: it reaches to the end of the file, or it is all zeros (the
    file had grown, and its blocks were not written yet)."""
    file.seek(at)
    head = _read(file, _HEAD.size)
    if len(head) < _HEAD.size:
        return True
    fields = _fields(head)
    if fields is not None:
        return at + _HEAD.size + fields[0] >= size
    rest = [head, *iter(lambda: file.read(1 << 20), b"")]
    return not any(any(part) for part in rest)
