"""Two workers asked in turn, so that what disturbs one disturbs the other."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

_PIPE = subprocess.PIPE
# What sets the SIMD level of each engine; FAISS before 1.13 has another variable than later ones.
_LEVELS = {"annvq": ("ANNVQ_SIMD",), "faiss": ("FAISS_SIMD_LEVEL", "FAISS_OPT_LEVEL")}


class Worker:
    """A worker process; ``level`` forces its SIMD level, None leaves the choice to the library.

    Raises:
        RuntimeError: it does not start, as where the processor lacks the level.
    """

    def __init__(self, engine: str, level: str | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in _LEVELS["faiss"]}
        if level is not None:
            environment |= dict.fromkeys(_LEVELS[engine], level)
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "annvq.benchmarks.scanning.worker", engine],
            stdin=_PIPE, stdout=_PIPE, stderr=self._said, text=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        self.engine = engine
        self.held: tuple[Any, ...] | None = None
        self.level = str(self._read()["level"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["it said nothing"]
            self.close()
            raise RuntimeError(f"the {self.engine} process ended: {said[-1].strip()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.engine}: {reply['error']}")
        return reply

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request; RuntimeError where it failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def open(self, folder: Path, index: str, n: int) -> None:
        """Hold this index, unless it is held already."""
        wanted = (folder, index, n)
        if self.held != wanted:
            self.held = None
            self.ask(do="open", folder=str(folder), index=index, n=n)
            self.held = wanted

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a worker and how it is asked."""

    worker: Worker
    k: int
    single: bool
    threads: int
    keep: Path | None = None

    def search(self, nq: int, calls: int = 1, ids: Path | None = None) -> float:
        """Seconds per query."""
        reply = self.worker.ask(
            do="search", k=self.k, nq=nq, single=self.single, threads=self.threads, calls=calls,
            keep=self.keep and str(self.keep), ids=ids and str(ids),
        )  # fmt: skip
        return float(reply["seconds"]) / (nq * calls)


@dataclass(frozen=True)
class Effort:
    """How long a comparison lasts.

    Attributes:
        pairs: times that both sides are asked, at least two of them whatever they take.
        budget_s: seconds after which no further pair is begun.
        call_s: a call lasts about so long: fewer queries where they are slow, several calls where they are fast.
    """

    pairs: int = 7
    budget_s: float = 6.0
    call_s: float = 0.15


@dataclass(frozen=True)
class Plan:
    """How a side is asked each time: so many queries, so many calls."""

    nq: int
    calls: int


def plan(side: Side, nq: int, least: int, effort: Effort) -> tuple[Plan, float]:
    """Queries and calls that take about ``effort.call_s``, and the seconds per query of a first measurement."""
    side.search(min(8, nq))  # lays out codes, wakes threads
    each = side.search(min(least, nq))
    asked = nq if nq * each <= 4 * effort.call_s else max(least, int(4 * effort.call_s / each))
    asked = min(asked, nq)
    calls = max(1, int(effort.call_s / (each * asked)))
    return Plan(asked, calls), min(each, side.search(asked))


def compare(ours: Side, theirs: list[Side], nq: int, least: int, effort: Effort) -> dict[str, Any]:
    """Ask both sides in turn.

    Args:
        ours: annvq's side.
        theirs: the rival at several SIMD levels; the fastest of a short measurement is compared with.
        nq: queries.
        least: queries that a call must have at least, where the rival's threads want them.

    Returns:
        ``qps``, ``rival_qps``, ``ratio``: medians over pairs; ``…_all``: of each pair; ``rival_simd``.
    """
    our_plan, _ = plan(ours, nq, least, effort)
    plans = [plan(side, nq, least, effort) for side in theirs]
    fastest = min(range(len(theirs)), key=lambda at: plans[at][1])
    rival, (rival_plan, _) = theirs[fastest], plans[fastest]
    mine: list[float] = []
    its: list[float] = []
    start = perf_counter()
    while len(mine) < 2 or (len(mine) < effort.pairs and perf_counter() - start < effort.budget_s):
        mine.append(1 / ours.search(our_plan.nq, our_plan.calls))
        its.append(1 / rival.search(rival_plan.nq, rival_plan.calls))
    ratios = [a / b for a, b in zip(mine, its, strict=True)]
    return {
        "qps": median(mine),
        "rival_qps": median(its),
        "ratio": median(ratios),
        "qps_all": mine,
        "rival_qps_all": its,
        "ratio_all": ratios,
        "own_simd": ours.worker.level,
        "rival_simd": rival.worker.level,
        "rival_nq": rival_plan.nq,
    }
