"""Runners: what a suite's ``kind`` does. A module in this folder named after the kind is all it takes.

A runner module has three functions::

    def plan(suite: Suite, dataset: str | None) -> Plan
    def tables(rows: list[Row]) -> list[rich.table.Table]
    def report(suite: Suite, rows: list[Row], out: Path) -> None

``plan`` checks the suite's settings (ValueError) and gives the points to measure; ``report`` writes
pictures and tables into ``out``. Rows, resuming, threads and errors are the harness' business.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from annvq.benchmarks.results import Row
from annvq.benchmarks.suite import Suite


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
class Plan:
    """The points of a suite, in order; ``close`` is called when the last is measured, or none further will be."""

    points: list[Point]
    close: Callable[[], None] = lambda: None


class Runner(Protocol):
    """What a runner module offers."""

    def plan(self, suite: Suite, dataset: str | None) -> Plan: ...

    def tables(self, rows: list[Row]) -> list[Any]: ...

    def report(self, suite: Suite, rows: list[Row], out: Path) -> None: ...


def kinds() -> list[str]:
    """The kinds of suites that can be run."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def runner(kind: str) -> Runner:
    """The runner of ``kind``; ValueError where there is none."""
    if kind not in kinds():
        near = difflib.get_close_matches(kind, kinds(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown kind of suite {kind!r}; known: {', '.join(kinds())}.{hint}")
    return cast(Runner, importlib.import_module(f"{__name__}.{kind}"))
