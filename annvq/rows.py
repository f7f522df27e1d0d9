"""Vectors that are read as they are asked for: what has shape, dtype and NumPy slicing, and is not in memory whole."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.types import I64, Array


class NoVectorsError(ValueError):
    """What should hold vectors is empty."""


class LazyRows(ABC):
    """Vectors (n, d) of which a subclass reads the rows that are asked for.

    Args:
        shape: (n, d).
        dtype: that of the numbers.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    @abstractmethod
    def between(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop), 0 ≤ start ≤ stop ≤ n."""

    @abstractmethod
    def at(self, rows: I64) -> npt.NDArray[Any]:
        """Rows of these numbers, each in [0, n), in any order."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        """Rows of a number, a slice, an array of numbers of any shape, or one of n bools; with the columns of
        ``[rows, columns]`` too.

        Raises:
            IndexError: no such row, or nothing that says which rows.
        """
        if isinstance(rows, tuple):
            rows, columns = rows
            part: npt.NDArray[Any] = self[rows][..., columns]
            return part
        n = len(self)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(n)
            return self.between(start, max(start, stop)) if step == 1 else self.at(np.arange(start, stop, step))
        numbers = np.asarray(rows)
        if numbers.dtype == np.bool_ and numbers.shape == (n,):
            numbers = np.flatnonzero(numbers)
        elif numbers.size == 0 and numbers.ndim == 1:
            numbers = numbers.astype(np.int64)
        if numbers.dtype.kind not in "iu":
            raise IndexError(f"rows must be a number, a slice, or an array of numbers or of {n} bools, got {rows!r}")
        numbers = numbers.astype(np.int64)
        if numbers.size and not -n <= numbers.min() <= numbers.max() < n:
            raise IndexError(f"rows must lie in [0, {n}), they lie in [{numbers.min()}, {numbers.max()}]")
        numbers = np.where(numbers < 0, numbers + n, numbers)
        return self.at(numbers.ravel()).reshape(*numbers.shape, self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """All rows: for what does not read them a part at a time."""
        return np.asarray(self[:], dtype)


class RoundedRows(LazyRows):
    """Other rows in float32; numbers beyond it become infinite."""

    def __init__(self, rows: LazyRows) -> None:
        super().__init__(rows.shape, "float32")
        self._rows = rows

    def between(self, start: int, stop: int) -> npt.NDArray[Any]:
        with np.errstate(over="ignore"):
            return self._rows.between(start, stop).astype(np.float32)

    def at(self, rows: I64) -> npt.NDArray[Any]:
        with np.errstate(over="ignore"):
            return self._rows.at(rows).astype(np.float32)


class JoinedRows(LazyRows):
    """Several pieces of vectors, one after another: shards of a set, row groups of a file.

    Args:
        counts: rows of each piece.
        dim: d.
        dtype: that of the numbers.
    """

    def __init__(self, counts: Sequence[int], dim: int, dtype: Any) -> None:
        self._ends = np.cumsum([0, *counts], dtype=np.int64)  # where each piece begins, and where the last one ends
        super().__init__((int(self._ends[-1]), dim), dtype)

    @abstractmethod
    def piece(self, number: int) -> Array:
        """The piece of this number, (rows, d): an array, or other :class:`LazyRows`."""

    def between(self, start: int, stop: int) -> npt.NDArray[Any]:
        first, last = np.searchsorted(self._ends, (start, stop - 1), side="right") - 1
        found = []
        for number in range(first, last + 1) if stop > start else ():
            begin = int(self._ends[number])
            part = self.piece(number)[max(0, start - begin) : stop - begin]
            if len(part):
                found.append(part)
        if len(found) == 1:
            return np.asarray(found[0])
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), self.dtype)

    def at(self, rows: I64) -> npt.NDArray[Any]:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        numbers = np.searchsorted(self._ends, rows, side="right") - 1
        for number in np.unique(numbers):  # each piece is read once
            here = numbers == number
            out[here] = self.piece(int(number))[rows[here] - self._ends[number]]
        return out
