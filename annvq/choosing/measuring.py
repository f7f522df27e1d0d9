"""Measuring the codes of a grid one after another, within the time there is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal

from annvq.benchmarks.kinds.codes.points import Timing, measure
from annvq.benchmarks.plan import Point
from annvq.benchmarks.results import Row
from annvq.benchmarks.rivals import make_code
from annvq.benchmarks.roles import Budget, Code
from annvq.benchmarks.run import Observer, measure_point
from annvq.benchmarks.statistics import figure_of_row
from annvq.benchmarks.vectors import Vectors
from annvq.choosing.asked import Asked
from annvq.choosing.costs import Clock, Rows, estimate
from annvq.choosing.grid import Candidate, candidates
from annvq.choosing.keeping import Kept
from annvq.choosing.learning import train_s_at
from annvq.choosing.predicting import names_of
from annvq.choosing.sampling import prepared
from annvq.choosing.stopping import OutOfTimeError, Stoppable

WOULD_TAKE = "it would take "
"""Begins what is said of a code that there was no time for."""


@dataclass(frozen=True)
class Stage:
    """How much of the sample a stage measures on, and how long it trains.

    Attributes:
        learn, base: at most so many vectors.
        effort: share of the iterations of ``fit``'s own recipe.
    """

    name: Literal["screened", "measured"]
    learn: int
    base: int
    effort: float


_LATER_SHARE = 0.15  # of the time is left to what comes after: other forms of the best, predictions
_GRACE = 1.1  # times the time there is: a code that has not ended by then is stopped at its next step


class Measuring:
    """Measures codes within ``seconds`` from ``start``; which, and on what, :mod:`annvq.choosing.halving` says.

    Attributes:
        result: each code as its last stage left it, by what was planned.
        rows, last: base and learn vectors of the last stage that measured anything; that stage and its vectors.
        codes: what was measured in it.
    """

    def __init__(
        self,
        data: Vectors,
        bits: int,
        seed: int,
        seconds: float,
        watch: Observer,
        start: float,
        kept: Kept | None = None,
        asked: Asked | None = None,
    ) -> None:
        self.data, self.bits, self.seed, self.seconds, self.watch = data, bits, seed, seconds, watch
        self.start, self.kept, self.asked = start, kept or Kept(), asked or Asked(len(data.base))
        self.until = (1 - _LATER_SHARE) * seconds
        self.points = 0  # begun or to be begun
        self.clock = Clock()
        self.result: dict[Candidate, Candidate] = {}
        self.rows = (0, 0)
        self.last: tuple[Stage, Vectors] | None = None
        self.codes: dict[Candidate, Code] = {}

    @property
    def vectors(self) -> Vectors:
        """What the last stage measured on."""
        return self.data if self.last is None else self.last[1]

    @property
    def last_rows(self) -> Rows:
        """How many that are, and how long the last stage trained."""
        assert self.last is not None  # there was one
        return rows_of(*self.last)

    def elapsed(self) -> float:
        return perf_counter() - self.start

    def beyond(self, c: Candidate) -> Candidate | None:
        """``c`` with the fewest more bits that its kind can have, measured as it was; None where there is no time."""
        larger = _larger(c, self.bits, len(self.data.learn))
        if larger is None or self.last is None:
            return None
        stage, data = self.last
        bits = self.bits + sum(larger.nbits) - sum(c.nbits)
        if self.elapsed() + self.expects(larger) > self.seconds:
            return None
        what = self.what(larger, data, stage.effort)
        self.expect(1)
        row = self.row(f"{larger.label} ({bits} bits)", what, partial(self._measure, larger, data, stage, _GRACE, bits))
        measured = not row.get("stopped") and row["error"] is None
        return self._found(larger, row, stage, data) if measured else None

    def expects(self, c: Candidate) -> float:
        """Seconds that measuring ``c`` as the last stage did would take."""
        return self.clock.expects(c, self.last_rows)

    def what(self, c: Candidate, data: Vectors, effort: float) -> dict[str, Any]:
        """What a measurement of ``c`` is known by."""
        return {"data": data.digest, **c.identity, "effort": effort, "seed": self.seed}

    def row(self, label: str, what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> Row:
        """What ``measure`` gives, now or before, as a row with ``took``, the seconds it took; one that was stopped
        counts no more."""
        point, before = Point(label, {}, (), measure), self.kept.find(what)
        self.watch.started(point)
        if before is not None:
            self.watch.finished(point, before, measured=False)
            return before
        begun = self.elapsed()
        row = {**measure_point(point), "took": self.elapsed() - begun}
        if not row.get("stopped"):
            self.kept.keep(what, row)
        self.watch.finished(point, row, measured=True)
        return row

    def part(self, learn: int, base: int) -> Vectors:
        """So many learn and base vectors of the sample, with all its queries."""
        data = self.data
        return prepared(data.metric, data.base[:base], data.learn[:learn], data.queries)

    def expect(self, more: int) -> None:
        """So many more points, or fewer, than expected."""
        self.points += more
        self.watch.planned(self.points)

    def measure_all(self, stage: Stage, data: Vectors, planned: Sequence[Candidate], until: float) -> int:
        """Measure those of ``planned`` that should end by ``until``: the first of each kind, the cheapest before the
        others, then the rest likewise. Returns how many were measured."""
        rows = rows_of(stage, data)
        of_kind = {c.kind: c for c in reversed(planned)}
        if self.last is None or self.last[1] is not data:
            self.codes = {}
        self.expect(len(planned))
        count = 0
        for c in sorted(planned, key=lambda c: (of_kind[c.kind] is not c, estimate(c, rows))):
            needed, what = self.clock.expects(c, rows), self.what(c, data, stage.effort)
            first = all(r.recall is None for r in self.result.values())
            # A kind that was never looked at costs more than measuring the others once more would gain.
            end = max(self.until, until) if of_kind[c.kind] is c else until
            if self.elapsed() + needed > end and not first and self.kept.find(what) is None:
                self._skip(c, f"{WOULD_TAKE}about {needed:.0f} s")
                continue
            grace = None if first else _GRACE
            row = self.row(f"{c.label} ({stage.name})", what, partial(self._measure, c, data, stage, grace))
            if row.get("stopped"):
                self._skip(c, f"stopped after {row['took']:.0f} s", begun=True)
                continue
            count += 1
            if row["error"] is None:
                self.clock.tell(c, rows, row["took"])
            self.result[c] = self._found(c, row, stage, data)
            self.rows, self.last = (len(data.base), len(data.learn)), (stage, data)
        return count

    def _found(self, c: Candidate, row: Row, stage: Stage, data: Vectors) -> Candidate:
        """``c`` as a row of ``stage`` shows it."""
        later = None
        if row["error"] is None:
            later = train_s_at(c, row["train_s"], rows_of(stage, data), self.asked.n)
        return replace(c, stage=stage.name, **figures(row, c.criterion), train_s_at_n=later)

    def _skip(self, c: Candidate, why: str, *, begun: bool = False) -> None:
        """There is no time for it: what was measured of it before stays."""
        self.expect(0 if begun else -1)
        if self.result[c].stage == "planned":
            self.result[c] = replace(c, skipped=why)

    def _measure(
        self, c: Candidate, data: Vectors, stage: Stage, grace: float | None, bits: int | None = None
    ) -> dict[str, Any]:
        code = self.new_code(c, stage.effort, bits)
        row = self.measure(code, data, grace)
        if bits is None and not row.get("stopped"):
            self.codes[c] = code
        return row

    def new_code(self, c: Candidate, effort: float, bits: int | None = None) -> Code:
        """``c``, untrained, scanned flat."""
        options = {"nbits": max(c.nbits), "norm": c.norm if c.norm else "auto", "effort": effort}
        options |= ({"norm_free": True} if c.norm_free else {}) | ({"decoded": True} if c.decoded else {})
        return make_code(f"annvq.{c.kind}", Budget(c.dim, bits or self.bits, c.metric), options, self.seed)

    def measure(self, code: Code, data: Vectors, grace: float | None = _GRACE) -> dict[str, Any]:
        """The columns of a row; of a code that does not end within ``grace`` times the time there is, ``stopped``."""
        try:
            watched = code if grace is None else Stoppable(code, self._left(grace))
            return measure(watched, data, Timing(5, 3, 1.0), names_of(self.asked.k))
        except OutOfTimeError:
            return {"stopped": True}

    def _left(self, grace: float) -> Callable[[], float]:
        return lambda: grace * self.seconds - self.elapsed()


def _larger(c: Candidate, bits: int, n_learn: int) -> Candidate | None:
    """The code of the same kind with the fewest more bits, a byte at least and as many again at most; with equal
    codebooks where ``c`` has such."""

    def form(code: Candidate) -> tuple[Any, ...]:
        return code.kind, code.norm, code.norm_free, max(code.nbits), len(set(code.nbits)) == 1

    for more in range(8, bits + 1, 8):
        try:
            found = candidates(bits + more, c.dim, c.metric, n_learn, c.k)
        except ValueError:  # none fits
            continue
        for other in found:
            if form(other) == form(c):
                return other
    return None


def rows_of(stage: Stage, data: Vectors) -> Rows:
    """What a stage measures on."""
    return Rows(len(data.learn), len(data.base), len(data.queries), stage.effort)


def figures(row: dict[str, Any], criterion: str) -> dict[str, Any]:
    """A row's figures, as candidates have them."""
    kept = {k: row.get(k) for k in ("bits_per_vector", "mse", "train_s", "encode_us", "search_us", "wmops", "error")}
    found = {"recall": row.get(criterion), "recall_at_1": row.get("recall@1"), "figure": figure_of_row(row, criterion)}
    return kept | found
