"""Learn vectors as an index compares them, made as they are read."""

from collections.abc import Callable

from annvq.arrays import rows_to_numpy
from annvq.rows import LazyRows
from annvq.types import F32, I64, Array


class ComparedRows(LazyRows):
    """Vectors ``x`` (n, d) as an index compares them, (n, dims) float32: what has shape, dtype and NumPy slicing.

    A row is read when it is asked for, so whoever learns from a sample never makes a float32 copy of the whole.

    Args:
        compared: see :meth:`~annvq.indexes.contract.Index.compared`.
    """

    def __init__(self, x: Array, dims: int, compared: Callable[[F32, str, int], F32]) -> None:
        super().__init__((int(x.shape[0]), dims), "float32")
        self.x, self._compared = x, compared

    def between(self, start: int, stop: int) -> F32:
        return self._compared(rows_to_numpy(self.x, start, stop), "x", start)

    def at(self, rows: I64) -> F32:
        part = self.x[rows]
        return self._compared(rows_to_numpy(part, 0, int(part.shape[0])), "x", 0)
