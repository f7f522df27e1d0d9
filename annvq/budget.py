"""Choosing a code for a bit budget, by measuring: which quantizer, how many codebooks, which norm."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import check_vectors, positive_int

if TYPE_CHECKING:
    from annvq.benchmarks.run import Observer

CRITERION = "10-recall@10"
# Times closer than this ratio are one time: they are measured, and measuring them again gives others.
_SAME_TIME = 1.1
_LEARN_SHARE, _MAX_LEARN = 0.3, 20_000

# (quantizer, at most so many bits per codebook, norm); the norm is charged to the budget.
_GRID: tuple[tuple[str, int, str], ...] = (
    ("product", 4, "auto"),
    ("product", 6, "auto"),
    ("product", 8, "auto"),
    ("product", 10, "auto"),
    ("residual", 6, "uint8"),
    ("residual", 8, "uint8"),
    ("residual", 8, "float32"),
    ("residual", 10, "uint8"),
    ("additive", 6, "uint8"),
    ("additive", 8, "uint8"),
)


@dataclass(frozen=True)
class Candidate:
    """One code as measured; ``error`` says why it could not be, and the figures are then None."""

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

    @property
    def label(self) -> str:
        """Kind, codebooks and norm in one phrase."""
        books = f"{len(self.nbits)}x{self.nbits[0]}" if len(set(self.nbits)) == 1 else "+".join(map(str, self.nbits))
        return f"{self.kind} {books}" + (f" + {self.norm} norm" if self.norm else "")

    def code_line(self) -> str:
        """The Python that makes this index."""
        names = {"product": "ProductVQ", "residual": "ResidualVQ", "additive": "AdditiveVQ"}
        nbits = self.nbits[0] if len(set(self.nbits)) == 1 else self.nbits
        norm = f', norm="{self.norm}"' if self.norm else ""
        quantizer = f"annvq.{names[self.kind]}(dim={self.dim}, M={len(self.nbits)}, nbits={nbits})"
        return f'annvq.FlatIndex({quantizer}.fit(x), metric="{self.metric}"{norm})'


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` found: every candidate, the Pareto front and one recommendation with its reason."""

    bits: int
    n: int
    nq: int
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    recommended: Candidate
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def table(self) -> Any:
        """A rich table of the candidates; those on the Pareto front are marked."""
        from rich.table import Table

        table = Table(
            title=f"{self.bits} bits per vector; {self.n:,} vectors, {self.nq:,} held-out queries",
            title_justify="left",
        )
        for name in ("", "code", CRITERION, "recall@1", "MSE", "train s", "encode µs", "search µs", "WMOPS"):
            table.add_column(name, justify="left" if name in ("", "code") else "right")
        for c in sorted(self.candidates, key=lambda c: -(c.recall if c.recall is not None else -1)):
            if c.error is not None:
                table.add_row("", c.label, f"[dim]{c.error}[/dim]")
                continue
            mark = "★" if c is self.recommended else ("•" if c in self.front else "")
            values = (c.recall, c.recall_at_1, c.mse, c.train_s, c.encode_us, c.search_us, c.wmops)
            formats = (".3f", ".3f", ".4g", ".1f", ".2f", ".0f", ".3g")
            cells = [format(v, f) if v is not None else "–" for v, f in zip(values, formats, strict=True)]
            table.add_row(mark, c.label, *cells)
        table.caption = "★ recommended, • on the Pareto front of recall, encoding and search time"
        table.caption_justify = "left"
        return table


def choose(
    x: Any,
    *,
    bits: int,
    metric: str = "l2",
    sample: int = 50_000,
    nq: int = 500,
    seed: int = 0,
    threads: int | None = None,
    observer: "Observer | None" = None,
) -> Choice:
    """Measure a grid of codes at ``bits`` bits per vector on a sample of ``x`` and recommend one.

    The sample is split in three disjoint parts: queries, learn vectors, and a base to search. Every bit
    stored per vector is charged, the norm of residual and additive codes among them.

    Args:
        x: (n, d) vectors, NumPy (memory maps too) or torch.
        bits: bits per vector in all.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
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
    from annvq.benchmarks import environment
    from annvq.config import get_num_threads

    if int(x.shape[0]) < 1000:
        raise ValueError(f"x must have at least 1000 vectors to choose on, got {int(x.shape[0])}")
    with environment.pinned_threads(get_num_threads() if threads is None else positive_int(threads, "threads")):
        data = _split(x, metric, sample, nq, seed)
        candidates = _measure_all(data, bits, seed, observer)
    good = [c for c in candidates if c.error is None]
    if not good:
        raise ValueError(f"bits={bits}: no code could be measured; the first: {candidates[0].error}")
    front = pareto(good)
    best, reason = recommend(front, len(data.queries))
    return Choice(bits, len(data.base), len(data.queries), tuple(candidates), tuple(front), best, reason)


def _split(x: Any, metric: str, sample: int, nq: int, seed: int) -> Any:
    """Disjoint base, learn and queries from a seeded sample of ``x``."""
    from annvq.benchmarks.runners.codes import prepare
    from annvq.datasets import Dataset, exact_neighbors

    n = int(x.shape[0])
    rows = np.random.default_rng(seed).choice(n, min(n, sample), replace=False)
    # In file order a memory map is read once; which part a row falls in is drawn apart.
    part = np.random.default_rng(seed + 1).permutation(len(rows))
    held: npt.NDArray[Any] = np.asarray(x[np.sort(rows)])
    nq = max(1, min(nq, len(rows) // 10))
    n_learn = min(_MAX_LEARN, int(_LEARN_SHARE * len(rows)))
    queries, learn, base = (np.ascontiguousarray(held[p], dtype=np.float32) for p in np.split(part, [nq, nq + n_learn]))
    neighbors, distances = exact_neighbors(base, queries, min(100, len(base)), metric=metric)
    return prepare(Dataset("sample", metric, base, learn, queries, neighbors, distances), {})


def _measure_all(data: Any, bits: int, seed: int, observer: "Observer | None") -> list[Candidate]:
    from annvq.benchmarks.run import Observer, measure_point
    from annvq.benchmarks.runners import Point

    watch = observer or Observer()
    planned = list(_candidates(bits, data.base.shape[1], data.metric, len(data.learn)))
    points = [Point(c.label, {}, (), partial(_measure_one, c, data, bits, seed)) for c in planned]
    watch.planned(points)
    measured = []
    for candidate, point in zip(planned, points, strict=True):
        watch.started(point)
        row = measure_point(point)
        figures = {k: row.get(k) for k in ("bits_per_vector", "mse", "train_s", "encode_us", "search_us", "wmops")}
        figures |= {"recall": row.get(CRITERION), "recall_at_1": row.get("recall@1"), "error": row["error"]}
        measured.append(Candidate(**{**asdict(candidate), **figures}))
        watch.finished(point, row, measured=True)
    return measured


def _measure_one(c: Candidate, data: Any, bits: int, seed: int) -> dict[str, Any]:
    from annvq.benchmarks.baselines import Budget, make
    from annvq.benchmarks.runners.codes import Timing, measure

    options = {"nbits": max(c.nbits), "norm": c.norm if c.norm else "auto"}
    return measure(make(f"annvq.{c.kind}", Budget(c.dim, bits, c.metric), options, seed), data, Timing(5, 3, 1.0))


def _candidates(bits: int, dim: int, metric: str, n_learn: int) -> Sequence[Candidate]:
    """Codes of the grid that fit the budget, the dimension and the learn vectors, each once."""
    from annvq.benchmarks.baselines import split_bits
    from annvq.complexity import NORM_BITS

    found: dict[tuple[Any, ...], Candidate] = {}
    for kind, most, wanted in _GRID:
        norm = wanted if kind != "product" and metric == "l2" else None
        left = bits - NORM_BITS[norm]
        if left < 1:
            continue
        nbits = split_bits(left, most)
        if (kind == "product" and dim % len(nbits)) or 2 ** max(nbits) > n_learn:
            continue
        found.setdefault((kind, nbits, norm), Candidate(kind, nbits, norm, metric, dim))
    if not found:
        raise ValueError(f"bits={bits}: no code of the grid fits dimension {dim} and {n_learn} learn vectors")
    return list(found.values())


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in recall without costing more to encode or search; highest recall first."""

    def beats(a: Candidate, b: Candidate) -> bool:
        assert None not in (a.recall, b.recall, a.encode_us, b.encode_us, a.search_us, b.search_us)
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
        reason = f"Highest recall of all codes at this budget: {figures}."
        if others:
            second = others[0]
            reason += f" Next on the front: {second.label}, {second.recall:.3f} at {second.encode_us:.1f} µs to encode."
        return chosen, reason
    return chosen, (
        f"{figures}. {best.label} reaches {top:.3f}, within the measurement's error (±{error:.3f}), "
        f"but costs {best.encode_us:.1f} µs to encode and {best.search_us:.0f} µs a query."
    )
