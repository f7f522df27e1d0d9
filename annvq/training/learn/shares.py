"""Rows that several processes hold, each a share of them, and what these processes tell one another while they learn.

Every process runs the same code on rows of its own. Shares lie one after another: the first process has the first rows.
Random choices name rows by their numbers among all rows, so that as many processes as there are choose the same.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.types import F32, F64


class Alone:
    """One process that holds all rows: there is nobody to tell anything. What several need is said here and done in
    :class:`~annvq.training.Processes`."""

    rank = 0
    size = 1
    shared = False
    """Whether results must be those of any number of processes; else they are those of earlier versions."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def share(self, count: int) -> slice:
        """Which of ``count`` rows are this process' share."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def span(self, count: int) -> tuple[int, int]:
        """Where the ``count`` rows of this process begin among the rows of all, and how many these are."""
        return 0, count

    def total(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum over all processes of arrays of one shape."""
        return values

    def summable(self, rows: F32) -> list[F64]:
        """Arrays that add up to ``rows`` and whose sums, over whatever rows in whatever order, are the same."""
        return [rows.astype(np.float64)]

    def joined(self, rows: npt.NDArray[Any], count: int | None = None) -> npt.NDArray[Any]:
        """The rows of all processes, in every one; ``count`` of them where each gives its :meth:`share` of so many,
        which spares it asking."""
        return rows

    def head(self, rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        """The first ``count`` of the rows of all processes, in every one."""
        return rows[:count]

    def picked(self, rows: F32, numbers: npt.NDArray[np.int64], first: int) -> F32:
        """The rows of these numbers among the rows of all, in every process; its own begin at ``first``."""
        picked: F32 = rows[numbers]
        return picked

    def led(self, compute: Callable[[], npt.NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """What the first process computes, an array of this shape and type, in every process."""
        return compute()


ALONE = Alone()


def check_processes(processes: Any) -> Alone:
    """``processes`` if they are some, else TypeError."""
    if not isinstance(processes, Alone):
        raise TypeError(f"processes must be annvq.training.Processes, got {type(processes).__name__}")
    return processes
