"""Measuring the codes of a grid, ever fewer on ever more vectors, within the time there is."""

import math
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
from annvq.choosing.recommending import takes_too_long
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


# Both at d = 128. Of more dimensions fewer are coded, and more are learned from: sums of entries over all dimensions
# need that, and learning hardly takes longer for it.
# On fewer vectors small codebooks would win that do not on more; training less costs little of the order.
_SCREEN = Stage("screened", learn=4_000, base=4_000, effort=0.05)
_MEASURE = Stage("measured", learn=1 << 62, base=1 << 62, effort=0.5)
_MOST_LEARN = 2  # times as many learn vectors, of many dimensions
_SCREENING_SHARE = 0.6  # of the time; the first code of each kind may have what is left for later rounds, too
_LATER_SHARE = 0.15  # of the time is left to what comes after: other forms of the best, predictions
_FIRST_SHARE = 0.2  # of the time: where the cheapest code takes more, all are screened on fewer vectors
_WORTHWHILE = 1.5  # less than so many times the vectors says little more
_FINALISTS = 3  # by recall; before them half of the codes go on, and then half of those
_CHANCE = 0.8  # of the best recall: the best of a kind that has less has no chance of becoming the best
_ROUGHLY = 1.5  # times too long learning seems to take where codes were but screened, it may be in time
_LEARN_EACH = 4  # learn vectors for each entry of the largest codebook, at least, where codes are screened
_BASE_EACH = 7  # times k base vectors, at least
_GRACE = 1.1  # times the time there is: a code that has not ended by then is stopped at its next step


class Measuring:
    """Every code on a part of the sample, then ever fewer on ever more of it, within ``seconds`` from ``start``; where
    these are infinite, every code on all of it.

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
        return self._rows(*self.last)

    def elapsed(self) -> float:
        return perf_counter() - self.start

    def run(self, planned: Sequence[Candidate]) -> list[Candidate]:
        """Every candidate as its last stage left it, in the grid's order."""
        self.result = {c: c for c in planned}
        screen = self._screen(planned)
        # A small sample is measured at once, where there is time: its parts say little.
        learn, base = min(screen.learn, len(self.data.learn) // 2), min(screen.base, len(self.data.base) // 2)
        small = learn < screen.learn or base < screen.base
        needed = sum(self.clock.expects(c, self._rows(_MEASURE, self.data)) for c in planned)
        at_once = needed <= self.until or learn < _LEARN_EACH * _entries(planned)
        if (small and at_once) or self.seconds == math.inf:
            self._stage(_MEASURE, self.data, planned, self.until)
            return list(self.result.values())
        part = self._part(learn, base)
        self._stage(screen, part, planned, _SCREENING_SHARE * self.seconds)
        self._halve(part)
        if all(c.stage != "measured" for c in self.result.values()):  # then there is time for others on the part
            self._stage(screen, part, [c for c in planned if self.result[c].stage == "planned"], self.until)
        return list(self.result.values())

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

    def _halve(self, part: Vectors) -> None:
        """Measure the best of those screened on ``part`` on more of the sample, fewer and fewer on more and more."""
        left, reached = self._finalists(), 1.0
        whole = len(self.data.learn) / len(part.learn)
        while len(left) > 1:
            time = self.until - self.elapsed()
            more = self._growth(left, part, whole, time)
            last = more >= whole or len(left) <= _FINALISTS
            if not last:
                more = self._growth(left, part, whole, time / 2)
            if more >= _WORTHWHILE * reached:
                if not self._again(left, part, more):
                    break
                reached = more
                if last:
                    break
            elif len(left) == 2:
                break
            left = sorted(left, key=lambda c: -(self.result[c].recall or 0.0))[: max(2, len(left) // 2)]

    def _growth(self, codes: Sequence[Candidate], part: Vectors, whole: float, time: float) -> float:
        """How many times ``part``, at most ``whole``, these codes can be measured on in ``time``; 0 where not once."""
        rows, more = self._rows(_MEASURE, part), whole
        while sum(self.clock.expects(c, rows.times(more)) for c in codes) > time:
            more /= 1.1
            if more < 1:
                return 0.0
        return more

    def _again(self, finalists: Sequence[Candidate], part: Vectors, more: float) -> bool:
        """Measure the finalists on ``more`` times as much. They are compared with one another, so if one of them could
        not be measured in time, what was found before stands for all. Returns whether all were."""
        before = dict(self.result), self.rows, self.last, self.codes
        data = self._part(round(more * len(part.learn)), round(more * len(part.base)))
        if self._stage(_MEASURE, data, finalists, self.until) < len(finalists):
            self.result, self.rows, self.last, self.codes = before
            return False
        for c, figures in self.result.items():
            if c not in finalists and figures.stage == "measured":
                self.result[c] = replace(figures, stage="screened")
        return True

    def _finalists(self) -> list[Candidate]:
        """Half of the codes, the best by recall, and the best of each kind that has a chance: more vectors and longer
        training change their order."""
        ranked = sorted(
            (c for c, figures in self.result.items() if figures.recall is not None and not self._hopeless(figures)),
            key=lambda c: -(self.result[c].recall or 0.0),
        )
        if not ranked:
            return []
        of_kind = {c.kind: c for c in reversed(ranked)}
        least = _CHANCE * (self.result[ranked[0]].recall or 0.0)
        many = max(_FINALISTS, len(ranked) // 2)
        return [
            c
            for at, c in enumerate(ranked)
            if at < many or (of_kind[c.kind] is c and (self.result[c].recall or 0.0) >= least)
        ]

    def _hopeless(self, measured: Candidate) -> bool:
        """Whether learning it will take too long even if it takes less than is expected."""
        later = measured.train_s_at_n
        return later is not None and takes_too_long(replace(measured, train_s_at_n=later / _ROUGHLY), self.asked)

    def _part(self, learn: int, base: int) -> Vectors:
        data = self.data
        return prepared(data.metric, data.base[:base], data.learn[:learn], data.queries)

    def _rows(self, stage: Stage, data: Vectors) -> Rows:
        return Rows(len(data.learn), len(data.base), len(data.queries), stage.effort)

    def expect(self, more: int) -> None:
        """So many more points, or fewer, than expected."""
        self.points += more
        self.watch.planned(self.points)

    def _screen(self, planned: Sequence[Candidate]) -> Stage:
        share = min(1.0, 128 / self.data.base.shape[1])
        entries = _entries(planned)
        learn, base = int(_SCREEN.learn * min(1 / share, _MOST_LEARN)), int(_SCREEN.base * share)
        stage = replace(_SCREEN, learn=max(learn, 8 * entries), base=max(base, min(1000, _SCREEN.base)))
        least = min(_BASE_EACH * self.asked.k, stage.base)
        # One code is measured whatever it takes, so that must not be long.
        while self._least(stage, planned) > _FIRST_SHARE * self.seconds and stage.learn > _LEARN_EACH * entries:
            stage = replace(stage, learn=max(stage.learn // 2, _LEARN_EACH * entries), base=max(stage.base // 2, least))
        return stage

    def _least(self, stage: Stage, planned: Sequence[Candidate]) -> float:
        """Seconds that the cheapest code is expected to take."""
        rows = Rows(stage.learn, stage.base, len(self.data.queries), stage.effort)
        return min(self.clock.expects(c, rows) for c in planned)

    def _stage(self, stage: Stage, data: Vectors, planned: Sequence[Candidate], until: float) -> int:
        """Measure those of ``planned`` that should end by ``until``: the first of each kind, the cheapest before the
        others, then the rest likewise. Returns how many were measured."""
        rows = self._rows(stage, data)
        of_kind = {c.kind: c for c in reversed(planned)}
        if self.last is None or self.last[1] is not data:
            self.codes = {}
        self.expect(len(planned))
        count = 0
        for c in sorted(planned, key=lambda c: (of_kind[c.kind] is not c, estimate(c, rows))):
            needed, what = self.clock.expects(c, rows), self.what(c, data, stage.effort)
            first = all(r.recall is None for r in self.result.values())
            # A kind that was never looked at costs more than measuring the others once more would gain.
            end = self.until if of_kind[c.kind] is c else until
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
            later = train_s_at(c, row["train_s"], self._rows(stage, data), self.asked.n)
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


def _entries(planned: Sequence[Candidate]) -> int:
    """Entries of the largest codebook."""
    return max(2 ** max(c.nbits) for c in planned)


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


def figures(row: dict[str, Any], criterion: str) -> dict[str, Any]:
    """A row's figures, as candidates have them."""
    kept = {k: row.get(k) for k in ("bits_per_vector", "mse", "train_s", "encode_us", "search_us", "wmops", "error")}
    found = {"recall": row.get(criterion), "recall_at_1": row.get("recall@1"), "figure": figure_of_row(row, criterion)}
    return kept | found
