"""Files that are replaced as a whole: readers see the old one or the new one, and what was there stays what it was."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annvq.paths import check_path, home_hint


def destination(path: str | os.PathLike[str]) -> Path:
    """The file that writing to ``path`` replaces: what a symbolic link leads to, or the path itself.

    Raises:
        IsADirectoryError: a folder.
        ValueError: no regular file: a pipe, a device, a socket.
        FileNotFoundError: there is no folder for it.
        OSError: symbolic links that lead in a circle, and whatever the system says.
    """
    name = check_path(path, "path")
    target = Path(os.path.realpath(name))
    try:
        found = target.stat()
    except FileNotFoundError:
        found = None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"cannot write {name}: it is a folder")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise ValueError(f"cannot write {name}: it is no regular file, and saving replaces what is there")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {name}: there is no folder {target.parent}{home_hint(name)}")
    return target


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary file that takes the place of :func:`destination` if the block succeeds, and is deleted
    otherwise. It gets that file's mode, and its owner and group as far as the system permits; a new file gets those of
    any new file.

    Raises:
        as :func:`destination`.
    """
    target = destination(path)
    # A part of the name: all of it and more could be longer than names may be.
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:32]}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # (Windows syncs only what may be written)
            os.fsync(file.fileno())
        _make_alike(temporary, target)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def move_to(made: Path, path: str | os.PathLike[str]) -> None:
    """Let the file ``made`` take the place of ``path``, as :func:`replacing` does."""
    target = destination(path)
    try:
        _make_alike(made, target)
        os.replace(made, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as temporary:  # a link led to another file system
            shutil.copyfile(made, temporary)
        made.unlink()


def _make_alike(made: Path, target: Path) -> None:
    """Give a new file mode, owner and group of the one that it replaces."""
    try:
        old = target.stat()
    except FileNotFoundError:
        os.chmod(made, 0o666 & ~_umask())
        return
    mode, new = stat.S_IMODE(old.st_mode) & 0o777, made.stat()
    if new.st_gid != old.st_gid and not _given(made, -1, old.st_gid):
        mode = mode & 0o707 | mode & (mode & 0o007) << 3  # another group may do no more than everybody
    if new.st_uid != old.st_uid:
        _given(made, old.st_uid, -1)
    os.chmod(made, mode)


def _given(made: Path, owner: int, group: int) -> bool:
    if not hasattr(os, "chown"):  # Windows
        return False
    try:
        os.chown(made, owner, group)
    except OSError:
        return False
    return True


def _umask() -> int:
    # Reading it means setting it, for all threads.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
