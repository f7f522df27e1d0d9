"""The sharded index: one index in several processes, written to by one driver."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annvq.arrays import check_vectors, like, positive_int
from annvq.distributed.building import split
from annvq.distributed.calls import Asked, Replicas
from annvq.distributed.folder import Folder
from annvq.distributed.forms import Kept, encode
from annvq.distributed.log import Write
from annvq.distributed.manifest import shard_names
from annvq.distributed.reading import Asking, Reader
from annvq.distributed.shard import loaded
from annvq.errors import FormatError
from annvq.indexes.contract import Index
from annvq.indexes.filters import Filter
from annvq.indexes.ids import check_ids, following_ids, require_new
from annvq.indexes.rerank.index import RerankIndex, check_shortlist
from annvq.indexes.within import Within, as_queries_came, check_radius
from annvq.paths import check_path
from annvq.threads import usable_cores
from annvq.types import F32, I64, Array, Self

SAVE_SECONDS = 600.0


class Partial(NamedTuple):
    """What the shards that answered found.

    Attributes:
        distances, ids: as a search returns them, of these shards' vectors.
        missing: numbers of the shards that did not answer, with what was last heard of each; empty: it is all.
    """

    distances: Any
    ids: Any
    missing: dict[int, str]


class ShardedIndex:
    """A flat index or inverted lists in shards, re-ranked or not, each held by Ray actors; results are those of one
    process over the same vectors, bit for bit.

    Vectors may be added, replaced and removed while other threads search: a search sees all of such a call or nothing.
    A write that has returned is on disk: its codes have been appended to a log and flushed, before any shard sees it.
    Shards hold nothing that is not in files. One that dies is started anew and reads its file and the log.

    The folder must be one that the driver and all actors see: on one machine, or a shared file system with ``flock``.
    It is open in one process at a time.

    Args:
        folder: what :meth:`create` or :func:`annvq.distributed.build` made.
        replicas: actors for each shard, which take turns; many queries at once are dealt out to them.
        timeout: seconds for an answer, in which other replicas, and actors that were started anew, are asked too: of R
            replicas each has an R-th of it.
        threads: of each actor's kernels; default: this machine's cores, divided among shards.
        options: for Ray's ``Actor.options``: resources, placement. An actor claims no CPU unless they say so.

    Raises:
        BlockingIOError: another process (or object) has it open.
        FileNotFoundError: there is no sharded index.
        FormatError: its files are broken, or it has keys (:class:`~annvq.distributed.KeyedShardedIndex` opens it).
    """

    _has_keys = False

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        replicas: int = 1,
        timeout: float = 30.0,
        threads: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        count = positive_int(replicas, "replicas", high=64)
        self.timeout = _seconds(timeout)
        self.folder = Path(os.path.abspath(check_path(folder, "folder")))
        with contextlib.ExitStack() as opening:
            self._files = opening.enter_context(contextlib.closing(Folder(self.folder)))
            if (self._files.keys is not None) != self._has_keys:
                what, other = ("no keys", "ShardedIndex") if self._has_keys else ("keys", "KeyedShardedIndex")
                raise FormatError(f"{self.folder} holds an index with {what}: {other} opens it")
            empty = loaded(self.folder / self._files.manifest.trained)
            each = max(1, usable_cores() // self.shards) if threads is None else positive_int(threads, "threads")
            replicated = Replicas(str(self.folder), self.shards, count, each, options or {})
            opening.callback(replicated.close)
            self._empty, self._reader = empty, Reader(empty, replicated, self._files)
            self._open = opening.pop_all()

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], index: Index | Sequence[Index], shards: int = 2, **how: Any
    ) -> Self:
        """Deal the vectors of an index out to shards, and open them.

        Args:
            folder: is made where it is missing.
            index: a trained :class:`~annvq.FlatIndex`, :class:`~annvq.IVFIndex`, or :class:`~annvq.RerankIndex` that
                keeps what it re-ranks from, or several that were trained alike
                and share no ids.
            shards: how many; id i lies in shard i mod ``shards``.
            how: as for the constructor.

        Raises:
            TypeError, ValueError: not such indexes.
            FileExistsError: there is a sharded index in the folder.
        """
        split(folder, index, shards)
        return cls(folder, **how)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], **how: Any) -> Self:
        """Open a folder; the same as the constructor."""
        return cls(folder, **how)

    def close(self) -> None:
        """End the actors and let go of the folder, once writes of other threads are done. Nothing is lost: the log has
        what :meth:`save` has not folded in."""
        with self._reader.writing:
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- facts ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._files.state.n

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._empty.dim

    @property
    def metric(self) -> str:
        """``"l2"``, ``"ip"`` or ``"cosine"``."""
        return self._empty.metric

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._files.manifest.shards)

    @property
    def ids(self) -> I64:
        """The stored ids, ascending; they are gathered from all shards."""
        return self._reader.ids(Asking(self.timeout))

    def facts(self) -> dict[str, Any]:
        """What the index is, as JSON holds it."""
        unlike = ("vectors", "ram_bits_per_vector", "largest_list", "empty_lists", "id_bytes")
        held = {name: fact for name, fact in self._empty.facts().items() if name not in unlike}
        at = self._files.state.position
        own = {"vectors": len(self), "shards": self.shards, "generation": at.generation, "log_bytes": at.offset}
        return {**held, **own}

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError unless vectors can be encoded."""
        self._empty.require_fitted(what)

    # -- changes -------------------------------------------------------------------------------------------------

    def add(self, x: Array, ids: Array | None = None) -> Self:
        """Encode and store ``x`` of shape (n, d) under ``ids`` (int64, each new), by default the next numbers. When
        this returns, they are on disk.

        Raises:
            TypeError, ValueError: bad vectors or ids, as for every index.
            OSError: they could not be written.
            MissingShardError: with ``ids``: a shard cannot say whether it has them.
            In each case nothing has changed.
        """
        self.require_fitted("add")
        x = check_vectors(x, self.dim)
        n = int(x.shape[0])
        given = None if ids is None else check_ids(ids, n)
        if n:
            kept = self._encoded(x)
            with self._reader.writing:
                if given is not None:
                    require_new(given, self._reader.contains(given, Asking(self.timeout)))
                new = following_ids(self._files.state.next_id, n) if given is None else given
                self._write(Write("add", new, kept, n))
        return self

    def upsert(self, x: Array, ids: Array) -> Self:
        """Store ``x`` of shape (n, d) under ``ids`` (int64, each once), in place of what has these ids. When this
        returns, they are on disk. Raises as :meth:`add` does."""
        self.require_fitted("upsert")
        x = check_vectors(x, self.dim)
        given = check_ids(ids, int(x.shape[0]))
        require_new(given, np.zeros(len(given), np.bool_))
        if len(given):
            kept = self._encoded(x)
            with self._reader.writing:
                there = self._reader.contains(given, Asking(self.timeout))
                self._write(Write("upsert", given, kept, int((~there).sum())))
        return self

    def remove(self, ids: Array) -> int:
        """Forget the vectors of these ids. Returns how many; then that is on disk.

        Raises:
            ValueError: an id that is not there or comes twice.
            OSError, MissingShardError: as in :meth:`add`.
            In each case nothing has changed.
        """
        given = check_ids(ids, None)
        with self._reader.writing:
            if len(np.unique(given)) < len(given):
                raise ValueError("ids must be each once")
            missing = given[~self._reader.contains(given, Asking(self.timeout))]
            if len(missing):
                raise ValueError(f"ids must be stored; these are not: {missing[:5].tolist()}")
            if len(given):
                self._write(Write("remove", given, None, -len(given)))
        return len(given)

    def _encoded(self, x: Array) -> Kept:
        """What is kept of checked vectors, at least one."""
        return encode(self._empty, x, first=not len(self))

    def _write(self, write: Write) -> None:
        """Put a write on disk; call it while ``writing`` is held."""
        self._files.append(write)
        self._reader.replicas.tell(self._files.state.position)

    def save(self, timeout: float = SAVE_SECONDS) -> None:
        """Fold the log into files of the shards, which actors that start anew then read in its place. Searches go on
        meanwhile, writes wait.

        Raises:
            MissingShardError: a shard has not written its file within ``timeout`` seconds. The files are as they were.
            OSError: as in :meth:`add`.
        """
        seconds = _seconds(timeout)
        with self._reader.writing:
            position = self._files.state.position
            if not position.offset:
                return
            names = shard_names(self.shards)
            self._reader.replicas.ask("save", position, {Asked(i): (name,) for i, name in enumerate(names)}, seconds)
            self._files.fold(names)
            self._reader.replicas.tell(self._files.state.position)

    # -- searching -----------------------------------------------------------------------------------------------

    def search(
        self,
        queries: Array,
        k: int,
        *,
        shortlist: int | None = None,
        nprobe: int | None = None,
        filter: Filter = None,
        timeout: float | None = None,
        partial: bool = False,
    ) -> Any:
        """The ``k`` nearest stored vectors of each query, as one process would find them.

        Args:
            queries: (nq, d) vectors.
            k: neighbours per query.
            shortlist: of an index that re-ranks: how many results of the scan are ordered by exact distance; default as
                for :class:`~annvq.RerankIndex`, measured when first needed on all shards.
            nprobe: lists to scan, where there are lists; default as for :class:`~annvq.IVFIndex`.
            filter: the ids that may be returned; a function is called here, with the ids of all shards.
            timeout: seconds; default that of the index.
            partial: answer without shards that stay away for half of that time, and say which they are.

        Returns:
            distances (nq, k) float32 and ids (nq, k) int64, ordered by (distance, id), padded with +inf and −1; with
            ``partial`` a :class:`Partial`, which tells the missing shards too.

        Raises:
            MissingShardError: a shard stays away, and not ``partial``.
            TypeError, ValueError: as for every index.
        """
        q, k = self._empty.asked(queries, k)
        asking = Asking(self.timeout if timeout is None else _seconds(timeout), partial)
        if isinstance(self._empty, RerankIndex):
            depth = self._empty.depth(k, shortlist, len(self), self._ranks)
            allowed = self._reader.allowed(filter, asking)
            found = self._reader.ranked(q, k, depth, allowed, nprobe, asking)[1]
            distances, ids = (like(part, queries) for part in found)
        else:
            self._checked_shortlist(shortlist)
            found = self._reader.find(q, k, self._reader.allowed(filter, asking), nprobe, asking)
            distances, ids = self._empty.results(found, queries)
        return Partial(distances, ids, asking.missing) if partial else (distances, ids)

    def _ranks(self, queries: F32, depth: int, k: int) -> tuple[I64, I64]:
        """Shortlists of all shards and the nearest on them, by which the length of shortlists is measured."""
        listed, (_, nearest) = self._reader.ranked(queries, k, depth, None, None, Asking(self.timeout))
        return listed, nearest

    def search_within(
        self,
        queries: Array,
        radius: float,
        *,
        shortlist: int | None = None,
        nprobe: int | None = None,
        filter: Filter = None,
        timeout: float | None = None,
    ) -> Within:
        """All stored vectors whose distance to a query is at most ``radius``, as one process would find them; see
        :meth:`annvq.indexes.Index.search_within`, and :meth:`annvq.RerankIndex.search_within` for ``shortlist``. Raises
        as :meth:`search` does."""
        limit, q = check_radius(radius), self._empty.prepared(queries, "queries")
        given = self._checked_shortlist(shortlist)
        asking = Asking(self.timeout if timeout is None else _seconds(timeout))
        allowed = self._reader.allowed(filter, asking)
        return as_queries_came(self._reader.within(q, limit, allowed, nprobe, given, asking), queries)

    def _checked_shortlist(self, shortlist: int | None) -> int | None:
        if shortlist is not None and not isinstance(self._empty, RerankIndex):
            raise ValueError(f"shortlist must be None where nothing is re-ranked, got {shortlist!r}")
        return check_shortlist(shortlist)

    def reconstruct(self, ids: Array) -> Any:
        """Decoded vectors (n, d) of stored ids (of the normalised vectors under cosine).

        Raises:
            ValueError: an id that is not stored.
            MissingShardError: a shard stays away.
        """
        return like(self._reader.reconstruct(check_ids(ids, None), Asking(self.timeout)), ids)


def _seconds(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
    return float(timeout)
