"""Run a suite: plan its points, measure those not yet measured, write each as it comes."""

import datetime
import logging
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from annvq.benchmarks import environment
from annvq.benchmarks.results import Results, Row, digest
from annvq.benchmarks.runners import Plan, Point, runner
from annvq.benchmarks.suite import Suite
from annvq.threads import usable_cores

_log = logging.getLogger("annvq.benchmarks")


class Observer:
    """Told what happens; the command line shows it. This one keeps quiet."""

    def planned(self, points: list[Point]) -> None: ...

    def started(self, point: Point) -> None: ...

    def finished(self, point: Point, row: Row, *, measured: bool) -> None: ...


def run(
    suite: Suite,
    *,
    out: Path,
    dataset: str | None = None,
    threads: int | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
) -> list[Row]:
    """Measure every point of ``suite`` and write ``out/results.jsonl`` and the report beside it.

    Args:
        suite: from :func:`annvq.benchmarks.load_suite`.
        out: folder of the results; what it holds already is not measured again.
        dataset: name or path that replaces the suite's data sets, where its kind has any.
        threads: of both annvq and FAISS; default the suite's.
        fresh: forget what ``out`` holds.
        observer: told of progress.

    Returns:
        One row per point, in the plan's order. A point that failed is a row whose ``error`` says why.

    Raises:
        ValueError: the suite, the data set or the results file cannot be used.
    """
    watch = observer or Observer()
    if threads:
        suite = replace(suite, threads=threads)
    count = suite.threads or usable_cores()
    kind = runner(suite.kind)
    results = Results(out, fresh=fresh)
    with environment.pinned_threads(count):
        plan: Plan = kind.plan(suite, dataset)
        where = environment.facts(count)
        points = {id(p): digest({**p.identity, "threads": count}) for p in plan.points}
        measured_with = {"versions": where["versions"], "commit": where["commit"], "simd": where["simd"]}
        keys = {point: digest({"point": point, **measured_with}) for point in points.values()}
        results.drop_stale(keys)
        watch.planned(plan.points)
        try:
            rows = [_row(point, points[id(point)], keys, results, suite, where, watch) for point in plan.points]
        finally:
            plan.close()
    kind.report(suite, rows, out)
    return rows


def _row(
    point: Point,
    name: str,
    keys: dict[str, str],
    results: Results,
    suite: Suite,
    where: dict[str, Any],
    watch: Observer,
) -> Row:
    """The row of one point, as it is in ``results`` or measured."""
    row = results.find(keys[name])
    measured = row is None
    if row is None:
        watch.started(point)
        tail = {"suite": suite.name, "point": name, "key": keys[name], "env": where}
        row = results.append({**measure_point(point), **tail})
    watch.finished(point, row, measured=measured)
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
