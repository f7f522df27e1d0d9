"""One shard, as a process holds it: an index over its file, brought up to date from the log."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.distributed.forms import Form, scanned, supported
from annvq.distributed.log import open_log, read_writes
from annvq.distributed.manifest import of_shard, read_manifest
from annvq.errors import FormatError
from annvq.indexes.contract import Index
from annvq.indexes.filters import Allowed
from annvq.indexes.rerank import RerankIndex
from annvq.threads import set_num_threads
from annvq.types import F32, I32, I64

_INT32 = np.iinfo(np.int32).max  # fewer bytes: Ray hands answers of more than 100,000 over by a slower way
_TRIES = 10  # a save may replace the files between reading their names and opening them


def loaded(path: Path, *, mmap: bool = False) -> Form:
    """The index in a file of the folder; FormatError where it is of no kind that can be sharded."""
    index = Index.load(path, mmap=mmap)
    try:
        return supported(index)
    except (TypeError, ValueError) as e:
        raise FormatError(f"{path} holds no index that is sharded: {e}") from None


def _narrow(found: tuple[F32, I64]) -> tuple[F32, I32 | I64]:
    """The same, ids in int32 where they fit."""
    distances, ids = found
    return distances, ids.astype(np.int32) if ids.max(initial=0) <= _INT32 else ids


class Position(NamedTuple):
    """Which writes are in: those of the log of a generation up to an offset, and all before that generation."""

    generation: int
    offset: int


class Shard:
    """A shard that answers as of the position that it is asked for, or a later one, which it tells.

    It holds nothing that is not in files: one that is killed and made anew is the same.

    Args:
        folder: of the sharded index.
        number: which of its shards this is.
        threads: of the kernels.
    """

    def __init__(self, folder: str, number: int, threads: int) -> None:
        set_num_threads(threads)
        self._folder, self._number = Path(folder), number
        self._index: Form | None = None
        self._log: Any = None
        self._at = Position(-1, 0)

    # -- what the driver asks ------------------------------------------------------------------------------------

    def find(
        self, position: Position, queries: F32, k: int, allowed: Allowed, nprobe: int | None
    ) -> tuple[Position, tuple[F32, I32 | I64]]:
        """The nearest of this shard: distances and ids (nq, at most k), see :meth:`StoreIndex.find`; ids in int32 where
        they fit."""
        index = self._following(position)
        return self._at, _narrow(scanned(index).find(queries, min(k, max(1, len(index))), allowed, nprobe))

    def rank(self, position: Position, queries: F32, ids: I64, k: int) -> tuple[Position, tuple[F32, I32 | I64]]:
        """The nearest by exact distance of ``ids`` (nq, s; −1 for none), as :meth:`find` gives what it finds."""
        index = self._following(position)
        assert isinstance(index, RerankIndex)
        return self._at, _narrow(index.refinement.rank(index.index, queries, ids, min(k, ids.shape[1])))

    def rank_all(
        self, position: Position, queries: F32, k: int, allowed: Allowed, probes: int | None
    ) -> tuple[Position, tuple[F32, I32 | I64]]:
        """The nearest by exact distance of all that so many lists hold, as :meth:`find` gives what it finds."""
        index = self._following(position)
        assert isinstance(index, RerankIndex)
        find, there = index.shortlisted(allowed, probes, None)
        return self._at, _narrow(find(queries, min(k, max(1, there()))))

    def contains(self, position: Position, ids: I64) -> tuple[Position, npt.NDArray[np.bool_]]:
        """Which of ``ids`` (n,) this shard has, bool (n,)."""
        index = self._following(position)
        return self._at, scanned(index).contains(ids)

    def ids(self, position: Position) -> tuple[Position, I64]:
        """The ids of this shard, ascending."""
        index = self._following(position)
        return self._at, index.ids

    def reconstruct(self, position: Position, ids: I64) -> tuple[Position, F32]:
        """Decoded vectors (n, d) of ``ids``; ValueError where one is not stored."""
        index = self._following(position)
        return self._at, index.reconstruct(ids)

    def save(self, position: Position, name: str) -> tuple[Position, None]:
        """Write the index to a file ``name`` in the folder."""
        index = self._following(position)
        index.save(self._folder / name)
        return self._at, None

    def process(self, position: Position) -> tuple[Position, int]:
        """The number of the process."""
        self._following(position)
        return self._at, os.getpid()

    # -- following the log ---------------------------------------------------------------------------------------

    def _following(self, position: Position) -> Form:
        index = self._index
        if index is None or self._at.generation < position.generation:
            index = self._loaded(position.generation)
        if self._at < position:
            self._index = None  # until all is well: a write that fails half way is read again from the start
            for end, write in read_writes(self._log, self._at.offset, position.offset):
                write.apply(index, of_shard(write.ids, self._number, self._shards))
                self._at = Position(self._at.generation, end)
        self._index = index
        return index

    def _loaded(self, wanted: int) -> Form:
        """The index of the shard's file, and its log opened, of the generation that the manifest names now."""
        for left in reversed(range(_TRIES)):
            manifest = read_manifest(self._folder)
            try:
                index = loaded(self._folder / manifest.shards[self._number], mmap=True)
                log = open_log(self._folder / manifest.log)
                break
            except FileNotFoundError:
                if not left:
                    raise
        if manifest.generation < wanted:
            raise FormatError(f"{self._folder} is not the index that its driver has opened")
        if self._log is not None:
            self._log.close()
        self._log, self._shards = log, len(manifest.shards)
        self._index, self._at = index, Position(manifest.generation, 0)
        return index
