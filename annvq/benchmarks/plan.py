"""What a suite measures: points, in parts that are opened one after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One thing to measure.

    Attributes:
        label: for progress and logs.
        identity: everything that determines the result, as JSON holds it; becomes part of the row.
        columns: the names that ``measure`` gives values for; null where it fails.
        measure: does it.
    """

    label: str
    identity: dict[str, Any]
    columns: tuple[str, ...]
    measure: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """Points of one data set, which is loaded when the first of them is due and let go after the last.

    Attributes:
        name: of the data set.
        count: so many points, as far as is known before it is loaded.
        open: loads it and gives the points.
        required: the run ends where the data set cannot be had; else a row says so, and the others are measured.
        columns: of that row, null.
    """

    name: str
    count: int
    open: Callable[[], list[Point]]
    required: bool = True
    columns: tuple[str, ...] = ()

    def points(self) -> list[Point]:
        """The points; of a data set that cannot be had one that fails, unless it is required."""
        try:
            return self.open()
        except (OSError, ValueError) as error:
            if self.required:
                raise
            return [_absent(self, error)]


ABSENT = "load"
"""``method`` of a row that says why a data set could not be had."""


def _absent(part: Part, error: Exception) -> Point:
    def go() -> dict[str, Any]:
        raise error

    nothing = dict.fromkeys(("metric", "n", "d", "nq", "n_learn", "learn_source", "bits"))
    identity = {"dataset": part.name, "method": ABSENT, **nothing}
    return Point(f"{part.name} · {ABSENT}", identity, part.columns, go)


@dataclass(frozen=True)
class Plan:
    """The parts of a suite, in order; ``close`` is called when the last point is measured, or none further will be."""

    parts: Sequence[Part]
    close: Callable[[], None] = lambda: None
