"""Kinds of suites: what is measured, how, and how it is shown. A module or package in this folder is all a kind takes.

It is named as suites name it (``kind = "codes"``) and has three functions::

    def plan(suite: Suite, dataset: str | None) -> Plan
    def tables(rows: list[Row]) -> list[rich.table.Table]
    def report(suite: Suite, rows: list[Row], out: Path) -> None

``plan`` checks the suite's settings (ValueError) and gives the points to measure, without loading a data set;
``report`` writes pictures and tables into ``out``. Rows, resuming, threads and errors are the harness' business.
"""

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any, Protocol, cast

from annvq.benchmarks.plan import Plan
from annvq.benchmarks.results import Row
from annvq.benchmarks.suite import Suite


class Kind(Protocol):
    """What the module of a kind offers."""

    def plan(self, suite: Suite, dataset: str | None) -> Plan: ...

    def tables(self, rows: list[Row]) -> list[Any]: ...

    def report(self, suite: Suite, rows: list[Row], out: Path) -> None: ...


def names() -> list[str]:
    """The kinds of suites that can be run."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def kind(name: str) -> Kind:
    """The kind of this name; ValueError where there is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown kind of suite {name!r}; known: {', '.join(names())}.{hint}")
    return cast(Kind, importlib.import_module(f"{__name__}.{name}"))
