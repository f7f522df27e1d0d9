"""Data set × index × its settings × queries at once or one by one; and data set × index to add to."""

import itertools
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from annvq.benchmarks import metrics, statistics, vectors
from annvq.benchmarks.kinds.index import streams
from annvq.benchmarks.kinds.index.session import Session
from annvq.benchmarks.kinds.index.settings import checked
from annvq.benchmarks.plan import Plan, Point
from annvq.benchmarks.processes import EndedError, Worker
from annvq.benchmarks.suite import Suite
from annvq.benchmarks.vectors import Vectors
from annvq.threads import usable_cores
from annvq.types import I64

_K = 10
_RECALLS = ("recall@1", "10-recall@10")
_COLUMNS = (
    "qps", *_RECALLS, "bits_per_vector", "ram_bits_per_vector", "file_bytes_per_vector",
    "train_s", "add_s", "simd",
)  # fmt: skip


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Every data set × index × its settings × queries at once or one by one, then every index to add to."""
    settings, threads = checked(suite), suite.threads or usable_cores()
    session = Session(suite.seeds[0])
    grid = [
        (entry, dict(zip(entry["sweep"], values, strict=True)), queries)
        for entry in settings["systems"]
        for values in itertools.product(*entry["sweep"].values())
        for queries in settings["queries"]
    ]

    def points(data: Vectors) -> list[Point]:
        searched = [_point(session, data, *cell, threads, settings["effort"]) for cell in grid]
        return searched + [streams.point(session, data, e, threads, settings["stream"]) for e in settings["streams"]]

    names, count = [dataset] if dataset else settings["datasets"], len(grid) + len(settings["streams"])
    return Plan(vectors.parts(names, settings["limits"], count, points, _COLUMNS), session.close)


def _point(
    session: Session,
    data: Vectors,
    entry: dict[str, Any],
    settings: dict[str, Any],
    queries: str,
    threads: int,
    effort: dict[str, Any],
) -> Point:
    facts = {
        **data.facts(), "method": entry["label"], "use": entry["use"], "spec": entry["spec"],
        "settings": settings, "queries": queries, "threads": threads, "seed": session.seed, "effort": effort,
        "group": entry["group"],
    }  # fmt: skip
    shown = ", ".join(f"{k} {v}" for k, v in settings.items())
    label = f"{data.name} · {entry['label']} · {shown}, {queries}"
    return Point(label, facts, _COLUMNS, partial(_measure, session, data, entry, facts))


def _measure(session: Session, data: Vectors, entry: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    workers = session.index(data, entry)
    found = session.folder / "found.npy"
    timed: list[tuple[list[float], Worker, I64]] = []
    tried: dict[str, float | str] = {}
    for worker in workers:
        try:
            session.open(worker)
            timed.append((_times(worker, facts, found), worker, np.load(found)))
        except EndedError as error:
            tried[worker.level] = str(error)
        else:
            tried[worker.level] = facts["nq"] / median(timed[-1][0])
    if not timed:
        raise EndedError("; ".join(map(str, tried.values())))
    times, fastest, ids = min(timed, key=lambda t: median(t[0]))
    hits = metrics.hits(ids, data.base, data.queries, data.neighbors, data.metric)
    recalls = metrics.recalls(hits)
    return {
        "qps": facts["nq"] / median(times),
        "qps_all": [facts["nq"] / t for t in times],
        **{name: recalls[name] for name in _RECALLS},
        "hits": statistics.hits_to_text({name: hits[name] for name in _RECALLS if name in hits}),
        "simd": fastest.level,
        "simd_qps": tried,
        **session.built,
    }


def _times(worker: Worker, facts: dict[str, Any], found: Path) -> list[float]:
    """Seconds of each measurement, every one of all queries; ``found`` gets the ids."""
    asked = {
        "do": "search", "settings": facts["settings"], "k": _K, "single": facts["queries"] == "single",
        "threads": facts["threads"],
    }  # fmt: skip
    first = worker.ask(**asked, nq=facts["nq"], calls=1, ids=str(found))["seconds"]  # warms up, and finds
    calls = max(1, int(0.1 / max(first, 1e-9)))
    times: list[float] = []
    while not times or (len(times) < facts["effort"]["repeats"] and sum(times) < facts["effort"]["budget_s"]):
        times.append(worker.ask(**asked, nq=facts["nq"], calls=calls)["seconds"] / calls)
    return times
