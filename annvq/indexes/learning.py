"""Learn vectors as an index compares them, made as they are read."""

from collections.abc import Callable
from typing import Any

import numpy as np

from annvq.arrays import rows_to_numpy
from annvq.types import F32, Array


class ComparedRows:
    """Vectors ``x`` (n, d) as an index compares them, (n, dims) float32: what has shape, dtype and NumPy slicing.

    A row is read when it is asked for, so whoever learns from a sample never makes a float32 copy of the whole.

    Args:
        compared: see :meth:`~annvq.indexes.contract.Index.compared`.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, x: Array, dims: int, compared: Callable[[F32, str, int], F32]) -> None:
        self.x, self.shape, self._compared = x, (int(x.shape[0]), dims), compared

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> F32:
        """Rows of a slice or of an array of row numbers; with the columns of ``[rows, :]`` too."""
        if isinstance(rows, tuple):
            rows, columns = rows
            return self[rows][:, columns]
        part = self.x[rows]
        start = rows.start or 0 if isinstance(rows, slice) else 0
        return self._compared(rows_to_numpy(part, 0, int(part.shape[0]), "x"), "x", start)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """All rows: for what does not read them a part at a time."""
        return np.asarray(self[:], dtype)
