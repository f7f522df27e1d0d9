"""The folder that holds downloaded sets and computed neighbours, and how files get into it safely."""

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for another process that holds %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    # Reading it means setting it; mkstemp's 0600 would keep a shared cache to one user.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
