"""Which types keys may have, and what they are as bytes."""

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Keys: TypeAlias = Any
"""Keys of one type: a sequence of str, bytes or uuid.UUID, a NumPy array, a pandas or Arrow column of such."""

EXPECTED = "str, bytes or uuid.UUID"


class Kind(NamedTuple):
    """A type of keys."""

    type: type
    to_bytes: Callable[[Any], bytes]
    from_bytes: Callable[[bytes], Any]


# Text may hold halves of surrogate pairs, as names of files do: they come back as they were.
KINDS = {
    "str": Kind(str, lambda key: key.encode("utf-8", "surrogatepass"), lambda b: b.decode("utf-8", "surrogatepass")),
    "bytes": Kind(bytes, bytes, bytes),
    "uuid": Kind(uuid.UUID, lambda key: key.bytes, lambda b: uuid.UUID(bytes=b)),
}


def key_list(keys: Keys, n: int | None = None, name: str = "keys") -> list[Any]:
    """``keys`` as a list of ``n`` objects.

    Raises:
        TypeError: a single key, or nothing that has keys.
        ValueError: another number of them.
    """
    wanted = f"{'a sequence' if n is None else n} of {EXPECTED}"
    to_list = getattr(keys, "to_pylist", None) or getattr(keys, "tolist", None)
    if isinstance(keys, str | bytes | bytearray | uuid.UUID) or not (to_list or hasattr(keys, "__iter__")):
        raise TypeError(f"{name} must be {wanted}, got {keys!r:.60}")
    listed = to_list() if to_list else list(keys)
    if not isinstance(listed, list):  # of an array without dimensions
        raise ValueError(f"{name} must be {wanted}, got {listed!r:.60}")
    if n is not None and len(listed) != n:
        raise ValueError(f"{name} must be {wanted}, got {len(listed)}")
    return listed


def to_bytes(keys: list[Any], kind: str | None, name: str) -> tuple[str | None, list[bytes]]:
    """Keys as bytes, all of one ``kind`` (None: that of the first), and that kind; None where nothing says it.

    Raises:
        TypeError: keys of another type.
    """
    if kind is None and keys:
        kind = next((known for known, of in KINDS.items() if isinstance(keys[0], of.type)), None)
        if kind is None:
            raise TypeError(f"{name} must be {EXPECTED}, got {type(keys[0]).__name__} at place 0")
    if kind is None:
        return None, []
    wanted, encode, _ = KINDS[kind]
    for at, key in enumerate(keys):
        if not isinstance(key, wanted):
            raise TypeError(f"{name} must all be {wanted.__name__}, got {type(key).__name__} at place {at}")
    return kind, [encode(key) for key in keys]


def require_valid(kind: str | None, data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: Any) -> None:
    """Raise ValueError unless keys of this kind lie in ``data`` from ``starts`` (n,) to ``ends`` (n,), side by side."""
    if kind is None and len(ends):
        raise ValueError("its keys are of no kind")
    if kind == "uuid" and (ends - starts != 16).any():
        raise ValueError("its keys are no UUIDs")
    if kind == "str":
        data.tobytes().decode("utf-8", "surrogatepass")
        if ((data[starts[ends > starts]] & 0xC0) == 0x80).any():
            raise ValueError("its keys are cut within a character")


class PackedKeys(NamedTuple):
    """Keys of one kind as arrays, for files: ``data`` (bytes,) uint8, all in a row, and ``ends`` (n,) int64."""

    kind: str
    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, keys: list[Any]) -> "PackedKeys":
        """At least one key; TypeError unless they are of one kind."""
        kind, names = to_bytes(keys, None, "keys")
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return cls(str(kind), np.frombuffer(b"".join(names), np.uint8), ends)

    def unpacked(self) -> list[Any]:
        """The keys; KeyError or ValueError where these are none."""
        starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        require_valid(self.kind, self.data, starts, self.ends)
        data, make = self.data.tobytes(), KINDS[self.kind].from_bytes
        return [make(data[a:b]) for a, b in zip(starts.tolist(), self.ends.tolist(), strict=True)]
