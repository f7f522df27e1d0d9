"""Run a suite: plan its points, measure those not yet measured, write each as it comes."""

import datetime
import logging
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from annvq.benchmarks import environment, webpage
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.plan import Part, Point
from annvq.benchmarks.results import Results, Row, digest
from annvq.benchmarks.suite import Suite
from annvq.threads import usable_cores

_log = logging.getLogger("annvq.benchmarks")


class Observer:
    """Told what happens; the command line shows it. This one keeps quiet."""

    def planned(self, total: int) -> None:
        """So many points in all; told again where that turns out to be otherwise."""

    def loading(self, name: str) -> None:
        """A data set is being loaded."""

    def started(self, point: Point) -> None:
        """A point is being measured."""

    def finished(self, point: Point, row: Row, *, measured: bool) -> None:
        """There is a row of a point, measured now or earlier."""


def run(
    suite: Suite,
    *,
    out: Path,
    dataset: str | None = None,
    threads: int | None = None,
    fresh: bool = False,
    only: Sequence[str] = (),
    command: str | None = None,
    observer: Observer | None = None,
) -> list[Row]:
    """Measure every point of ``suite`` and write ``out/results.jsonl`` and the reports beside it.

    Data sets are loaded one after another, each when the first of its points is due.

    Args:
        suite: from :func:`annvq.benchmarks.load_suite`.
        out: folder of the results; what it holds already is not measured again.
        dataset: name or path that replaces the suite's data sets, where its kind has any.
        threads: of both annvq and FAISS; default the suite's.
        fresh: forget what ``out`` holds, with ``only`` of those points alone.
        only: measure nothing but the points whose ``point`` in rows begins with one of these. Reports show what ``out``
            holds of the others too.
        command: that rows say they can be measured again by; default ``annvq bench`` with the suite's name.
        observer: told of progress.

    Returns:
        One row per point (those of ``only``), in the plan's order. A point that failed is a row whose ``error`` says
        why.

    Raises:
        ValueError: the suite, its only data set or the results file cannot be used; no point is one of ``only``.
    """
    if threads:
        suite = replace(suite, threads=threads)
    count = suite.threads or usable_cores()
    its_kind = kind(suite.kind)
    results = Results(out, fresh=fresh and not only)
    with environment.pinned_threads(count):
        plan = its_kind.plan(suite, dataset)
        tail = {"suite": suite.name, "command": command or _command(suite.name, dataset, threads)}
        work = _Run(tail, results, environment.facts(count), observer or Observer(), tuple(only), fresh)
        work.expect(sum(part.count for part in plan.parts))
        try:
            shown = [row for part in plan.parts for row in work.part(part)]
        finally:
            plan.close()
    rows = [row for row in shown if work.wanted(row["point"])]
    if only and not rows:
        raise ValueError(f"only: no point of suite {suite.name!r} begins with {' or '.join(only)}")
    its_kind.report(suite, shown, out)
    try:
        webpage.report(shown, out / "report.html", suite.title or suite.name)
    except ValueError as error:  # too many rows for a page; they are in the other files
        _log.warning("no page was written: %s", error)
    return rows


def _command(suite: str, dataset: str | None, threads: int | None) -> str:
    given = {"--dataset": dataset, "--threads": threads}
    return shlex.join(["annvq", "bench", suite, *(str(w) for o, v in given.items() if v is not None for w in (o, v))])


class _Run:
    """Rows of points, found among the results or measured.

    Args:
        tail: what every row says of its suite.
        only: beginnings of the names of points; empty: all are wanted.
        fresh: measure those that were measured already, too.
        where: facts about this machine; they are part of every row, and some of what a row is known by.
    """

    def __init__(
        self,
        tail: dict[str, str],
        results: Results,
        where: dict[str, Any],
        watch: Observer,
        only: tuple[str, ...],
        fresh: bool,
    ) -> None:
        self.tail, self.results, self.where, self.watch = tail, results, where, watch
        self.only, self.fresh = only, fresh
        self.total = 0

    def expect(self, more: int) -> None:
        """So many more points (or fewer) than expected."""
        self.total += more
        self.watch.planned(self.total)

    def wanted(self, name: str) -> bool:
        """Whether the point of this name is to be measured."""
        return name.startswith(self.only or "")

    def part(self, part: Part) -> list[Row]:
        """The rows of a part, whose data set is loaded for them; those of points that are not wanted where they are
        there."""
        self.watch.loading(part.name)
        named = [(digest({**point.identity, "threads": self.where["threads"]}), point) for point in part.points()]
        due = {name: "" if self.fresh else self._key(name) for name, _ in named if self.wanted(name)}
        self.expect(sum(name in due for name, _ in named) - part.count)
        self.results.drop_stale(due)
        rows = [self._row(p, name) if name in due else self.results.find(self._key(name)) for name, p in named]
        return [row for row in rows if row is not None]

    def _key(self, name: str) -> str:
        """What a row is known by: what was measured, and with which versions."""
        return digest({"point": name, **{fact: self.where[fact] for fact in ("versions", "commit", "simd")}})

    def _row(self, point: Point, name: str) -> Row:
        key = self._key(name)
        row = self.results.find(key)
        measured = row is None
        if row is None:
            self.watch.started(point)
            tail = {**self.tail, "point": name, "key": key, "env": self.where}
            row = self.results.append({**measure_point(point), **tail})
        self.watch.finished(point, row, measured=measured)
        return row


def measure_point(point: Point) -> Row:
    """Measure one point; whatever goes wrong is part of the row."""
    row: dict[str, Any] = {**point.identity, **dict.fromkeys(point.columns), "error": None}
    row["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    try:
        row.update(point.measure())
    except Exception as error:
        _log.debug("%s failed:\n%s", point.label, traceback.format_exc())
        row["error"] = f"{type(error).__name__}: {error}"
    return row
