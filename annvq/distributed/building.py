"""Making a sharded index: dealing out the vectors of indexes, or encoding vectors in Ray tasks."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from annvq.arrays import check_vectors, positive_int
from annvq.datasets.files import read_vectors
from annvq.distributed.forms import Form, Source, keep, scanned, supported
from annvq.distributed.keys import write_keys
from annvq.distributed.log import WriteLog
from annvq.distributed.manifest import NAME, Manifest, new_name, of_shard, only_writer, shard_names
from annvq.distributed.shard import loaded
from annvq.errors import NotFittedError
from annvq.indexes.building import CHUNK_BYTES, merge
from annvq.indexes.contract import Index
from annvq.indexes.joining import files, join
from annvq.indexes.keyed.keymap import KeyMap
from annvq.indexes.keyed.kinds import Keys, key_list
from annvq.paths import check_path
from annvq.types import Array

MAX_SHARDS = 1 << 12
_LEARN_ROWS = 1 << 18


def split(
    folder: str | os.PathLike[str], sources: Index | Sequence[Index], shards: int, keys: KeyMap | None = None
) -> None:
    """Make a sharded index of one index, or of several that were trained alike and share no ids; with ``keys`` for
    their ids, if these are given.

    Raises:
        TypeError, ValueError: not such indexes, or shards beyond 4096; nothing was written then.
        FileExistsError: there is a sharded index in the folder.
    """
    where = Path(check_path(folder, "folder"))
    given = [supported(index) for index in (sources if isinstance(sources, Sequence) else [sources])]
    if not given:
        raise ValueError("index must be an index or several, got an empty sequence")
    count = positive_int(shards, "shards", high=MAX_SHARDS)
    prints = {index.fingerprint() for index in given}
    if len(prints) > 1:
        raise ValueError("indexes must have the same codebooks, centroids and settings")
    ids = np.sort(np.concatenate([index.ids for index in given]))
    if (ids[1:] == ids[:-1]).any():
        raise ValueError(f"indexes must share no ids; both have {ids[1:][ids[1:] == ids[:-1]][:5].tolist()}")
    if keys is not None and not np.array_equal(keys.ids, ids):
        raise ValueError("index must have one key for each vector, and not be written to meanwhile")

    def write(where: Path, trained: str) -> list[str]:
        names = shard_names(count)
        _deal([Source(index) for index in given], where, trained, names)
        return names

    _make(where, given[0], write, len(ids), max(_next_id(index) for index in given), keys)


def build(
    folder: str | os.PathLike[str],
    index: Form,
    base: Array | str | os.PathLike[str],
    *,
    shards: int,
    keys: Keys | None = None,
    learn: Array | None = None,
    seed: int = 0,
    chunk_rows: int | None = None,
    tasks: int = 4,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Train an index once, encode vectors in Ray tasks, write shards, and commit their manifest.

    A build that fails leaves no index behind; files of it are removed when the next one begins.

    Args:
        folder: of the sharded index; it is made where it is missing.
        index: empty; what is untrained is trained here.
        base: (n, d); ids are row numbers. Of a path, as :func:`annvq.datasets.load_vectors` takes it, each task reads
            its own rows; parts of an array are sent to them.
        shards: how many.
        keys: (n,), str, bytes or UUIDs, for an index that is asked by keys
            (:class:`~annvq.distributed.KeyedShardedIndex`); default: it is asked by ids.
        learn: (m, d), to train on; default: a sample of at most 262,144 rows of ``base``.
        seed: of training and of the sample.
        chunk_rows: vectors of a task; default 64 MiB of them in float32.
        tasks: how many may be under way; each holds one chunk with what encoding takes.
        options: for Ray's ``RemoteFunction.options``: resources, retries.

    Raises:
        TypeError, ValueError: not such an index or vectors.
        FileExistsError: there is a sharded index in the folder.
    """
    supported(index)
    _require_none(Path(check_path(folder, "folder")))  # before anything is learned
    if len(index):
        raise ValueError(f"index must be empty, it holds {len(index)} vectors")
    count = positive_int(shards, "shards", high=MAX_SHARDS)
    most = positive_int(tasks, "tasks")
    path = os.path.abspath(base) if isinstance(base, str | os.PathLike) else None
    vectors = check_vectors(base if path is None else read_vectors(path), index.dim, "base")
    n = int(vectors.shape[0])
    rows = max(1, CHUNK_BYTES // (4 * index.dim)) if chunk_rows is None else positive_int(chunk_rows, "chunk_rows")
    named = None if keys is None else KeyMap()
    if named is not None:
        named.assign(key_list(keys, n))
    _train(index, vectors, learn, seed)
    encode, join = (ray.remote(task).options(**(options or {})) for task in (_encode, _join))

    def write(where: Path, trained: str) -> list[str]:
        starts = range(0, n, rows)
        parts = [[new_name("part", ".annvq") for _ in range(count)] for _ in starts]
        encoding = (
            encode.remote(
                str(where), trained, vectors[a : min(n, a + rows)] if path is None else path, a, min(n, a + rows), names
            )
            for a, names in zip(starts, parts, strict=True)
        )
        _few_at_once(encoding, most)
        names = shard_names(count)
        joining = (
            join.remote(str(where), trained, [part[number] for part in parts], name)
            for number, name in enumerate(names)
        )
        _few_at_once(joining, most)
        return names

    _make(Path(folder), index, write, n, n, named)


# -- tasks: they write files under names that are given, and may be done twice ---------------------------------------


def _encode(folder: str, trained: str, source: Any, start: int, stop: int, names: Sequence[str]) -> None:
    """Encode rows of ``source``, a path or those rows, and write those of each shard."""
    where = Path(folder)
    rows = read_vectors(source)[start:stop] if isinstance(source, str) else source
    whole = loaded(where / trained)
    try:
        whole.add(rows, np.arange(start, stop, dtype=np.int64))
    except ValueError as e:
        raise ValueError(f"base[{start}:{stop}] cannot be encoded: {e}") from None
    _deal([Source(whole)], where, trained, names)


def _join(folder: str, trained: str, parts: Sequence[str], name: str) -> None:
    """Write a shard of its parts."""
    where = Path(folder)
    paths, stem = [where / part for part in parts], where / new_name("part", "")
    shard: Form | None = join(paths, stem)
    if shard is None:
        shard = loaded(where / trained)
        for path in paths:
            merge(shard, loaded(path))
    shard.save(where / name)
    del shard  # which is mapped from what is removed
    for path in files(stem):
        path.unlink(missing_ok=True)


def _few_at_once(calls: Iterator[Any], most: int) -> None:
    """Start calls, each when fewer than ``most`` are under way, and wait for all; raises what one of them raises, once
    none is under way."""
    under_way: list[Any] = []
    try:
        for ref in calls:
            under_way.append(ref)
            if len(under_way) >= most:
                done, under_way = ray.wait(under_way, num_returns=1)
                ray.get(done)
        ray.get(under_way)
    except RayTaskError as e:
        if under_way:
            ray.wait(under_way, num_returns=len(under_way))
        raise e.cause if isinstance(e.cause, Exception) else e from None


# -- files -----------------------------------------------------------------------------------------------------------


def _make(
    folder: Path, index: Form, write: Callable[[Path, str], list[str]], n: int, next_id: int, keys: KeyMap | None
) -> None:
    """Commit a new index: ``write`` is given the folder and the name of the file of the trained index, and returns
    names of its shards."""
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        _require_none(folder)
        Manifest(0, "", (), "", 0, 0).remove_others(folder)
        trained, log = new_name("trained", ".annvq"), new_name("log", ".log")
        _emptied(index).save(folder / trained)
        names = write(folder, trained)
        WriteLog.made(folder / log).close()
        named = None if keys is None else write_keys(folder, keys)
        made = Manifest(0, trained, tuple(names), log, n, next_id, named)
        made.commit(folder)
        made.remove_others(folder)


def _require_none(folder: Path) -> None:
    if (folder / NAME).exists():
        raise FileExistsError(f"{folder} holds a sharded index")


def _emptied(index: Form) -> Form:
    """A copy without vectors, which codes as all shards will."""
    copy: Form = _copied(index).reset()
    if copy.metric == "cosine":  # the length of codes may only be chosen when something is encoded
        scanned(copy).encoded(np.eye(1, copy.dim, dtype=np.float32), first=False)
    return copy


def _copied(index: Form) -> Form:
    build, arguments = index.__reduce__()
    copy: Form = build(*arguments)
    return copy


def _train(index: Form, vectors: Array, learn: Array | None, seed: int) -> None:
    if learn is not None:
        index.fit(learn, seed=seed)
        return
    try:
        index.require_fitted("build")
    except NotFittedError:
        n = int(vectors.shape[0])
        rows = np.arange(n) if n <= _LEARN_ROWS else np.unique(np.random.default_rng(seed).integers(0, n, _LEARN_ROWS))
        index.fit(vectors[rows], seed=seed)


def _deal(sources: Sequence[Source], folder: Path, trained: str, names: Sequence[str]) -> None:
    """Write files ``names`` of shards, each with what it has of the vectors of indexes."""
    for number, name in enumerate(names):
        shard = loaded(folder / trained)
        for source in sources:
            mine = of_shard(source.ids, number, len(names))
            if mine.any():
                keep(shard, source.some(mine), source.ids[mine])
        shard.save(folder / name)


def _next_id(index: Form) -> int:
    """The first id that ``add`` would give to vectors that come without."""
    return int(scanned(index).next_ids(1)[0])
