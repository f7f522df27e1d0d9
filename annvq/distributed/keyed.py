"""The sharded index that is asked by keys: these are the driver's, and in the log with the vectors that they name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from annvq.arrays import check_vectors
from annvq.distributed.building import split
from annvq.distributed.index import SAVE_SECONDS, Partial, ShardedIndex
from annvq.distributed.log import Write
from annvq.indexes.keyed.asked import AskedByKeys, KeyFilter
from annvq.indexes.keyed.index import KeyedIndex
from annvq.indexes.keyed.kinds import Keys, PackedKeys
from annvq.types import Array, Self


class _Shards(ShardedIndex):
    """The shards beneath keys."""

    _has_keys = True

    def add(self, x: Array, ids: Array | None = None) -> NoReturn:
        raise TypeError("vectors have keys here: add, upsert and remove them by the KeyedShardedIndex")

    def upsert(self, x: Array, ids: Array) -> NoReturn:
        self.add(x)

    def remove(self, ids: Array) -> NoReturn:
        self.add(ids)


class KeyedShardedIndex(AskedByKeys):
    """A :class:`ShardedIndex` whose vectors are known by keys: str, bytes or :class:`uuid.UUID`. Results are those of a
    :class:`~annvq.KeyedIndex` in one process, bit for bit.

    All that is said of :class:`ShardedIndex` holds: a write is on disk when it returns, its keys in the same record of
    the log as its codes, so that both are there or neither. The keys are in the memory of this process, as
    :class:`~annvq.indexes.keyed.keymap.KeyMap` says, and not in the actors'.

    Args:
        folder: what :meth:`create`, or :func:`annvq.distributed.build` with keys, made.
        how: as for :class:`ShardedIndex`.

    Raises:
        BlockingIOError, FileNotFoundError, FormatError: as for :class:`ShardedIndex`; FormatError too where there
            are no keys.
    """

    index: ShardedIndex

    def __init__(self, folder: str | os.PathLike[str], **how: Any) -> None:
        self.index = _Shards(folder, **how)
        keys = self.index._files.keys
        assert keys is not None  # _Shards has seen to that
        self.keys = keys

    @classmethod
    def create(cls, folder: str | os.PathLike[str], index: KeyedIndex, shards: int = 2, **how: Any) -> Self:
        """Deal the vectors of an index out to shards, and open them.

        Args:
            folder, shards, how: as for :meth:`ShardedIndex.create`.
            index: a trained one, over what :meth:`ShardedIndex.create` takes.

        Raises:
            TypeError, ValueError, FileExistsError: as there.
        """
        if not isinstance(index, KeyedIndex):
            raise TypeError(f"index must be a KeyedIndex, got {type(index).__name__}")
        split(folder, index.index, shards, index.keys)
        return cls(folder, **how)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], **how: Any) -> Self:
        """Open a folder; the same as the constructor."""
        return cls(folder, **how)

    def close(self) -> None:
        """See :meth:`ShardedIndex.close`."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.index.folder

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self.index.shards

    def facts(self) -> dict[str, Any]:
        """What the index is, as JSON holds it."""
        return {**self.index.facts(), "keys": self.keys.kind, "key_bytes": self.keys.nbytes}

    # -- changes -------------------------------------------------------------------------------------------------

    def add(self, x: Array, keys: Keys) -> Self:
        """Encode and store ``x`` of shape (n, d) under ``keys`` (n,), each new. When this returns, they are on disk.

        Raises:
            NotFittedError, TypeError, ValueError: as for :class:`~annvq.KeyedIndex`.
            OSError: they could not be written.
            In each case nothing has changed.
        """
        return self._stored("add", x, keys, lambda named: (ids := self.keys.assign(named), len(ids)))

    def upsert(self, x: Array, keys: Keys) -> Self:
        """Store ``x`` of shape (n, d) under ``keys`` (n,), each once, in place of what has these keys. When this
        returns, they are on disk. Raises as :meth:`add` does."""
        return self._stored("upsert", x, keys, self.keys.assign_or_find)

    def _stored(self, op: str, x: Array, keys: Keys, assign: Callable[[list[Any]], Any]) -> Self:
        """Store vectors under the ids that ``assign`` gives, with how many of them are new."""
        named = self._named(x, keys, op)
        if named:
            packed = PackedKeys.of(named)
            kept = self.index._encoded(check_vectors(x, self.dim))
            with self.index._reader.writing:
                before = self.index._files.state
                ids, new = assign(named)  # before others can find them, so that what is found has a key
                try:
                    self.index._write(Write(op, ids, kept, new, packed))
                except BaseException:
                    if self.index._files.state is before:
                        self.keys.take_back(new)
                    raise
        return self

    def remove(self, keys: Keys) -> int:
        """Forget the vectors of these keys. Returns how many; then that is on disk.

        Raises:
            TypeError, ValueError: no keys of this kind; one that is not there or comes twice.
            OSError: as in :meth:`add`.
            In each case nothing has changed.
        """
        with self.index._reader.writing:
            ids = self._known(keys)
            if len(np.unique(ids)) < len(ids):
                raise ValueError("keys must differ from one another")
            if len(ids):
                before = self.index._files.state
                try:
                    self.index._write(Write("remove", ids, None, -len(ids)))
                finally:
                    if self.index._files.state is not before:
                        self.keys.remove(ids)
        return len(ids)

    def save(self, timeout: float = SAVE_SECONDS) -> None:
        """See :meth:`ShardedIndex.save`; the keys are written with the shards."""
        self.index.save(timeout)

    # -- searching -----------------------------------------------------------------------------------------------

    def search(
        self, queries: Array, k: int, *, filter: KeyFilter = None, partial: bool = False, **settings: Any
    ) -> Any:
        """The ``k`` nearest stored vectors of each query, as one process would find them.

        Args:
            queries, k, partial, settings: as for :meth:`ShardedIndex.search`.
            filter: the keys that may be returned, see :data:`~annvq.indexes.keyed.asked.KeyFilter`.

        Returns:
            distances (nq, k) float32 and keys (nq, k), a NumPy array of objects; places that stay empty hold +inf and
            None. With ``partial`` a :class:`Partial`, whose ``ids`` are keys.

        Raises:
            MissingShardError, TypeError, ValueError: as there.
        """
        missing: dict[int, str] = {}

        def find(allowed: Any) -> tuple[Any, Any]:
            found = self.index.search(queries, k, filter=allowed, partial=True, **settings)
            missing.clear()
            missing.update(found.missing)
            return found.distances, found.ids

        if not partial:
            return super().search(queries, k, filter=filter, **settings)
        distances, keys = self._found(find, filter)
        return Partial(distances, keys, missing)
