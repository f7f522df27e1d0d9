"""A sharded index's folder as its driver has it open: manifest, log, and what is acknowledged."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from annvq.distributed.keys import follow, read_keys, write_keys
from annvq.distributed.log import Write, WriteLog, survived
from annvq.distributed.manifest import Manifest, new_name, only_writer, read_manifest
from annvq.distributed.shard import Position


class State(NamedTuple):
    """What is acknowledged; replaced as a whole."""

    position: Position
    n: int
    next_id: int


class Folder:
    """The folder, locked until :meth:`close`.

    Attributes:
        keys: of an index with keys, as of what is acknowledged; who appends a write changes them alike.

    Raises:
        BlockingIOError: another process (or object) has it open.
        FileNotFoundError: there is no sharded index.
        FormatError: its manifest or log is broken.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        self.path = path
        with contextlib.ExitStack() as opening:
            opening.enter_context(only_writer(path))
            self.manifest = read_manifest(path)
            self.manifest.remove_others(path)
            named, log = self.manifest.keys, path / self.manifest.log
            self.keys = None if named is None else read_keys(path / named, self.manifest.n)
            held = survived(log, lambda write: None if self.keys is None else follow(self.keys, write, log))
            self._log = WriteLog(log, held.end)
            self.state = State(
                Position(self.manifest.generation, held.end),
                self.manifest.n + held.grows,
                max(self.manifest.next_id, held.next_id),
            )
            self._lock = opening.pop_all()

    def append(self, write: Write) -> None:
        """Put a write on disk; see :meth:`WriteLog.append`."""
        position, n, next_id = self.state
        self._log.end = position.offset  # what lies behind was interrupted before anybody was told of it
        self._log.append(write)
        now = Position(position.generation, self._log.end)
        self.state = State(now, n + write.grows, max(next_id, write.next_id))

    def fold(self, shards: Sequence[str]) -> None:
        """Let the files ``shards``, which hold all that is acknowledged, take the place of the old ones and the log."""
        position, n, next_id = self.state
        generation = position.generation + 1
        keys = None if self.keys is None else write_keys(self.path, self.keys)
        log = WriteLog.made(self.path / new_name("log", ".log"))
        made = Manifest(generation, self.manifest.trained, tuple(shards), log.path.name, n, next_id, keys)
        self._log.close()  # from here on writes are refused, until it is known which of the two manifests is there
        try:
            made.commit(self.path)
        except BaseException:
            log.close()
            raise
        self.manifest, self.state, self._log = made, State(Position(generation, 0), n, next_id), log
        made.remove_others(self.path)

    def close(self) -> None:
        self._log.close()
        self._lock.close()
