"""Processes that learn together, over :mod:`torch.distributed`."""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from annvq.arrays import largest
from annvq.training.learn.shares import Alone
from annvq.types import F32, F64

EXACT_BITS = 52
"""Whole numbers below 2**53 and their sums are exact in float64."""

FINE = 2.0**-20
"""Rows rounded to steps no larger than this need no second part; learn vectors have coordinates of about one."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or did not answer in time."""


class Processes(Alone):
    """The processes that learn one quantizer, each from its share of the rows: those that ``torchrun`` has started, or
    one.

    What is learned does not depend on how many there are, bit for bit: rows are summed in float64 after they have been
    rounded to a grid on which such sums are exact, whatever is computed from sums is computed by the first process and
    told to the others, and random choices go by the numbers that rows have among all rows.

    ``with Processes.started() as processes: quantizer.fit(x, processes=processes)``; every process gives the same x.
    """

    shared = True

    def __init__(self, rank: int, size: int, device: torch.device, timeout: float) -> None:
        self.rank, self.size, self.device, self.timeout = rank, size, device, timeout

    @classmethod
    @contextmanager
    def started(cls, *, timeout: float = 600.0) -> "Iterator[Processes]":
        """The processes of this run, as environment variables tell (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``,
        ``MASTER_PORT``; ``torchrun`` sets them), or this one alone. On GPUs they speak NCCL, elsewhere gloo.

        Args:
            timeout: seconds that one waits for another before it gives up.

        Raises:
            ValueError: timeout is not positive.
            LostProcessError: not all of them came.
        """
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        if "WORLD_SIZE" not in os.environ:
            yield cls(0, 1, device, timeout)
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        except RuntimeError as error:
            raise LostProcessError(f"not all processes of the run came within {timeout:g} s: {error}") from error
        try:
            yield cls(dist.get_rank(), dist.get_world_size(), device, timeout)
        finally:
            dist.destroy_process_group()

    # -- numbers ---------------------------------------------------------------------------------------------------

    def span(self, count: int) -> tuple[int, int]:
        counts = self._sizes(count)
        return sum(counts[: self.rank]), sum(counts)

    def total(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.size == 1:
            return values
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self.device, copy=True)
        self._say(dist.all_reduce, tensor)
        return tensor.cpu().numpy()

    def summable(self, rows: F32) -> list[F64]:
        exact = rows.astype(np.float64)
        told = self.joined(np.array([[len(rows), largest(rows)]], np.float64))
        count, most = max(2.0, told[:, 0].sum()), told[:, 1].max()
        if not most:
            return [exact]
        lost = math.ceil(math.log2(count)) - EXACT_BITS  # steps of 2**lost of what is summed are exact
        step = 2.0 ** (math.frexp(most)[1] + lost)
        coarse = np.rint(exact / step) * step
        if step <= FINE:
            return [coarse]
        step *= 2.0**lost  # a few rows that are far out have made the first one coarse
        return [coarse, np.rint((exact - coarse) / step) * step]

    # -- rows ------------------------------------------------------------------------------------------------------

    def joined(self, rows: npt.NDArray[Any], count: int | None = None) -> npt.NDArray[Any]:
        if self.size == 1:
            return rows
        rows = np.ascontiguousarray(rows)
        counts = self._sizes(len(rows)) if count is None else self._shares(count)
        width = rows.dtype.itemsize * math.prod(rows.shape[1:])
        own = torch.zeros(max(counts) * width, dtype=torch.uint8)
        own[: rows.nbytes] = torch.from_numpy(rows.reshape(-1).view(np.uint8))
        parts = [torch.empty_like(own, device=self.device) for _ in counts]
        if len(own):
            self._say(dist.all_gather, parts, own.to(self.device))
        told = [part.cpu().numpy()[: count * width] for part, count in zip(parts, counts, strict=True)]
        return np.concatenate(told).view(rows.dtype).reshape(-1, *rows.shape[1:])

    def head(self, rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        first, _ = self.span(len(rows))
        return self.joined(rows[: max(0, count - first)])

    def picked(self, rows: F32, numbers: npt.NDArray[np.int64], first: int) -> F32:
        own = (numbers >= first) & (numbers < first + len(rows))
        out = np.zeros((len(numbers), rows.shape[1]), np.float32)
        out[own] = rows[numbers[own] - first]
        return self.total(out.view(np.int32)).view(np.float32)  # as bits: each has all of a row, or zeros

    def led(self, compute: Callable[[], npt.NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        if self.size == 1:
            return compute()
        array = np.zeros(shape, dtype)
        if self.rank == 0:
            array[...] = compute()
        told = torch.from_numpy(array.reshape(-1).view(np.uint8)).to(self.device)
        self._say(dist.broadcast, told, 0)
        return told.cpu().numpy().view(dtype).reshape(shape)

    def _shares(self, count: int) -> list[int]:
        """How many of ``count`` rows each process has."""
        ends = [count * rank // self.size for rank in range(self.size + 1)]
        return [stop - start for start, stop in itertools.pairwise(ends)]

    def _sizes(self, count: int) -> list[int]:
        """The number that each process gives."""
        if self.size == 1:
            return [count]
        told = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        told[self.rank] = count
        self._say(dist.all_reduce, told)
        return [int(number) for number in told.cpu()]

    def _say(self, collective: Callable[..., Any], *arguments: Any) -> None:
        try:
            collective(*arguments)
        except RuntimeError as error:
            raise LostProcessError(
                f"process {self.rank} of {self.size}: another one has ended, or did not answer within "
                f"{self.timeout:g} s: {str(error).partition('. ')[0]}"
            ) from error
