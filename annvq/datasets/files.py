"""Files and folders of vectors: which suffix is read how. Everything that is read as plain vectors goes by here."""

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from annvq.arrays import dtype_name
from annvq.datasets import archives, hdf5, tables, vecs
from annvq.datasets.dataset import Vectors, as_vectors
from annvq.optional import needed_by
from annvq.rows import JoinedRows, NoVectorsError

Reader = Callable[[Path, str | None], Vectors]


def _alone(read: Callable[[Path], Vectors]) -> Reader:
    """A reader of files that hold one array, which has no name."""

    def only(path: Path, column: str | None) -> Vectors:
        if column is not None:
            raise ValueError(f"{path}: holds one array, which has no name, so none can be asked for; got {column!r}")
        return read(path)

    return only


READERS: Mapping[str, Reader] = {
    **dict.fromkeys((*vecs.VECTOR_SUFFIXES, ".npy"), _alone(vecs.read_vectors)),
    ".npz": archives.read_npz,
    ".safetensors": archives.read_safetensors,
    **dict.fromkeys(hdf5.SUFFIXES, hdf5.read_vectors),
    **dict.fromkeys(tables.PARQUET_SUFFIXES, tables.read_parquet),
    **dict.fromkeys(tables.ARROW_SUFFIXES, tables.read_arrow),
}
"""How the vectors in a file of each suffix are read."""

_OPEN = 64  # memory maps of shards
_ROLES = ("base", "query", "learn", "groundtruth")  # as files of a whole set are named


def split_column(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The path and the column of ``"embeddings.parquet:text"``; without a column, or where a file has that whole name,
    the path and None."""
    given = os.fspath(path)
    front, colon, column = given.rpartition(":")
    if not colon or not column or os.sep in column or os.path.exists(given):
        return Path(given), None
    suffixes = {Path(front).suffix.lower()} if front else set()
    return (Path(front), column) if suffixes & READERS.keys() or os.path.isdir(front) else (Path(given), None)


def plain(path: str | os.PathLike[str]) -> bool:
    """Whether this is the path of vectors alone, and of no data set: a file by its suffix and, where it is HDF5, by
    what it holds; a folder of shards; or a pattern that matches files."""
    where, column = split_column(path)
    if column is not None or _pattern(where):
        return True
    if where.is_dir():
        roles = [_role(p) for p in where.iterdir() if p.suffix.lower() in (*READERS, *vecs.ID_SUFFIXES)]
        return bool(roles) and not any(roles)
    if where.suffix.lower() in hdf5.SUFFIXES:
        with needed_by(f"reading {where.suffix} files"):
            return hdf5.vectors_alone(where)
    return where.suffix.lower() in READERS


def stated_metric(path: str | os.PathLike[str]) -> str | None:
    """The metric that a file of vectors or of a data set states; None where it says nothing, as most formats do."""
    where = split_column(path)[0]
    if where.suffix.lower() not in hdf5.SUFFIXES or not where.is_file():
        return None
    with needed_by(f"reading {where.suffix} files"):
        return hdf5.stated_metric(where)


def read_vectors(path: str | os.PathLike[str], column: str | None = None) -> Vectors:
    """Vectors (n, d) of a file, of a folder of shards in the order of their names, or of the files that a pattern
    matches, as :func:`annvq.datasets.load_vectors` says."""
    where, named = split_column(path)
    if named is not None and column is not None and named != column:
        raise ValueError(f"column must be given once, got {named!r} in {os.fspath(path)!r} and column={column!r}")
    column = named if column is None else column
    if where.is_dir():
        return _joined(_shards(where), column)
    if _pattern(where):
        found = [Path(p) for p in sorted(glob.glob(str(where), recursive=True))]
        if "**" in where.parts:  # matches folders beside what lies in them
            found = [p for p in found if not p.is_dir() and (where.name != "**" or _shard(p))]
        if not found:
            raise FileNotFoundError(f"no file matches {where}")
        return _joined(found, column)
    read = READERS.get(where.suffix.lower())
    if read is None:
        vecs.require_file(where)
        raise ValueError(f"{where}: expected a file ending in {', '.join(READERS)}")
    with needed_by(f"reading {where.suffix} files"):
        return as_vectors(read(where, column), str(where))


def _role(path: Path) -> str | None:
    """What a file is of a whole set, by its name: sift_base.fvecs; None where that says nothing."""
    role = path.stem.rpartition("_")[2]
    return role if role in _ROLES else None


def _pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


def _shard(path: Path) -> bool:
    """Whether a file in a folder of shards is one, by its name."""
    return path.suffix.lower() in READERS and not path.name.startswith((".", "_"))


def _shards(folder: Path) -> list[Path]:
    """The files of vectors in a folder, which are all of one format; where it holds a data set, those of the base.

    Raises:
        ValueError: there are none, or of several formats.
    """
    names = sorted(p for p in folder.iterdir() if _shard(p))
    if {"base", "query"} <= {_role(p) for p in names}:
        names = [p for p in names if _role(p) == "base"]
    suffixes = sorted({p.suffix.lower() for p in names})
    if len(suffixes) > 1:
        raise ValueError(
            f"{folder}: holds files of several formats ({', '.join(suffixes)}); "
            f"say which are meant, as {str(folder / '*') + suffixes[0]!r} does"
        )
    if not names:
        within = sorted(p.name for p in folder.iterdir() if p.is_dir() and any(map(_shard, p.glob("*"))))
        hint = f"; there are some in its folders {', '.join(within)}: name one of these" if within else ""
        raise ValueError(f"{folder}: no file in it that ends in {', '.join(READERS)}{hint}")
    return names


def _joined(paths: Sequence[Path], column: str | None) -> Vectors:
    """Shards one after another, without empty ones; ValueError naming the one that does not fit to the first."""
    held: list[Path] = []
    counts: list[int] = []
    first: Vectors | None = None
    for path in paths:
        try:
            x = read_vectors(path, column)
        except NoVectorsError:  # where rows were filtered or sorted into parts, some parts have none
            continue
        if first is None:
            first = x
        elif x.shape[1] != first.shape[1] or dtype_name(x) != dtype_name(first):
            wanted = f"{dtype_name(first)} of dimension {first.shape[1]}, as {held[0].name} has"
            raise ValueError(f"{path}: must hold {wanted}; got {dtype_name(x)} of dimension {x.shape[1]}")
        held.append(path)
        counts.append(len(x))
    if first is None:
        raise NoVectorsError(f"{paths[0]} is empty, and so are all {len(paths)} shards")
    return first if len(held) == 1 else Shards(held, column, counts, first)


class Shards(JoinedRows):
    """The vectors of several files, one after another. Files are opened when a row of theirs is asked for: of memory
    maps a few stay open, of others, which hold what they have read, the last one.

    Args:
        paths: the files.
        column: which of several in each.
        counts: vectors in each.
        first: those of the first file.
    """

    def __init__(self, paths: Sequence[Path], column: str | None, counts: Sequence[int], first: Vectors) -> None:
        super().__init__(counts, int(first.shape[1]), first.dtype)
        self._paths, self._column, self._counts = paths, column, counts
        self._opened = lru_cache(_OPEN if isinstance(first, np.memmap) else 1)(self._open)

    def _open(self, number: int) -> Vectors:
        x = read_vectors(self._paths[number], self._column)
        if len(x) != self._counts[number]:
            raise ValueError(f"{self._paths[number]}: had {self._counts[number]} vectors, and has {len(x)} now")
        return x

    def piece(self, number: int) -> Vectors:
        return self._opened(number)
