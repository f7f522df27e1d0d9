"""Choosing a code for a bit budget, by measuring: which quantizer, how many codebooks, which norm.

Measuring is staged, as in successive halving: every code of the grid on a part of the sample with short training, the
best of them again on as much of it as time allows, fewer where time is short. Time is bounded: no code is begun that
would not end within ``seconds``.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import sqrt
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from annvq.arrays import check_vectors, host_array, positive_int

if TYPE_CHECKING:
    from annvq.benchmarks.run import Observer

CRITERION = "10-recall@10"
# Times closer than this ratio are one time: they are measured, and measuring them again gives others.
_SAME_TIME = 1.1
_LEARN_SHARE = 0.4

NORM_FREE = "none: it follows from the code"
# (method of the harness, at most so many bits per codebook, norm), the most promising of each kind first; the norm is
# charged to the budget.
_GRID: tuple[tuple[str, int, str], ...] = (
    ("product", 8, "auto"),
    ("rotated-product", 8, "auto"),
    ("residual", 8, "uint8"),
    ("additive", 8, "uint8"),
    ("additive", 8, NORM_FREE),
    ("residual", 8, NORM_FREE),
    ("product", 4, "auto"),
    ("residual", 6, "uint8"),
    ("additive", 6, "uint8"),
    ("product", 6, "auto"),
    ("residual", 8, "float32"),
    ("product", 10, "auto"),
    ("residual", 10, "uint8"),
)
# How much longer a code takes than product codes, at least: better a little late than a kind unseen.
_COST = {"product": 1.0, "rotated-product": 2.5, "residual": 2.5, "additive": 4.0}
# Codebooks of more entries than the usual 256 are tried where each entry has this many learn vectors.
_VECTORS_PER_ENTRY, _USUAL_ENTRIES = 20, 256


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


@dataclass(frozen=True)
class Candidate:
    """One code as measured.

    ``stage`` is ``"measured"`` on as much of the sample as time allows, ``"screened"`` on a part of it, or
    ``"planned"`` when time ran out before. ``error`` says why a code could not be measured. Figures that do not exist
    are None.
    """

    kind: str
    nbits: tuple[int, ...]
    norm: str | None
    metric: str
    dim: int
    bits_per_vector: float | None = None
    recall: float | None = None
    recall_at_1: float | None = None
    mse: float | None = None
    train_s: float | None = None
    encode_us: float | None = None
    search_us: float | None = None
    wmops: float | None = None
    error: str | None = None
    stage: Literal["planned", "screened", "measured"] = "planned"
    norm_free: bool = False

    @property
    def label(self) -> str:
        """Kind, codebooks and norm in one phrase."""
        books = f"{len(self.nbits)}x{self.nbits[0]}" if len(set(self.nbits)) == 1 else "+".join(map(str, self.nbits))
        norm = f" + {self.norm} norm" if self.norm else ", norm-free" if self.norm_free else ""
        return f"{self.kind} {books}{norm}"

    def code_line(self) -> str:
        """The Python that makes this index."""
        from annvq.quantizers.registry import quantizer_class

        nbits = self.nbits[0] if len(set(self.nbits)) == 1 else self.nbits
        norm = f', norm="{self.norm}"' if self.norm else ""
        free = ", norm_free=True" if self.norm_free else ""
        quantizer = (
            f"annvq.{quantizer_class(self.kind).__name__}(dim={self.dim}, M={len(self.nbits)}, nbits={nbits}{free})"
        )
        return f'annvq.FlatIndex({quantizer}.fit(x), metric="{self.metric}"{norm})'


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` found.

    Attributes:
        n, n_learn, nq: base, learn and query vectors of the last stage.
        candidates: every code, with the figures of the last stage it was in.
        front: those of the last stage that none other beats; highest recall first.
        recommended: one of the front; ``reason`` says why.
        seconds: what it took.
    """

    bits: int
    n: int
    n_learn: int
    nq: int
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    recommended: Candidate
    reason: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def effort(self) -> str:
        """How many codes were measured on what, in a sentence or two."""
        counts = {s: sum(c.stage == s for c in self.candidates) for s in ("measured", "screened", "planned")}
        seen, total = counts["measured"] + counts["screened"], len(self.candidates)
        text = f"{seen} of {total} codes measured, in {self.seconds:.0f} s, trained on {self.n_learn:,} vectors."
        if counts["measured"] and counts["screened"]:
            text += f" {counts['screened']} only on a part of the sample, where {counts['measured']} did better."
        if counts["planned"]:
            text += f" Time ran out before {counts['planned']} more; more seconds measure them."
        elif not counts["measured"]:
            text += " That is a part of the sample; more seconds measure the best on all of it."
        return text

    def table(self) -> Any:
        """A rich table of the candidates; those on the Pareto front are marked."""
        from rich.table import Table

        table = Table(
            title=f"{self.bits} bits per vector; {self.n:,} vectors, {self.nq:,} held-out queries",
            title_justify="left",
        )
        for name in ("", "code", CRITERION, "recall@1", "MSE", "train s", "encode µs", "search µs", "WMOPS"):
            table.add_column(name, justify="left" if name in ("", "code") else "right")
        order = ("measured", "screened", "planned")
        last = self.recommended.stage
        for c in sorted(self.candidates, key=lambda c: (order.index(c.stage), -(c.recall or -1.0))):
            if c.error is not None or c.stage == "planned":
                table.add_row("", c.label, f"[dim]{c.error or 'not measured: no time left'}[/dim]")
                continue
            mark = "★" if c is self.recommended else ("•" if c in self.front else "")
            values = (c.recall, c.recall_at_1, c.mse, c.train_s, c.encode_us, c.search_us, c.wmops)
            formats = (".3f", ".3f", ".4g", ".1f", ".2f", ".0f", ".3g")
            cells = [format(v, f) if v is not None else "–" for v, f in zip(values, formats, strict=True)]
            table.add_row(mark, c.label, *cells, style=None if c.stage == last else "dim")
        table.caption = "★ recommended, • on the Pareto front of recall, encoding and search time" + (
            "; dim: estimates from a part of the sample and very short training" if last == "measured" else ""
        )
        table.caption_justify = "left"
        return table


def choose(
    x: Any,
    *,
    bits: int,
    metric: str = "l2",
    seconds: float = 60.0,
    sample: int = 50_000,
    nq: int = 500,
    seed: int = 0,
    threads: int | None = None,
    observer: "Observer | None" = None,
) -> Choice:
    """Measure a grid of codes at ``bits`` bits per vector on a sample of ``x`` and recommend one.

    The sample is split in three disjoint parts: queries, learn vectors, and a base to search. Every bit
    stored per vector is charged, the norm of residual and additive codes among them. Training is shorter than
    ``fit``'s own, alike for all codes.

    Args:
        x: (n, d) vectors, NumPy (memory maps too) or torch.
        bits: bits per vector in all.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        seconds: to spend, beside reading the sample. At least one code is measured, whatever it takes, and a code that
            has been begun is ended.
        sample: at most so many vectors are looked at.
        nq: queries held out, at most a tenth of the sample.
        seed: of the sample and of training.
        threads: default all that annvq uses.
        observer: told of progress.

    Raises:
        TypeError, ValueError: x holds no such vectors, too few of them, or no code fits the budget.
    """
    check_vectors(x, None, "x")
    positive_int(bits, "bits")
    positive_int(sample, "sample")
    positive_int(nq, "nq")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ValueError(f"seconds must be a positive number, got {seconds!r}")
    from annvq.benchmarks import environment
    from annvq.benchmarks.run import Observer
    from annvq.threads import get_num_threads

    if int(x.shape[0]) < 1000:
        raise ValueError(f"x must have at least 1000 vectors to choose on, got {int(x.shape[0])}")
    with environment.pinned_threads(get_num_threads() if threads is None else positive_int(threads, "threads")):
        data = _split(x, metric, sample, nq, seed)
        measuring = _Measuring(data, bits, seed, seconds, observer or Observer())
        candidates = measuring.run(_candidates(bits, data.base.shape[1], data.metric, len(data.learn)))
    good = [c for c in candidates if c.error is None and c.stage != "planned"]
    if not good:
        failed = next(c for c in candidates if c.error is not None)
        raise ValueError(f"bits={bits}: no code could be measured; the first: {failed.error}")
    last = [c for c in good if c.stage == "measured"] or good
    front = pareto(last)
    best, reason = recommend(front, len(data.queries))
    n, n_learn = measuring.rows
    return Choice(
        bits, n, n_learn, len(data.queries), tuple(candidates), tuple(front), best, reason, measuring.elapsed()
    )


def _split(x: Any, metric: str, sample: int, nq: int, seed: int) -> Any:
    """Disjoint base, learn and queries from a seeded sample of ``x``."""
    n = int(x.shape[0])
    rows = np.random.default_rng(seed).choice(n, min(n, sample), replace=False)
    # In file order a memory map is read once; which part a row falls in is drawn apart.
    part = np.random.default_rng(seed + 1).permutation(len(rows))
    rows.sort()
    with np.errstate(over="ignore"):
        held = np.ascontiguousarray(host_array(x[rows]), dtype=np.float32)
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


def _prepared(metric: str, base: Any, learn: Any, queries: Any) -> Any:
    from annvq.benchmarks.runners.codes import prepare
    from annvq.datasets import Dataset, exact_neighbors

    neighbors, distances = exact_neighbors(base, queries, min(100, len(base)), metric=metric)
    return prepare(Dataset("sample", metric, base, learn, queries, neighbors, distances), {})


class _Measuring:
    """The two stages, within their time."""

    def __init__(self, data: Any, bits: int, seed: int, seconds: float, watch: "Observer") -> None:
        self.data, self.bits, self.seed, self.seconds, self.watch = data, bits, seed, seconds, watch
        self.start = perf_counter()
        self.points: list[Any] = []
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

    def _again(self, part: Any, finalists: list[Candidate], expected: dict[Candidate, float], more: float) -> None:
        """Measure the finalists on ``more`` times as much. They are compared with one another, so if one of them could
        not be measured in time, what screening found stands for all."""
        screened, rows = dict(self.result), self.rows
        data = self._part(round(more * len(part.learn)), round(more * len(part.base)))
        if len(self._stage(_MEASURE, data, finalists, expected)) < len(finalists):
            self.result, self.rows = screened, rows

    def _part(self, learn: int, base: int) -> Any:
        data = self.data
        return _prepared(data.metric, data.base[:base], data.learn[:learn], data.queries)

    def _screen(self, planned: Sequence[Candidate]) -> Stage:
        share = min(1.0, 128 / self.data.base.shape[1])
        entries = 2 ** max(max(c.nbits) for c in planned)
        return replace(_SCREEN, learn=max(int(_SCREEN.learn * share), 8 * entries), base=int(_SCREEN.base * share))

    def _stage(
        self, stage: Stage, data: Any, planned: Sequence[Candidate], expected: dict[Candidate, float]
    ) -> dict[Candidate, float]:
        """Measure those of ``planned`` that should end in time. Returns the seconds that each took."""
        from annvq.benchmarks.run import measure_point
        from annvq.benchmarks.runners import Point

        points = {
            c: Point(f"{c.label} ({stage.name})", {}, (), partial(_measure_one, c, data, self.bits, self.seed, stage))
            for c in planned
        }
        self.points += points.values()
        self.watch.planned(self.points)
        took: dict[Candidate, float] = {}
        for c, point in points.items():
            begun = self.elapsed()
            # Of what nothing is known yet, others tell how fast this machine is.
            needed = expected[c] or _COST[c.kind] * max((s / _COST[o.kind] for o, s in took.items()), default=0.0)
            late = begun + needed > self.seconds
            if late and any(r.stage != "planned" for r in self.result.values()):
                self.points.remove(point)
                self.watch.planned(self.points)
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


def _measure_one(c: Candidate, data: Any, bits: int, seed: int, stage: Stage) -> dict[str, Any]:
    from annvq.benchmarks.baselines import Budget, make
    from annvq.benchmarks.runners.codes import Timing, measure

    options = {"nbits": max(c.nbits), "norm": c.norm if c.norm else "auto", "effort": stage.effort}
    options |= {"norm_free": True} if c.norm_free else {}
    return measure(make(f"annvq.{c.kind}", Budget(c.dim, bits, c.metric), options, seed), data, Timing(5, 3, 1.0))


def _candidates(bits: int, dim: int, metric: str, n_learn: int) -> Sequence[Candidate]:
    """Codes of the grid that fit the budget, the dimension and the learn vectors, each once."""
    from annvq.bits import NORM_BITS, codebook_bits
    from annvq.quantizers.registry import pays_norm

    found: dict[tuple[Any, ...], Candidate] = {}
    for kind, most, wanted in _GRID:
        pays, free = pays_norm(kind, metric), wanted == NORM_FREE
        norm = wanted if pays and not free else None
        if free and not pays:
            continue
        left = bits - NORM_BITS[norm]
        if left < 1:
            continue
        nbits = codebook_bits(kind, dim, left, most)
        entries = 2 ** max(nbits)
        enough = entries * (_VECTORS_PER_ENTRY if entries > _USUAL_ENTRIES else 1)
        if (kind.endswith("product") and dim % len(nbits)) or enough > n_learn:
            continue
        found.setdefault((kind, nbits, norm), Candidate(kind, nbits, norm, metric, dim, norm_free=free))
    if not found:
        raise ValueError(f"bits={bits}: no code of the grid fits dimension {dim} and {n_learn} learn vectors")
    return list(found.values())


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in recall without costing more to encode or search; highest recall first.

    Raises:
        ValueError: a candidate was not measured.
    """
    for c in candidates:
        if None in (c.recall, c.encode_us, c.search_us):
            raise ValueError(f"candidates must have been measured; {c.label} has no recall or no times")

    def beats(a: Candidate, b: Candidate) -> bool:
        costs = ((a.encode_us, b.encode_us), (a.search_us, b.search_us))
        no_dearer = all(mine <= _SAME_TIME * its for mine, its in costs)  # type: ignore[operator]
        cheaper = all(mine < its for mine, its in costs)  # type: ignore[operator]
        better, equal = a.recall > b.recall, a.recall == b.recall  # type: ignore[operator]
        return no_dearer and (better or (equal and cheaper))

    front = [c for c in candidates if not any(beats(other, c) for other in candidates)]
    return sorted(front, key=lambda c: (-(c.recall or 0), c.search_us or 0))


def recommend(front: Sequence[Candidate], nq: int) -> tuple[Candidate, str]:
    """The code with the highest recall, or a cheaper one that the measurement cannot tell from it.

    Two recalls are one where they differ by less than a standard error of the measured recall (at least
    0.005); among such codes the one with the least product of encoding and search time is taken.
    """
    best = front[0]
    top = best.recall or 0.0
    error = max(0.005, sqrt(max(top * (1 - top), 0) / (10 * nq)))
    close = [c for c in front if (c.recall or 0) >= top - error]
    chosen = min(close, key=lambda c: (c.encode_us or 0) * (c.search_us or 0))
    figures = (
        f"{CRITERION} {chosen.recall:.3f}, {chosen.encode_us:.1f} µs to encode a vector, "
        f"{chosen.search_us:.0f} µs a query"
    )
    if chosen is best:
        others = [c for c in front if c is not best]
        reason = f"Highest recall of the codes measured: {figures}."
        if others:
            second = others[0]
            reason += f" Next on the front: {second.label}, {second.recall:.3f} at {second.encode_us:.1f} µs to encode."
        return chosen, reason
    return chosen, (
        f"{figures}. {best.label} reaches {top:.3f}, within the measurement's error (±{error:.3f}), "
        f"but costs {best.encode_us:.1f} µs to encode and {best.search_us:.0f} µs a query."
    )
