"""What adding to an index costs, and replacing in it: a vector now and then, 64 at once, a stream.

The vectors are the data set's queries, which nothing was trained on. An index is measured as a user finds it that has
just opened it: what one call leaves warm for the next is what the index itself keeps.
"""

from functools import partial
from statistics import median
from typing import Any

from annvq.benchmarks.kinds.index.session import Session
from annvq.benchmarks.plan import Point
from annvq.benchmarks.processes import EndedError, Worker
from annvq.benchmarks.vectors import Vectors

SIZES = (1, 64)
"""Vectors of a call."""
COLUMNS = (
    "first_add_ms", *(f"{call}_{size}_ms" for call in ("add", "upsert") for size in SIZES), "adds_per_s",
    "upserts_per_s", "bits_per_vector", "ram_bits_per_vector", "file_bytes_per_vector", "train_s", "add_s",
    "simd",
)  # fmt: skip
_CALL_S = 0.2  # a stream lasts about so long


def point(session: Session, data: Vectors, entry: dict[str, Any], threads: int, effort: dict[str, Any]) -> Point:
    """One index; ``effort`` says how many vectors it holds and is trained on, where there are so many."""
    n, n_learn = min(effort["n"], len(data.base)), min(effort["learn"], len(data.learn))
    facts = {
        **data.facts(), "n": n, "n_learn": n_learn, "method": entry["label"],
        "use": entry["use"], "spec": entry["spec"], "threads": threads, "seed": session.seed, "group": entry["group"],
        "stream": {key: effort[key] for key in ("repeats", "budget_s")},
    }  # fmt: skip
    label = f"{data.name} · {entry['label']} · adding"
    return Point(label, facts, COLUMNS, partial(_measure, session, data, entry, facts))


def _measure(session: Session, data: Vectors, entry: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    workers = session.index(data, entry, n=facts["n"], n_learn=facts["n_learn"], reopened=True)
    found: list[tuple[float, Worker, dict[str, Any]]] = []
    tried: dict[str, float | str] = {}
    for worker in workers:
        try:
            session.open(worker)
            costs = _costs(worker, facts)
        except EndedError as error:
            tried[worker.level] = str(error)
        else:
            tried[worker.level] = costs["add_1_ms"]
            found.append((costs["add_1_ms"], worker, costs))
    if not found:
        raise EndedError("; ".join(map(str, tried.values())))
    _, best, costs = min(found, key=lambda f: f[0])
    return {**costs, "simd": best.level, "simd_add_1_ms": tried, **session.built}


def _costs(worker: Worker, facts: dict[str, Any]) -> dict[str, Any]:
    """The columns, and all that they are medians of."""
    effort = facts["stream"]

    def ask(call: str, size: int, calls: int, cold: bool, budget_s: float) -> list[float] | None:
        """Seconds of each call; None where the library has no such call."""
        seconds: list[float] | None = worker.ask(
            do="stream", call=call, size=size, calls=calls, cold=cold, budget_s=budget_s, threads=facts["threads"]
        )["seconds"]
        return seconds

    first = ask("add", 1, 1, True, 0.0)
    assert first is not None  # libraries that cannot add were refused with the suite
    row: dict[str, Any] = {"first_add_ms": 1e3 * first[0]}
    for call in ("add", "upsert"):
        for size in SIZES:
            seconds = ask(call, size, effort["repeats"], True, effort["budget_s"])
            name = f"{call}_{size}_ms"
            row[name] = None if seconds is None else 1e3 * median(seconds)
            row[f"{name}_all"] = None if seconds is None else [1e3 * s for s in seconds]
        rates = []
        for _ in range(effort["repeats"] if row[f"{call}_1_ms"] is not None else 0):
            seconds = ask(call, 1, 1_000_000, False, _CALL_S)
            assert seconds is not None
            rates.append(len(seconds) / sum(seconds))
            if len(rates) * _CALL_S > effort["budget_s"]:
                break
        row[f"{call}s_per_s"] = median(rates) if rates else None
        row[f"{call}s_per_s_all"] = rates or None
    return row
