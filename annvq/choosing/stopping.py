"""Codes that stop when their time is over."""

from collections.abc import Callable
from typing import TypeVar

from annvq.benchmarks.roles import Code
from annvq.types import F32, I64

T = TypeVar("T")


class OutOfTimeError(Exception):
    """A step was not begun, for it would not end in time."""


class Stoppable:
    """A :class:`~annvq.benchmarks.roles.Code` that begins no step that would end late.

    A step is expected to take as long as the last one of its kind did for a vector; the first of each kind is begun
    whenever there is time left. Training is one step.

    Args:
        code: to measure.
        left: seconds that are left.
    """

    def __init__(self, code: Code, left: Callable[[], float]) -> None:
        self.code, self.left = code, left
        self.config = code.config
        self._seconds: dict[str, float] = {}  # by kind of step, for a vector

    def fit(self, learn: F32) -> None:
        self._step("fit", len(learn), lambda: self.code.fit(learn))

    def add(self, x: F32) -> None:
        self._step("add", len(x), lambda: self.code.add(x))

    def decode(self, start: int, stop: int) -> F32 | None:
        return self._step("decode", stop - start, lambda: self.code.decode(start, stop))

    def search(self, queries: F32, k: int) -> I64:
        return self._step("search", len(queries), lambda: self.code.search(queries, k))

    def bits_per_vector(self) -> float:
        return self.code.bits_per_vector()

    def wmops(self) -> float | None:
        return self.code.wmops()

    def _step(self, kind: str, count: int, go: Callable[[], T]) -> T:
        before = self.left()
        if before <= self._seconds.get(kind, 0.0) * count:
            raise OutOfTimeError(f"{kind} of {count} vectors")
        result = go()
        self._seconds[kind] = (before - self.left()) / max(count, 1)
        return result
