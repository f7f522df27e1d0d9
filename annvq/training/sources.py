"""Where training batches come from: arrays of any size, functions, iterators."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from annvq.arrays import as_float32, check_vectors, dtype_name, require_finite, sample_crc
from annvq.columns import exports_arrow
from annvq.training.learn.shares import Alone
from annvq.types import F32, Array

Source: TypeAlias = Array | Callable[[torch.Generator], Tensor] | Iterator[Any]
"""An array (n, d), a function of a generator that returns a batch, or an iterator of batches (b, d)."""


class Batches(Protocol):
    """``next_batch(generator)`` gives float32 (b, d) on the CPU."""

    def next_batch(self, generator: torch.Generator) -> Tensor: ...

    def skip(self, batches: int) -> None:
        """Go past batches that an earlier, interrupted run has consumed."""

    def fingerprint(self) -> list[Any]:
        """What tells this source from others, as JSON holds it."""


class ArrayBatches:
    """Rows drawn at random, with replacement, from an array, memory map or HDF5 data set."""

    def __init__(self, x: Array, dim: int, batch_size: int) -> None:
        x = check_vectors(x, dim, "source")
        if int(x.shape[0]) == 0:
            raise ValueError("source must have at least one row, got none")
        self.x, self.batch_size = x, batch_size

    def next_batch(self, generator: torch.Generator) -> Tensor:
        rows = torch.randint(int(self.x.shape[0]), (self.batch_size,), generator=generator)
        if isinstance(self.x, Tensor):
            return checked_batch(self.x[rows.to(self.x.device)], self.x.shape[1])
        # HDF5 wants ascending rows without repeats.
        unique, inverse = np.unique(rows.numpy(), return_inverse=True)
        return checked_batch(np.asarray(self.x[unique])[inverse], self.x.shape[1])

    def skip(self, batches: int) -> None:
        """Nothing to do: the generator's state says which rows come next."""

    def fingerprint(self) -> list[Any]:
        return ["array", *map(int, self.x.shape), dtype_name(self.x), sample_crc(self.x)]


class SharedBatches:
    """Rows drawn at random, with replacement, from those of several processes, each of which gets the whole batch.

    Args:
        x: (n, d), this process' share.
    """

    def __init__(self, x: F32, batch_size: int, processes: Alone) -> None:
        self.x, self.batch_size, self.processes = x, batch_size, processes
        self.first, self.total = processes.span(len(x))

    def next_batch(self, generator: torch.Generator) -> Tensor:
        rows = torch.randint(self.total, (self.batch_size,), generator=generator).numpy()
        return torch.from_numpy(self.processes.picked(self.x, rows, self.first))

    def skip(self, batches: int) -> None:
        """Nothing to do: the generator's state says which rows come next."""

    def fingerprint(self) -> list[Any]:
        return ["shared", self.total, int(self.x.shape[1])]


class FunctionBatches:
    """Batches that a function makes from a generator."""

    def __init__(self, function: Callable[[torch.Generator], Any], dim: int) -> None:
        self.function, self.dim = function, dim

    def next_batch(self, generator: torch.Generator) -> Tensor:
        return checked_batch(self.function(generator), self.dim)

    def skip(self, batches: int) -> None:
        """Nothing to do: the generator's state says what comes next."""

    def fingerprint(self) -> list[Any]:
        return ["function"]


class IteratorBatches:
    """Batches of an iterator, as they come."""

    def __init__(self, iterator: Iterator[Any], dim: int) -> None:
        self.iterator, self.dim = iterator, dim

    def next_batch(self, generator: torch.Generator) -> Tensor:
        try:
            return checked_batch(next(self.iterator), self.dim)
        except StopIteration:
            raise ValueError("source ran out of batches before training ended; give fewer steps") from None

    def skip(self, batches: int) -> None:
        for _ in range(batches):
            next(self.iterator, None)

    def fingerprint(self) -> list[Any]:
        return ["iterator"]


def checked_batch(batch: Any, dim: int) -> Tensor:
    """A batch as a finite float32 tensor (b, dim) on the CPU."""
    batch = check_vectors(batch, dim, "source batch", rows="b")
    tensor = batch.detach().cpu() if isinstance(batch, Tensor) else torch.from_numpy(_native_order(batch))
    tensor = tensor.float()
    if len(tensor) == 0:
        raise ValueError("source batch must have at least one row, got none")
    require_finite(tensor.numpy(), "source batch")
    return tensor


def _native_order(batch: Any) -> np.ndarray[Any, Any]:
    array = np.ascontiguousarray(batch)
    if dtype_name(array) == "bfloat16":
        return as_float32(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def batches(source: Source, dim: int, batch_size: int) -> Batches:
    """The batches of ``source``.

    Raises:
        TypeError: not an array, function or iterator.
    """
    if hasattr(source, "shape") or exports_arrow(source):
        return ArrayBatches(source, dim, batch_size)
    if callable(source):
        return FunctionBatches(source, dim)
    if hasattr(source, "__next__"):
        return IteratorBatches(source, dim)
    raise TypeError(
        f"source must be an array (n, {dim}), a function of a torch.Generator or an iterator of batches, "
        f"got {type(source).__name__}"
    )
