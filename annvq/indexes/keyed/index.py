"""Indexes that are asked by keys, which an id map beside any index turns into ids."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annvq import storage
from annvq.errors import FormatError
from annvq.forks import Lock
from annvq.indexes.contract import Index
from annvq.indexes.keyed.asked import AskedByKeys
from annvq.indexes.keyed.keymap import KeyMap
from annvq.indexes.keyed.kinds import Keys, key_list
from annvq.indexes.saved import Saved, built, read_index
from annvq.types import I64, Array, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

_PREFIX = "keys."


class KeyedIndex(AskedByKeys, Saved):
    """An index of any kind whose vectors are known by keys: str, bytes or :class:`uuid.UUID`.

    Keys stand for int64 ids of the index beneath, which are given in the order in which keys come. So results are
    ordered by distance, and where these are equal by when their keys came. The keys are kept in memory and saved in the
    index's file; :class:`~annvq.indexes.keyed.keymap.KeyMap` says what they take.

    Vectors may be added, replaced and removed while other threads search, as with the index beneath; such changes wait
    for one another. Whatever else that index has (``tune``, ``attach``, ``nprobe``, …) is asked of :attr:`index`.
    Vectors are added and removed here alone.

    Args:
        index: an index, trained or not. Where it holds vectors, as a large build does, ``keys`` are theirs.
        keys: a key for each vector that it holds, in the order of their ids.
        kind: ``"str"``, ``"bytes"`` or ``"uuid"``; default: that of the first keys.

    Raises:
        TypeError, ValueError: no index, another kind, or not one key for each vector.
    """

    index: Index

    def __init__(self, index: Index, keys: Keys = (), *, kind: str | None = None) -> None:
        if not isinstance(index, Index):
            raise TypeError(f"index must be an annvq index, got {type(index).__name__}")
        held = KeyMap(kind)
        given, n = key_list(keys), len(index)
        if len(given) != n:
            raise ValueError(f"keys must be one for each vector that index holds, {n}; got {len(given)}")
        held.assign(given, index.ids)
        self._set(index, held)

    def _set(self, index: Index, keys: KeyMap) -> None:
        self.index, self.keys = index, keys
        self._changing = Lock()

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def bits_per_vector(self) -> int:
        """Bits stored per vector to score it; keys are reported apart, like ids."""
        return self.index.bits_per_vector

    @property
    def key_bits_per_vector(self) -> int:
        """Bits that a key takes in memory, with what is reserved and kept about it; 0 while empty."""
        return -(-8 * self.keys.nbytes // len(self)) if len(self) else 0

    @property
    def ram_bits_per_vector(self) -> int:
        """Bits a vector takes in memory (or mapped), its key included."""
        return self.index.ram_bits_per_vector + self.key_bits_per_vector

    def facts(self) -> dict[str, Any]:
        """What the index is, as JSON holds it."""
        own = {"ram_bits_per_vector": self.ram_bits_per_vector, "key_bits_per_vector": self.key_bits_per_vector}
        return {**self.index.facts(), "keys": self.keys.kind, **own}

    # -- vectors -------------------------------------------------------------------------------------------------

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        """Train the index, see :meth:`Index.fit <annvq.indexes.contract.Index.fit>`."""
        self.index.fit(x, seed=seed, progress=progress, recipe=recipe)
        return self

    def add(self, x: Array, keys: Keys) -> Self:
        """Store ``x`` of shape (n, d) under ``keys`` (n,), each new.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: bad vectors; keys of another kind, that repeat or are there. Nothing has been added
                then.
        """
        named = self._named(x, keys, "add")
        with self._changing:
            self._put(self.index.add, x, self.keys.assign(named), len(named))
        return self

    def upsert(self, x: Array, keys: Keys) -> Self:
        """Store ``x`` of shape (n, d) under ``keys`` (n,), each once, in place of what has these keys.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: bad vectors or keys; an index that replaces no vectors. Nothing has changed then.
        """
        upsert = getattr(self.index, "upsert", None)
        if upsert is None:
            raise TypeError(f"{type(self.index).__name__} replaces no vectors: remove them and add others")
        named = self._named(x, keys, "upsert")
        with self._changing:
            self._put(upsert, x, *self.keys.assign_or_find(named))
        return self

    def _put(self, store: Callable[[Array, I64], Any], x: Array, ids: I64, new: int) -> None:
        """Store vectors under the ids of their keys, which are known by then, so that what is found has a key."""
        try:
            store(x, ids)
        except BaseException:
            self.keys.take_back(new)
            raise

    def remove(self, keys: Keys) -> int:
        """Forget the vectors of these keys. Returns how many.

        Raises:
            TypeError, ValueError: no keys of this kind; one that is not there or comes twice. Nothing has been removed
                then.
        """
        with self._changing:
            ids = self._known(keys)
            if len(np.unique(ids)) < len(ids):
                raise ValueError("keys must differ from one another")
            removed = self.index.remove(ids)
            self.keys.remove(ids)
        return removed

    def reset(self) -> Self:
        """Forget all vectors and their keys; what was learned stays."""
        with self._changing:
            self.index.reset()
            self.keys.reset()
        return self

    # -- files and copies ----------------------------------------------------------------------------------------

    def _file(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        with self._changing:
            header, tensors = self.index._file()
            config, own = self.keys.to_stored()
        return {**header, "keys": config}, {**tensors, **own}

    @staticmethod
    def load(source: storage.Source, *, mmap: bool = False, verify: bool = False) -> "KeyedIndex":
        """Read what :meth:`save` wrote, see :func:`load_index`.

        Raises:
            FormatError: an index without keys, too.
        """
        found = load_index(source, mmap=mmap, verify=verify)
        if not isinstance(found, KeyedIndex):
            raise FormatError(
                f"{storage.name_of(source)} holds an index without keys: KeyedIndex(index, keys) adds them"
            )
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        with self._changing:
            return _joined, (self.index.__reduce__(), *self.keys.to_stored())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with self._changing:
            copied = type(self).__new__(type(self))
            copied._set(copy.deepcopy(self.index, memo), KeyMap.from_stored(*self.keys.to_stored(), verify=False))
        return copied

    def __copy__(self) -> Self:
        return self.__deepcopy__({})


def _joined(index: tuple[Any, ...], config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> KeyedIndex:
    """The index of a pickle."""
    build, arguments = index[:2]
    made = KeyedIndex.__new__(KeyedIndex)
    made._set(build(*arguments), KeyMap.from_stored(config, dict(tensors), verify=False))
    return made


def load_index(source: storage.Source, *, mmap: bool = False, verify: bool = False) -> "Index | KeyedIndex":
    """Read an index written by :meth:`Index.save` or :meth:`KeyedIndex.save`.

    Args:
        source: a path, a file object opened in binary mode, or bytes (:meth:`Index.to_bytes`).
        mmap: of a path: leave codes and ids on disk and map them into memory, as large indexes want: opening takes
            milliseconds, pages are read when a search needs them, and processes share them. Codes of 8 bits are scanned
            where they lie; others, and codes with float32 norms, are unpacked into memory; keys are read into it. The
            file may be replaced or deleted meanwhile, but must not be truncated or written to.
        verify: check the checksums of mapped codes and ids too, which reads them all. Everything else in the file, and
            without ``mmap`` everything, is always checked.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not such a file, an unknown version, truncated or corrupt.
        TypeError: no such source.
        ValueError: ``mmap``, but no path.
    """
    stored, name = read_index(source, mmap=mmap, verify=verify), storage.name_of(source)
    config, tensors = dict(stored.config), stored.tensors
    about = config.pop("keys", None)
    if about is None:
        return built(config, tensors, name, mapped=mmap, verify=verify)
    own = {n: tensors.pop(n) for n in list(tensors) if n.startswith(_PREFIX)}
    index = built(config, tensors, name, mapped=mmap, verify=verify)
    try:
        keys = KeyMap.from_stored(about, own, verify=verify or not mmap)
        if len(keys) != len(index) or ((verify or not mmap) and not np.array_equal(keys.ids, index.ids)):
            raise ValueError(f"its {len(keys)} keys are not those of its {len(index)} vectors")
    except (KeyError, TypeError, ValueError) as e:
        raise FormatError(f"{name} holds keys that do not fit: {e!r}") from None
    if own:
        raise FormatError(f"{name} holds keys that do not fit: tensors {sorted(own)} are not part of them")
    made = KeyedIndex.__new__(KeyedIndex)
    made._set(index, keys)
    return made
