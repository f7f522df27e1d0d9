"""Joining index files into one that may be larger than memory: their codes are copied list by list, a few at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annvq import storage
from annvq.indexes.saved import built, read_index, registered
from annvq.indexes.stored import StoreIndex
from annvq.kernels.store import CodeStore
from annvq.types import I64, U8

SUPERBLOCK = 512  # rows
_ROWS = 1 << 21  # held at once, a multiple of SUPERBLOCK
_OWN = {"n", "next_id", "first_id"}  # what differs from part to part


class _Part(NamedTuple):
    """What a file holds of rows: superblocks, ids or the first of consecutive ones, and where lists begin and end."""

    codes: U8
    ids: I64 | int
    starts: I64  # (lists + 1,)
    relabel: U8 | None

    @classmethod
    def of(cls, stored: storage.Stored) -> "_Part":
        held, n = stored.tensors, stored.config["n"]
        sizes = held.get("list_sizes", np.array([n], np.int64))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        ids = held["ids"] if "ids" in held else stored.config["first_id"]
        return cls(held["codes"], ids, starts, held.get("relabel"))

    def pieces(self, first: int, last: int) -> Iterator[tuple[slice, I64]]:
        """Rows of the lists from ``first`` to ``last``, and the sizes of these; those of one alone in several pieces
        where they are many."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        if last - first > 1:
            yield slice(start, stop), np.diff(self.starts[first : last + 1])
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
    everything = [read_index(path, mmap=True, verify=True) for path in paths]
    read = [one for one in everything if one.config.get("n")]
    if not read:
        return None
    config, tensors = read[0].config, dict(read[0].tensors)
    kind = registered().get(config["kind"])
    if kind is None or not issubclass(kind, StoreIndex) or any(_how(one) != _how(read[0]) for one in read):
        return None
    if config.get("layout") != "blocks":
        return None
    alike: Any = built(config, tensors, str(paths[0]), mapped=True)
    parts = [_Part.of(one) for one in read]
    sizes: I64 = np.sum([np.diff(part.starts) for part in parts], axis=0)
    relabel = tensors.get("relabel")

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
    columns = len(tensors["codes"]) // config["n"]
    tensors["codes"] = np.asarray(np.memmap(codes, np.uint8, "r", shape=(n * columns,)))
    tensors["ids"] = np.asarray(np.memmap(ids, np.int64, "r", shape=(n,)))
    if len(sizes) > 1:
        tensors["list_sizes"] = sizes
    about = {name: value for name, value in config.items() if name != "first_id"}
    about |= {"n": n, "next_id": max(one.config["next_id"] for one in everything)}
    made: Any = built(about, tensors, str(stem), mapped=True)
    return made


def _how(stored: storage.Stored) -> dict[str, Any]:
    return {name: value for name, value in stored.config.items() if name not in _OWN}


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
    columns = len(part.codes) // int(part.starts[-1])
    blocks = part.codes[rows.start * columns : rows.stop * columns]
    ids = part.ids + rows.start if isinstance(part.ids, int) else part.ids[rows]
    codes, norms, ids, sizes = empty.filled_from_blocks(blocks, ids, counts, part.relabel).export()
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
