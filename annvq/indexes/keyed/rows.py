"""Byte strings with ids, side by side in arrays, and found by a hash."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.types import I64, U8


class _Column:
    """An array (n,) that grows at its end, by a quarter at a time."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._held, self.n = values, len(values)

    @property
    def values(self) -> npt.NDArray[Any]:
        return self._held[: self.n]

    def extend(self, more: npt.NDArray[Any]) -> None:
        end = self.n + len(more)
        if end > len(self._held):
            grown = np.empty(max(end, self.n + self.n // 4 + 16), self._held.dtype)
            grown[: self.n] = self.values
            self._held = grown
        self._held[self.n : end] = more
        self.n = end

    @property
    def nbytes(self) -> int:
        return int(self._held.nbytes)


class _Hashes:
    """Which rows have a hash: runs of sorted hashes, each less than half as long as the one before."""

    def __init__(self) -> None:
        self.runs: list[tuple[I64, npt.NDArray[Any]]] = []

    def add(self, hashes: I64, first: int) -> None:
        """Rows ``first``, ``first`` + 1, … have these hashes (n,)."""
        last = first + len(hashes)
        rows = np.arange(first, last, dtype=np.uint32 if last <= 1 << 32 else np.int64)
        while self.runs and len(self.runs[-1][0]) < 2 * len(hashes):
            before, theirs = self.runs.pop()
            hashes, rows = np.concatenate([before, hashes]), np.concatenate([theirs, rows])
        order = np.argsort(hashes, kind="stable")
        self.runs.append((hashes[order], rows[order]))

    def having(self, hashes: I64) -> tuple[I64, I64]:
        """All pairs such that row ``rows[j]`` has the hash ``hashes[places[j]]``: places (m,) and rows (m,)."""
        places, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for theirs, rows in self.runs:
            low = np.searchsorted(theirs, hashes, "left")
            counts = np.searchsorted(theirs, hashes, "right") - low
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            places.append(np.repeat(np.arange(len(hashes)), counts))
            found.append(rows[np.repeat(low, counts) + within].astype(np.int64))
        return np.concatenate(places), np.concatenate(found)

    def kept(self, kept: npt.NDArray[np.bool_]) -> "_Hashes":
        """Those of the rows that are ``kept`` (rows,), which are numbered anew."""
        made, numbers = _Hashes(), np.cumsum(kept) - 1
        for hashes, rows in self.runs:
            left = kept[rows]
            if left.any():
                made.runs.append((hashes[left], numbers[rows[left]].astype(rows.dtype)))
        return made

    @property
    def nbytes(self) -> int:
        return sum(hashes.nbytes + rows.nbytes for hashes, rows in self.runs)


class NamedRows:
    """Byte strings, each with an id; ids ascend. Rows that are removed stay readable by id until they are freed.

    A row takes its bytes, eight for where they end, eight for the id, twelve for its hash and one that says whether it
    is there.

    Args:
        data: (bytes,), all strings in a row.
        ends: (n,), where each ends.
        ids: (n,), ascending.
    """

    def __init__(self, data: U8, ends: I64, ids: I64) -> None:
        self._data, self._ends, self._ids = _Column(data), _Column(ends), _Column(ids)
        self._there = _Column(np.ones(len(ids), np.bool_))
        self._hashes, self._hashed = _Hashes(), 0

    @classmethod
    def none(cls) -> "NamedRows":
        """No rows."""
        return cls(np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64))

    @property
    def n(self) -> int:
        """Rows, removed ones among them."""
        return self._ids.n

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """Which rows are there, (n,)."""
        return self._there.values

    @property
    def ids(self) -> I64:
        """The ids (n,) of all rows."""
        return self._ids.values

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        columns = (self._data, self._ends, self._ids, self._there)
        return sum(column.nbytes for column in columns) + self._hashes.nbytes

    # -- look-ups ------------------------------------------------------------------------------------------------

    def names(self, rows: I64) -> list[bytes]:
        """The byte strings of rows (m,)."""
        rows, data = rows.astype(np.int64), self._data.values
        ends, starts = self._ends.values[rows], np.where(rows > 0, self._ends.values[rows - 1], 0)
        return [data[a:b].tobytes() for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    def of_names(self, names: Sequence[bytes]) -> I64:
        """The rows (m,) of byte strings, −1 for those that are not there."""
        self._hash_all()
        places, rows = self._hashes.having(_hashed(names))
        places, rows = places[self.there[rows]], rows[self.there[rows]]
        found = np.full(len(names), -1, np.int64)
        for place, row, name in zip(places.tolist(), rows.tolist(), self.names(rows), strict=True):
            if name == names[place]:
                found[place] = row
        return found

    def of_ids(self, ids: I64) -> I64:
        """The rows (m,) of ids, removed ones too; −1 where there is none."""
        rows = np.searchsorted(self.ids, ids)
        rows[rows == self.n] = -1
        return np.where(self.ids[rows] == ids, rows, -1) if self.n else rows

    def repeated(self) -> list[bytes]:
        """Byte strings that are there more than once, if any."""
        self._hash_all()
        alike = [(rows, np.flatnonzero(h[1:] == h[:-1])) for h, rows in self._hashes.runs]
        pairs = [zip(self.names(rows[at]), self.names(rows[at + 1]), strict=True) for rows, at in alike]
        return [one for pair in pairs for one, other in pair if one == other]

    def _hash_all(self) -> None:
        """Hash what has not been yet: what came from a file, and searches do not need."""
        if self._hashed < self.n:
            self._hashes.add(_hashed(self.names(np.arange(self._hashed, self.n))), self._hashed)
            self._hashed = self.n

    # -- changes -------------------------------------------------------------------------------------------------

    def append(self, names: Sequence[bytes], ids: I64) -> None:
        """Add byte strings under ids (m,) that come after all others."""
        self._hash_all()
        self._hashes.add(_hashed(names), self.n)
        self._hashed += len(names)
        self._ends.extend(self._data.n + np.cumsum([len(name) for name in names]))
        self._data.extend(np.frombuffer(b"".join(names), np.uint8))
        self._ids.extend(ids)
        self._there.extend(np.ones(len(ids), np.bool_))

    def remove(self, rows: I64) -> None:
        """Mark rows (m,) as not there."""
        self._there.values[rows] = False

    def kept(self, kept: npt.NDArray[np.bool_]) -> "NamedRows":
        """A copy of the rows that are ``kept`` (n,)."""
        made = NamedRows(*self.arrays(kept))
        made._there = _Column(self.there[kept])
        if self._hashed == self.n:
            made._hashes, made._hashed = self._hashes.kept(kept), made.n
        return made

    def arrays(self, kept: npt.NDArray[np.bool_]) -> tuple[U8, I64, I64]:
        """Copies of data, ends and ids of the rows that are ``kept`` (n,)."""
        lengths = np.diff(self._ends.values, prepend=0)
        data = self._data.values[np.repeat(kept, lengths)]
        return data, np.cumsum(lengths[kept]), self.ids[kept]


def _hashed(names: Sequence[bytes]) -> I64:
    """A hash of each, by Python's own: nobody can make names that share one."""
    return np.array([hash(name) for name in names], np.int64)
