"""Joining index files into one that may be larger than memory: their codes are copied list by list, a few at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annvq import storage
from annvq.indexes.saved import built, read_index, registered
from annvq.indexes.stored import StoreIndex
from annvq.kernels.store import CodeStore
from annvq.types import I32, I64, U8

SUPERBLOCK = 512  # rows
_ROWS = 1 << 21  # held at once, a multiple of SUPERBLOCK
_OWN = {"n", "next_id", "first_id"}  # what differs from part to part


class _Part(NamedTuple):
    """A file, which is opened for each read, as there may be thousands: where its superblocks and its ids begin (or the
    first of consecutive ones), and where its lists begin and end."""

    path: Path
    columns: int  # bytes of a row
    codes_at: int
    ids_at: int | None
    first_id: int
    starts: I32  # (lists + 1,)
    relabel: U8 | None

    @classmethod
    def of(cls, path: Path, stored: storage.Stored) -> "_Part":
        held, n, at = stored.tensors, stored.config["n"], storage.offsets(path)
        sizes = held.get("list_sizes", np.array([n], np.int64))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]).astype(np.int32)
        columns, first = len(held["codes"]) // n, stored.config.get("first_id", 0)
        return cls(path, columns, at["codes"], at.get("ids"), first, starts, held.get("relabel"))

    def read(self, rows: slice) -> tuple[U8, I64 | int]:
        """Superblocks and ids of rows, whole superblocks of a list or whole lists."""
        n = rows.stop - rows.start
        at = self.codes_at + rows.start * self.columns
        codes = np.fromfile(self.path, np.uint8, n * self.columns, offset=at)
        if self.ids_at is None:
            return codes, self.first_id + rows.start
        return codes, np.fromfile(self.path, np.int64, n, offset=self.ids_at + 8 * rows.start)

    def pieces(self, first: int, last: int) -> Iterator[tuple[slice, I64]]:
        """Rows of the lists from ``first`` to ``last``, and the sizes of these; those of one alone in several pieces
        where they are many."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        if last - first > 1:
            yield slice(start, stop), np.diff(self.starts[first : last + 1]).astype(np.int64)
            return
        for at in range(start, stop, _ROWS):
            end = min(stop, at + _ROWS)
            yield slice(at, end), np.array([end - at], np.int64)


def files(stem: Path) -> tuple[Path, Path]:
    """What :func:`join` writes."""
    return stem.with_name(f"{stem.name}-codes.tmp"), stem.with_name(f"{stem.name}-ids.tmp")


def join(
    paths: Sequence[Path], stem: Path, shown: Callable[[Sequence[Any]], Iterable[Any]] = iter
) -> StoreIndex | None:
    """The index of all vectors of some index files, which were made of one trained index and share no ids: what
    :func:`~annvq.indexes.building.merge` of one after another gives, mapped from the :func:`files` of ``stem``. They
    may be removed once the index is saved.

    In memory are two million rows at a time, whatever there are.

    Args:
        paths: at least one; their checksums are verified.
        shown: goes through the steps of it, and may show how far it is.

    Returns:
        None where these are not indexes whose codes lie in superblocks, one way in all, or hold nothing: merge them.

    Raises:
        FormatError: a file is broken.
    """
    parts: list[_Part] = []
    config: dict[str, Any] = {}
    next_id = 0
    for path in paths:
        stored = read_index(path, mmap=True, verify=True)
        next_id = max(next_id, stored.config.get("next_id", 0))
        if not stored.config.get("n"):
            continue
        if not parts:
            config, tensors = stored.config, stored.tensors
            kind = registered().get(config["kind"])
            if kind is None or not issubclass(kind, StoreIndex) or config.get("layout") != "blocks":
                return None
            alike: Any = built(config, dict(tensors), str(path), mapped=True)
            sizes = np.zeros(len(tensors.get("list_sizes", [0])), np.int64)
        elif _how(stored.config) != _how(config):
            return None
        parts.append(_Part.of(path, stored))
        sizes += np.diff(parts[-1].starts)
    if not parts:
        return None
    relabel = parts[0].relabel

    def store(lists: int, order: U8 | None = relabel) -> CodeStore:
        return CodeStore(alike.coder.M, alike.coder.sizes, norm=alike.norm, lists=lists, relabel=order)

    codes, ids = files(stem)
    with open(codes, "wb") as to_codes, open(ids, "wb") as to_ids:

        def write(held: CodeStore) -> None:
            blocks, numbers, _ = held.export_blocks()
            to_codes.write(blocks.data)
            to_ids.write(numbers.data)

        for first, last in shown(_groups(sizes)):
            held = store(last - first)
            for part in parts:
                for rows, counts in part.pieces(first, last):
                    _copy(part, rows, counts, store(last - first, part.relabel), held)
                    if last - first == 1 and len(held) >= _ROWS:
                        held = _written(held, store, write)
            write(held)
    n = int(sizes.sum())
    mapped = {
        "codes": np.asarray(np.memmap(codes, np.uint8, "r", shape=(n * parts[0].columns,))),
        "ids": np.asarray(np.memmap(ids, np.int64, "r", shape=(n,))),
        **({"list_sizes": sizes} if len(sizes) > 1 else {}),
    }
    about = {**_how(config), "n": n, "next_id": next_id}
    made: Any = built(about, {**tensors, **mapped}, str(stem), mapped=True)
    return made


def _how(config: dict[str, Any]) -> dict[str, Any]:
    """What is the same of all parts."""
    return {name: value for name, value in config.items() if name not in _OWN}


def _groups(sizes: I64) -> list[tuple[int, int]]:
    """Lists from one to another, together no more rows than are held at once, or one list alone."""
    groups, first, rows = [], 0, 0
    for number, size in enumerate(sizes.tolist()):
        if rows and rows + size > _ROWS:
            groups.append((first, number))
            first, rows = number, 0
        rows += size
    return [*groups, (first, len(sizes))]


def _copy(part: _Part, rows: slice, counts: I64, empty: CodeStore, held: CodeStore) -> None:
    """Put rows of a part behind those that are held."""
    n = rows.stop - rows.start
    if not n:
        return
    blocks, numbers = part.read(rows)
    codes, norms, ids, sizes = empty.filled_from_blocks(blocks, numbers, counts, part.relabel).export()
    lists = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes) if len(sizes) > 1 else None
    held.append(codes, norms, ids, lists, known_new=True)


def _written(held: CodeStore, store: Callable[[int], CodeStore], write: Callable[[CodeStore], None]) -> CodeStore:
    """Write whole superblocks of one list; returns what is left."""
    codes, norms, ids, _ = held.export()
    whole = len(ids) // SUPERBLOCK * SUPERBLOCK
    full, rest = store(1), store(1)
    for into, rows in ((full, slice(0, whole)), (rest, slice(whole, None))):
        if len(ids[rows]):
            into.append(codes[rows], None if norms is None else norms[rows], ids[rows], known_new=True)
    write(full)
    return rest
