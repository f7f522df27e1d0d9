"""Two workers asked in turn, so that what disturbs one disturbs the other."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from annvq.benchmarks.processes import EndedError, Worker


class Scanner(Worker):
    """A worker that scans codes."""

    def __init__(self, *arguments: Any, **command: Any) -> None:
        super().__init__(*arguments, **command)
        self.held: tuple[Any, ...] | None = None

    def open(self, folder: Path, index: str, n: int) -> None:
        """Hold this index, unless it is held already."""
        wanted = (folder, index, n)
        if self.held != wanted:
            self.held = None
            self.ask(do="open", folder=str(folder), index=index, n=n)
            self.held = wanted

    def lookup_cost(self) -> float | None:
        """ns per look-up of a code where nothing else is done."""
        cost = self.ask(do="lookup_cost")["ns"]
        return None if cost is None else float(cost)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a worker, the index that it holds (see :meth:`Scanner.open`), and how it is asked."""

    worker: Scanner
    folder: Path
    index: str
    n: int
    k: int
    single: bool
    threads: int
    keep: Path | None = None

    def search(self, nq: int, calls: int = 1, ids: Path | None = None) -> tuple[float, float]:
        """Seconds per query, and seconds of processor time."""
        self.worker.open(self.folder, self.index, self.n)
        reply = self.worker.ask(
            do="search", k=self.k, nq=nq, single=self.single, threads=self.threads, calls=calls,
            keep=self.keep and str(self.keep), ids=ids and str(ids),
        )  # fmt: skip
        return float(reply["seconds"]) / (nq * calls), float(reply["cpu_seconds"]) / (nq * calls)


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
class Asking:
    """How a side is asked each time: so many queries, so many calls."""

    nq: int
    calls: int


def asking(side: Side, nq: int, least: int, effort: Effort) -> tuple[Asking, float]:
    """Queries and calls that take about ``effort.call_s``, and the seconds per query of a first measurement."""
    side.search(min(8, nq))  # lays out codes, wakes threads
    each, _ = side.search(min(least, nq))
    asked = nq if nq * each <= 4 * effort.call_s else max(least, int(4 * effort.call_s / each))
    asked = min(asked, nq)
    calls = max(1, int(effort.call_s / (each * asked)))
    return Asking(asked, calls), min(each, side.search(asked)[0])


def compare(ours: Side, theirs: list[Side], nq: int, least: int, effort: Effort) -> dict[str, Any]:
    """Ask both sides in turn.

    Args:
        ours: annvq's side.
        theirs: the rival at several SIMD levels; the fastest of a short measurement is compared with. One whose process
            ends is left out.
        nq: queries.
        least: queries that a call must have at least, where the rival's threads want them.

    Returns:
        ``qps``, ``rival_qps``, ``ratio``: medians over pairs; ``…_all``: of each pair; ``cpu_ratio``: the ratio by
        processor time, which other work on the machine hardly changes; ``own_simd``, ``rival_simd``: the levels
        compared; ``rival_simd_s``: seconds per query at each level in the short measurement, or how it ended there.

    Raises:
        EndedError: a process ended, the rival's at every level.
    """
    our_asking, _ = asking(ours, nq, least, effort)
    rival, rival_asking, tried = _fastest(theirs, nq, least, effort)
    mine: list[tuple[float, float]] = []
    its: list[tuple[float, float]] = []
    start = perf_counter()
    while len(mine) < 2 or (len(mine) < effort.pairs and perf_counter() - start < effort.budget_s):
        mine.append(ours.search(our_asking.nq, our_asking.calls))
        its.append(rival.search(rival_asking.nq, rival_asking.calls))
    qps, rival_qps = [1 / wall for wall, _ in mine], [1 / wall for wall, _ in its]
    ratios = [b[0] / a[0] for a, b in zip(mine, its, strict=True)]
    return {
        "qps": median(qps),
        "rival_qps": median(rival_qps),
        "ratio": median(ratios),
        "cpu_ratio": median(b[1] / a[1] if a[1] else float("nan") for a, b in zip(mine, its, strict=True)),
        "qps_all": qps,
        "rival_qps_all": rival_qps,
        "ratio_all": ratios,
        "own_simd": ours.worker.level,
        "rival_simd": rival.worker.level,
        "rival_simd_s": tried,
        "rival_nq": rival_asking.nq,
    }


def _fastest(sides: list[Side], nq: int, least: int, effort: Effort) -> tuple[Side, Asking, dict[str, float | str]]:
    """The fastest side, how it is asked, and the seconds per query of each by its level, or how its process ended."""
    found: list[tuple[float, Side, Asking]] = []
    tried: dict[str, float | str] = {}
    for side in sides:
        level = side.worker.level
        try:
            asked, seconds = asking(side, nq, least, effort)
        except EndedError as error:
            tried[level] = str(error)
        else:
            tried[level] = seconds
            found.append((seconds, side, asked))
    if not found:
        raise EndedError("; ".join(map(str, tried.values())))
    _, fastest, asked = min(found, key=lambda side: side[0])
    return fastest, asked, tried
