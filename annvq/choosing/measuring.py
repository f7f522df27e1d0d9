"""Measuring the codes of a grid in two stages, within the time there is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from annvq.arrays import as_float32, host_array
from annvq.benchmarks.kinds.codes.points import Timing, measure
from annvq.benchmarks.plan import Point
from annvq.benchmarks.rivals import make_code
from annvq.benchmarks.roles import Budget
from annvq.benchmarks.run import Observer, measure_point
from annvq.benchmarks.vectors import Vectors, prepare
from annvq.choosing.grid import Candidate
from annvq.datasets import Dataset, exact_neighbors

CRITERION = "10-recall@10"
_LEARN_SHARE = 0.4
# How much longer a code takes than product codes, at least: better a little late than a kind unseen.
_COST = {"product": 1.0, "rotated-product": 2.5, "residual": 2.5, "additive": 4.0}


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


# Both at d = 128; vectors of more dimensions are screened on fewer.
# On fewer vectors small codebooks would win that do not on more; training less costs little of the order.
_SCREEN = Stage("screened", learn=4_000, base=4_000, effort=0.05)
_MEASURE = Stage("measured", learn=1 << 62, base=1 << 62, effort=0.5)
# Longer training makes a vector dearer when measured than when screened; less than so many times more says little more.
_DEARER, _WORTHWHILE = 2.5, 1.5
_FINALISTS = 3  # by recall, beside the best of each quantizer


def split(x: Any, metric: str, sample: int, nq: int, seed: int) -> Vectors:
    """Disjoint base, learn and queries from a seeded sample of ``x``."""
    n = int(x.shape[0])
    rows = np.random.default_rng(seed).choice(n, min(n, sample), replace=False)
    # In file order a memory map is read once; which part a row falls in is drawn apart.
    part = np.random.default_rng(seed + 1).permutation(len(rows))
    rows.sort()
    held = as_float32(host_array(x[rows]))
    _check(held, rows, metric)
    nq = max(1, min(nq, len(rows) // 10))
    n_learn = int(_LEARN_SHARE * len(rows))
    queries, learn, base = (held[p] for p in np.split(part, [nq, nq + n_learn]))
    return _prepared(metric, base, learn, queries)


def _check(held: npt.NDArray[Any], rows: npt.NDArray[Any], metric: str) -> None:
    """ValueError naming the row of x, where a vector cannot be used."""
    bad = ~np.isfinite(held).all(axis=1)
    if bad.any():
        raise ValueError(f"x must be finite in float32; row {rows[np.argmax(bad)]} has NaN or infinity")
    if metric == "cosine" and not held.any(axis=1).all():
        row = rows[np.argmin(held.any(axis=1))]
        raise ValueError(f"x must not hold zero vectors under cosine; row {row} is zero")


def _prepared(metric: str, base: Any, learn: Any, queries: Any) -> Vectors:
    neighbors, distances = exact_neighbors(base, queries, min(100, len(base)), metric=metric)
    return prepare(Dataset("sample", metric, base, learn, queries, neighbors, distances), {})


class Measuring:
    """The two stages, within their time."""

    def __init__(self, data: Vectors, bits: int, seed: int, seconds: float, watch: Observer) -> None:
        self.data, self.bits, self.seed, self.seconds, self.watch = data, bits, seed, seconds, watch
        self.start = perf_counter()
        self.points = 0  # begun or to be begun
        self.result: dict[Candidate, Candidate] = {}  # by what was planned
        self.rows = (0, 0)  # base and learn vectors of the last stage that measured anything

    def elapsed(self) -> float:
        return perf_counter() - self.start

    def run(self, planned: Sequence[Candidate]) -> list[Candidate]:
        """Every candidate as its last stage left it, in the grid's order."""
        self.result = {c: c for c in planned}
        screen = self._screen(planned)
        # A small sample is measured at once: its parts would say nothing.
        if 2 * screen.learn >= len(self.data.learn) or 2 * screen.base >= len(self.data.base):
            self._stage(_MEASURE, self.data, list(planned), dict.fromkeys(planned, 0.0))
            return list(self.result.values())
        part = self._part(screen.learn, screen.base)
        took = self._stage(screen, part, list(planned), dict.fromkeys(planned, 0.0))
        whole = len(self.data.learn) / screen.learn
        for finalists in (_finalists(self.result), *(_best(self.result)[:n] for n in (_FINALISTS, 2))):
            left = self.seconds - self.elapsed()
            more = min(left / (_DEARER * sum(took[c] for c in finalists) or 1.0), whole)
            if more >= _WORTHWHILE and len(finalists) > 1:
                self._again(part, finalists, {c: more * took[c] for c in finalists}, more)
                break
        return list(self.result.values())

    def _again(self, part: Vectors, finalists: list[Candidate], expected: dict[Candidate, float], more: float) -> None:
        """Measure the finalists on ``more`` times as much. They are compared with one another, so if one of them could
        not be measured in time, what screening found stands for all."""
        screened, rows = dict(self.result), self.rows
        data = self._part(round(more * len(part.learn)), round(more * len(part.base)))
        if len(self._stage(_MEASURE, data, finalists, expected)) < len(finalists):
            self.result, self.rows = screened, rows

    def _part(self, learn: int, base: int) -> Vectors:
        data = self.data
        return _prepared(data.metric, data.base[:base], data.learn[:learn], data.queries)

    def _expect(self, more: int) -> None:
        self.points += more
        self.watch.planned(self.points)

    def _screen(self, planned: Sequence[Candidate]) -> Stage:
        share = min(1.0, 128 / self.data.base.shape[1])
        entries = 2 ** max(max(c.nbits) for c in planned)
        return replace(_SCREEN, learn=max(int(_SCREEN.learn * share), 8 * entries), base=int(_SCREEN.base * share))

    def _stage(
        self, stage: Stage, data: Vectors, planned: Sequence[Candidate], expected: dict[Candidate, float]
    ) -> dict[Candidate, float]:
        """Measure those of ``planned`` that should end in time. Returns the seconds that each took."""
        points = {
            c: Point(f"{c.label} ({stage.name})", {}, (), partial(_measure_one, c, data, self.bits, self.seed, stage))
            for c in planned
        }
        self._expect(len(points))
        took: dict[Candidate, float] = {}
        for c, point in points.items():
            begun = self.elapsed()
            # Of what nothing is known yet, others tell how fast this machine is.
            needed = expected[c] or _COST[c.kind] * max((s / _COST[o.kind] for o, s in took.items()), default=0.0)
            late = begun + needed > self.seconds
            if late and any(r.stage != "planned" for r in self.result.values()):
                self._expect(-1)
                continue
            self.watch.started(point)
            row = measure_point(point)
            took[c] = self.elapsed() - begun
            self.result[c] = replace(c, stage=stage.name, **_figures(row))
            self.rows = (len(data.base), len(data.learn))
            self.watch.finished(point, row, measured=True)
        return took


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    kept = {k: row.get(k) for k in ("bits_per_vector", "mse", "train_s", "encode_us", "search_us", "wmops", "error")}
    return kept | {"recall": row.get(CRITERION), "recall_at_1": row.get("recall@1")}


def _best(result: dict[Candidate, Candidate]) -> list[Candidate]:
    """Those that have a recall, the highest first."""
    good = [c for c, figures in result.items() if figures.recall is not None]
    return sorted(good, key=lambda c: -(result[c].recall or 0.0))


def _finalists(result: dict[Candidate, Candidate]) -> list[Candidate]:
    """The best by recall, and the best of each quantizer: more vectors and longer training change their order."""
    ranked = _best(result)
    of_kind = {c.kind: c for c in reversed(ranked)}
    return [c for at, c in enumerate(ranked) if at < _FINALISTS or of_kind[c.kind] is c]


def _measure_one(c: Candidate, data: Vectors, bits: int, seed: int, stage: Stage) -> dict[str, Any]:
    options = {"nbits": max(c.nbits), "norm": c.norm if c.norm else "auto", "effort": stage.effort}
    options |= {"norm_free": True} if c.norm_free else {}
    return measure(make_code(f"annvq.{c.kind}", Budget(c.dim, bits, c.metric), options, seed), data, Timing(5, 3, 1.0))
