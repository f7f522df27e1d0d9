"""The keys of a sharded index on disk: a file as of the last save, and the writes of the log since then."""

from pathlib import Path

import numpy as np

from annvq import storage
from annvq.distributed.log import Write
from annvq.distributed.manifest import new_name
from annvq.errors import FormatError
from annvq.indexes.keyed.keymap import KeyMap

FORMAT, VERSIONS = "annvq.keys", (1,)


def write_keys(folder: Path, keys: KeyMap) -> str:
    """Write keys to a new file of a folder; returns its name."""
    name = new_name("keys", ".annvq")
    storage.write(folder / name, FORMAT, VERSIONS[-1], *keys.to_stored())
    return name


def read_keys(path: Path, n: int) -> KeyMap:
    """The keys of ``n`` vectors, of a file.

    Raises:
        FileNotFoundError: there is none.
        FormatError: it holds no such keys.
    """
    stored = storage.read(path, FORMAT, VERSIONS)
    try:
        keys = KeyMap.from_stored(dict(stored.config), dict(stored.tensors), verify=False)
        if len(keys) != n:
            raise ValueError(f"they are {len(keys)} for {n} vectors")
    except (KeyError, TypeError, ValueError) as e:
        raise FormatError(f"{path} holds keys that do not fit: {e!r}") from None
    return keys


def follow(keys: KeyMap, write: Write, path: Path) -> None:
    """Do to keys what a write of the log ``path`` did; FormatError where it does not fit."""
    try:
        if write.op == "remove":
            keys.remove(write.ids)
        elif write.keys is None:
            raise ValueError("they have no keys")
        elif not np.array_equal(keys.assign_or_find(write.keys.unpacked())[0], write.ids):
            raise ValueError("their keys stand for other ids")
    except (KeyError, TypeError, ValueError) as e:
        raise FormatError(f"{path} holds vectors that do not fit their keys: {e!r}") from None
