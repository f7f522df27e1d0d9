"""The folder of a sharded index: which files it is made of, which shard has which id, and who may write.

``manifest.json`` names the files and is replaced atomically: what it does not name is not there. ``trained`` is the
index without vectors, ``shards`` are index files, ``log`` holds the writes since these were saved (see
:mod:`annvq.distributed.log`). Id i lies in shard i mod S.
"""

import contextlib
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annvq.errors import FormatError
from annvq.storage import write_text
from annvq.types import I64

FORMAT = "annvq.sharded"
VERSIONS = (1, 2)  # 2 where there are keys
NAME, LOCK = "manifest.json", "lock"
_OURS = re.compile(r"\.?(trained|shard|log|part|keys)-\S+\.(annvq|log|tmp)|\.manifest\S+\.tmp")


@dataclass(frozen=True)
class Manifest:
    """What the files of one generation are; each save makes the next.

    Attributes:
        generation: counts saves from 0.
        trained, shards, log: names of files in the folder.
        n: vectors in the shards' files.
        next_id: the first of the ids that ``add`` gives.
        keys: name of the file of keys, where there are any.
    """

    generation: int
    trained: str
    shards: tuple[str, ...]
    log: str
    n: int
    next_id: int
    keys: str | None = None

    def commit(self, folder: Path) -> None:
        """Make this the index in ``folder``; its files are there and flushed."""
        held = {name: value for name, value in asdict(self).items() if value is not None}
        version = VERSIONS[0] if self.keys is None else VERSIONS[1]
        write_text(folder / NAME, json.dumps({"format": FORMAT, "version": version, **held}, indent=1))

    def remove_others(self, folder: Path) -> None:
        """Delete files of such an index in ``folder`` that this does not name: of earlier saves, or of a failed one."""
        named = {self.trained, self.log, self.keys, *self.shards}
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``.

    Raises:
        FileNotFoundError: there is none.
        FormatError: it is no such file, or of another version.
    """
    path = folder / NAME
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        version = held.pop("version")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version!r}, this annvq reads {VERSIONS}")
        made = Manifest(**{**held, "shards": tuple(held["shards"])})
        names = [made.trained, made.log, *made.shards, *([] if made.keys is None else [made.keys])]
        if not made.shards or any(os.path.basename(name) != name for name in names):
            raise ValueError("it must name files of its own folder")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise FormatError(f"{path} is no manifest of a sharded index: {e}") from None
    return made


def new_name(what: str, suffix: str) -> str:
    """A file name that was never used, so that a process which was thought dead writes into nothing that counts."""
    return f"{what}-{uuid.uuid4().hex[:12]}{suffix}"


def shard_names(shards: int) -> list[str]:
    """New names for the files of all shards."""
    return [new_name(f"shard-{number:05d}", ".annvq") for number in range(shards)]


def of_shard(ids: I64, shard: int, shards: int) -> npt.NDArray[np.bool_]:
    """Which of ``ids`` (n,) lie in a shard, bool (n,)."""
    return ids % shards == shard


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. It ends with the process, however that ends.

    Raises:
        BlockingIOError: another has it.
    """
    path = folder / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "?"
            raise BlockingIOError(e.errno, f"{folder} is open already, in process {holder}: one at a time") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
