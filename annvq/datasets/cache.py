"""The folder that holds downloaded sets and computed neighbours, and how files get into it safely."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from annvq.replacing import replacing

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger("annvq.datasets")


def data_dir() -> Path:
    """``$ANNVQ_DATA`` if set, else ``annvq`` in the user's cache folder.

    That is ``$XDG_CACHE_HOME`` or ``~/.cache``. The folder need not exist yet.
    """
    chosen = os.environ.get("ANNVQ_DATA")
    if chosen:
        return Path(chosen).expanduser()
    # The XDG specification says to ignore a relative path.
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "annvq"


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock ``path`` (a file, left in place): one holder among all processes and threads.

    The operating system frees it when its holder dies, so a crash leaves nothing to clean up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        if not _locked(file, wait=False):
            _log.warning("waiting for another process that holds %s", path)
            _locked(file, wait=True)
        yield


def _locked(file: BinaryIO, wait: bool) -> bool:
    """Whether an open file has been locked, which its being closed ends."""
    if sys.platform == "win32":
        while True:
            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(0.1)
    else:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` if the block succeeds; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        yield temporary
