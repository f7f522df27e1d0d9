"""Choosing among measured codes: the Pareto front, and one of it that is recommended."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

from rich.table import Table

from annvq.arrays import check_vectors, positive_int
from annvq.benchmarks import environment
from annvq.benchmarks.report import number
from annvq.benchmarks.run import Observer
from annvq.benchmarks.statistics import SAME, told_apart
from annvq.choosing.ahead import Ahead
from annvq.choosing.budget import bits_of
from annvq.choosing.finals import Finals
from annvq.choosing.forms import PLAIN
from annvq.choosing.grid import Candidate, candidates
from annvq.choosing.keeping import Kept
from annvq.choosing.measuring import CRITERION, Measuring
from annvq.choosing.sampling import Further, split
from annvq.threads import get_num_threads

# Times closer than this ratio are one time: they are measured, and measuring them again gives others.
_SAME_TIME = 1.1
_SAME_RECALL = 0.01  # a code that has so much less is not recommended, even where the queries do not tell it apart


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` found.

    Attributes:
        n, n_learn, nq: base, learn and query vectors of the last stage.
        candidates: every code of the grid, with the figures of the last stage it was in, and other forms of the best.
        front: those of the last stage that none other beats; highest recall first.
        recommended: one of the front; ``reason`` says why.
        seconds: what it took.
        beyond: the recommended code with more bits, where there was time to measure it.
        next_better: what it would take to find more, in a sentence.
        threads: that were used.
        for_n: vectors that recall is predicted among.
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
    beyond: Candidate | None = None
    next_better: str = ""
    threads: int = 1
    for_n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        listed = {name: [c.to_dict() for c in held[name]] for name in ("candidates", "front")}
        beyond = None if self.beyond is None else self.beyond.to_dict()
        return held | listed | {"recommended": self.recommended.to_dict(), "beyond": beyond}

    def prediction(self) -> str:
        """Recall of the recommended code among :attr:`for_n` vectors, in a sentence; empty where it was not
        predicted."""
        found = self.recommended.predicted
        if found is None:
            return ""
        listed = ", ".join(f"{name} {number(found[name], '.3f')}" for name in (CRITERION, "recall@1", "recall@10"))
        return f"{at_n(self.for_n).capitalize()} (predicted, from {self.recommended.predicted_from:,}): {listed}."

    def effort(self) -> str:
        """How many codes were measured on what, in a sentence or two."""
        grid = [c for c in self.candidates if c.form == PLAIN]
        counts = {s: sum(c.stage == s for c in grid) for s in ("measured", "screened", "planned")}
        seen, forms = counts["measured"] + counts["screened"], len(self.candidates) - len(grid)
        also = f" and {forms} other forms of the best" if forms > 1 else " and another form of one" if forms else ""
        text = f"{seen} of {len(grid)} codes{also} measured, in {self.seconds:.0f} s, "
        text += f"trained on {self.n_learn:,} vectors."
        if counts["measured"] and counts["screened"]:
            text += f" {counts['screened']} only on a part of the sample, where {counts['measured']} did better."
        if counts["planned"]:
            text += f" There was no time for {counts['planned']} more; more seconds measure them."
        elif not counts["measured"]:
            text += " That is a part of the sample; more seconds measure the best on all of it."
        return text

    def table(self) -> Any:
        """A rich table of the candidates; those on the Pareto front are marked."""
        table = Table(
            title=f"{self.bits} bits per vector; {self.n:,} vectors, {self.nq:,} held-out queries",
            title_justify="left",
        )
        title = f"{CRITERION} {at_n(self.for_n)} (predicted)"
        for name in ("", "code", CRITERION, title, "recall@1", "MSE", "train s", "encode µs", "search µs", "WMOPS"):
            table.add_column(name, justify="left" if name in ("", "code") else "right")
        order = ("measured", "screened", "planned")
        last = self.recommended.stage
        top = self.front[0].recall_figure
        for c in sorted(self.candidates, key=lambda c: (order.index(c.stage), -(c.recall or -1.0))):
            if c.error is not None or c.stage == "planned":
                table.add_row("", c.label, f"[dim]{c.error or f'not measured: {c.skipped}'}[/dim]")
                continue
            mark = "★" if c is self.recommended else ("•" if c in self.front else "")
            values = (c.recall, c.recall_at_1, c.mse, c.train_s, c.encode_us, c.search_us, c.wmops)
            formats = (".3f", ".3f", ".4g", ".1f", ".2f", ".0f", ".3g")
            cells = [format(v, f) if v is not None else "–" for v, f in zip(values, formats, strict=True)]
            cells[0] = number(c.recall_figure, ".3f")
            if c is not self.front[0] and c.stage == last and not told_apart(c.recall_figure, top):
                cells[0] = f"{SAME} {cells[0]}"
            cells.insert(1, number(c.predicted[CRITERION] if c.predicted else None, ".3f"))
            table.add_row(mark, c.label, *cells, style=None if c.stage == last else "dim")
        table.caption = (
            f"★ recommended, • on the Pareto front of recall, encoding and search time; ±: half of the 95 % interval; "
            f"{SAME}: {self.nq:,} queries do not tell it from the highest"
        ) + ("; dim: estimates from fewer vectors and shorter training" if last == "measured" else "")
        table.caption_justify = "left"
        return table


def choose(
    x: Any,
    *,
    bits: int | None = None,
    bytes_per_vector: int | None = None,
    memory: int | None = None,
    n: int | None = None,
    metric: str = "l2",
    seconds: float = 60.0,
    sample: int = 50_000,
    nq: int = 500,
    seed: int = 0,
    threads: int | None = None,
    observer: Observer | None = None,
    query_us: float | None = None,
    recall: float | None = None,
    exhaustive: bool = False,
    keep: str | os.PathLike[str] | None = None,
    fresh: bool = False,
) -> Choice:
    """Measure a grid of codes at a budget of bits per vector on a sample of ``x`` and recommend one.

    The sample is split in three disjoint parts: queries, learn vectors, and a base to search. Every bit
    stored per vector is charged, the norm of residual and additive codes among them, and what re-ranks; ids are not.
    Training is shorter than ``fit``'s own, alike for all codes. Of the best codes other forms are measured, in lists
    and re-ranked (:mod:`annvq.choosing.forms`), and recall is predicted among ``n`` vectors
    (:mod:`annvq.choosing.predicting`).

    Args:
        x: (n, d) vectors, NumPy (memory maps too) or torch.
        bits: bits per vector in all. Or another form of the budget:
        bytes_per_vector: so many bytes.
        memory: bytes for ``n`` vectors in memory, ids included (:func:`annvq.choosing.budget.bits_of`).
        n: vectors that the index will hold, which recall is predicted among; default: those of ``x``.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        seconds: to spend, by the wall clock. What each code takes is estimated before it is begun, from its size and
            from what others took; codes that would not end in time are not measured, and ``skipped`` says why. At least
            one code is measured, whatever it takes. On a machine that nothing else uses the whole ends within 1.25
            times this.
        sample: at most so many vectors are looked at.
        nq: queries held out, at most a tenth of the sample.
        seed: of the sample and of training.
        threads: default all that annvq uses.
        observer: told of progress.
        query_us: microseconds that a query may take among ``n`` vectors, about; default: any.
        recall: 10-recall@10 among ``n`` vectors that is enough, in (0, 1]: of the codes that are expected to reach it
            the quickest to search is recommended. Default: as much as can be had.
        exhaustive: every code of the grid on the whole sample, however long it takes; ``seconds`` is not looked at.
        keep: folder that what was measured is kept in, one row of ``results.jsonl`` each. The same choice goes on from
            there where it was stopped, or is given more seconds.
        fresh: forget first what that folder holds.

    Raises:
        TypeError, ValueError: x holds no such vectors, too few of them, or no code fits the budget.
    """
    x = check_vectors(x, None, "x")
    bits = bits_of(
        bits=bits, bytes_per_vector=bytes_per_vector, memory=memory, n=n if memory is not None or n is None else None
    )
    for_n = int(x.shape[0]) if n is None else positive_int(n, "n")
    positive_int(sample, "sample")
    positive_int(nq, "nq")
    for name, value in (("seconds", seconds), ("query_us", query_us)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise ValueError(f"{name} must be a positive number, got {value!r}")
    if recall is not None and (isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 < recall <= 1):
        raise ValueError(f"recall must be a number in (0, 1], got {recall!r}")
    if int(x.shape[0]) < 1000:
        raise ValueError(f"x must have at least 1000 vectors to choose on, got {int(x.shape[0])}")
    start = perf_counter()
    with environment.pinned_threads(get_num_threads() if threads is None else positive_int(threads, "threads")):
        data = split(x, metric, sample, nq, seed)
        kept = Kept(keep, fresh=fresh)
        measuring = Measuring(
            data, bits, seed, math.inf if exhaustive else seconds, observer or Observer(), start, kept
        )
        measuring.run(candidates(bits, data.base.shape[1], data.metric, len(data.learn)))
        finals = Finals(measuring, Ahead(measuring, for_n, Further(x, metric, sample, seed)))
        return _choice(measuring, finals, for_n, query_us, recall)


def _choice(measuring: Measuring, finals: Finals, for_n: int, query_us: float | None, recall: float | None) -> Choice:
    bits, data, codes = measuring.bits, measuring.data, finals.run()
    good = [c for c in codes if c.error is None and c.stage != "planned"]
    if not good:
        failed = next(c for c in codes if c.error is not None)
        raise ValueError(f"bits={bits}: no code could be measured; the first: {failed.error}")
    last = [c for c in good if c.stage == "measured"] or good
    front = pareto(last)
    best, reason = recommend(front, query_us, recall)
    closer = finals.closer(best)
    codes, front = ([closer if c is best else c for c in listed] for listed in (codes, front))
    best, reason = recommend(front, query_us, recall)  # a closer prediction may say that it is not enough
    n, n_learn = measuring.rows
    beyond = measuring.beyond(best) if best is front[0] and best.form == PLAIN else None
    return Choice(
        bits, n, n_learn, len(data.queries), tuple(codes), tuple(front), best, reason, measuring.elapsed(), beyond,
        next_better(front, best, beyond), get_num_threads(), for_n,
    )  # fmt: skip


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in recall without costing more to encode or search; highest recall first.

    Raises:
        ValueError: a candidate was not measured.
    """
    for c in candidates:
        if None in (c.recall, c.encode_us, c.search_us):
            raise ValueError(f"candidates must have been measured; {c.label} has no recall or no times")

    def beats(a: Candidate, b: Candidate) -> bool:
        costs = ((a.encode_us, b.encode_us), (a.query_us, b.query_us))
        no_dearer = all(mine <= _SAME_TIME * its for mine, its in costs)  # type: ignore[operator]
        cheaper = all(mine < its for mine, its in costs)  # type: ignore[operator]
        better, equal = a.recall > b.recall, a.recall == b.recall  # type: ignore[operator]
        return no_dearer and (better or (equal and cheaper))

    front = [c for c in candidates if not any(beats(other, c) for other in candidates)]
    return sorted(front, key=lambda c: (-(c.recall or 0), c.query_us or 0))


def recommend(
    front: Sequence[Candidate], query_us: float | None = None, recall: float | None = None
) -> tuple[Candidate, str]:
    """The code with the highest recall, or a cheaper one that the queries cannot tell from it.

    Codes are compared query by query. Of those that are within :data:`_SAME_RECALL` of the highest recall and that the
    queries do not tell from it (95 %), the one with the least product of encoding and search time is taken. Only those
    whose queries take no longer than ``query_us`` are looked at; where there are none, the quickest. Where some are
    expected to reach ``recall``, the one of these is taken whose queries take the least time.
    """
    if query_us is not None:
        quick = [c for c in front if (c.query_us or 0.0) <= query_us]
        if not quick:
            chosen = min(front, key=lambda c: c.query_us or 0.0)
            return chosen, f"The quickest: none takes {query_us:g} µs a query or less. {_shown(chosen)}."
        front = quick
    enough = [] if recall is None else [c for c in front if (_expected(c) or 0.0) >= recall]
    if enough:
        chosen = min(enough, key=lambda c: c.query_us or 0.0)
        found = f"{_expected(chosen):.3f} of the ten nearest are expected, where {recall:g} is enough"
        return chosen, f"The quickest to search of those that find enough ({found}): {_shown(chosen)}."
    short = "" if recall is None else f"None is expected to find {recall:g} of the ten nearest: it takes more bits. "
    best = front[0]
    top = best.recall or 0.0
    # Very short training is unfair to dear codes, so where codes were but screened a cheaper one is not preferred.
    close = [c for c in front if (c.recall or 0) >= top - _SAME_RECALL and (c is best or c.stage != "screened")]
    close = [c for c in close if not told_apart(c.recall_figure, best.recall_figure)]
    chosen = min(close, key=lambda c: (c.encode_us or 0) * (c.query_us or 0))
    figures = _shown(chosen)
    if chosen is best:
        others = [c for c in front if c is not best]
        reason = f"{short}Highest recall of the codes measured: {figures}."
        if others:
            second = others[0]
            reason += f" Next on the front: {second.label}, {second.recall:.3f} at {second.encode_us:.1f} µs to encode."
        return chosen, reason
    return chosen, (
        f"{short}{figures}. {best.label} found {top:.3f}, which these queries cannot tell from it, "
        f"but costs {best.encode_us:.1f} µs to encode and {_query_time(best)}."
    )


def _expected(c: Candidate) -> float | None:
    """10-recall@10 as predicted, or on the sample where it was not."""
    return c.predicted[CRITERION].value if c.predicted else c.recall


def _shown(c: Candidate) -> str:
    return f"{CRITERION} {number(c.recall_figure, '.3f')}, {c.encode_us:.1f} µs to encode a vector, {_query_time(c)}"


def _query_time(c: Candidate) -> str:
    at_n = "" if c.search_us_at_n in (None, c.search_us) else f" (about {c.search_us_at_n:,.0f} µs at n)"
    return f"{c.search_us:.0f} µs a query{at_n}"


def at_n(n: int) -> str:
    """What predicted figures are said to hold at."""
    return f"at n = {n:,}"


def next_better(front: Sequence[Candidate], best: Candidate, beyond: Candidate | None) -> str:
    """What more recall than that of ``best`` would take, in a sentence: another code of the front, or more bits."""
    higher = [
        c for c in front if (c.recall or 0) > (best.recall or 0) and told_apart(c.recall_figure, best.recall_figure)
    ]
    if higher:
        c = higher[-1]
        return (
            f"For more: {c.label} finds {number(c.recall_figure, '.3f')} for {c.encode_us:.1f} µs to encode a vector "
            f"and {_query_time(c)}."
        )
    if beyond is None:
        return "For more it takes more bits a vector, or re-ranking by the vectors; how many was not measured."
    more = (beyond.bits_per_vector or 0) - (best.bits_per_vector or 0)
    found = (
        f"For more it takes more bits: with {more:.0f} more, {beyond.label} finds {number(beyond.recall_figure, '.3f')}"
    )
    if not told_apart(beyond.recall_figure, best.recall_figure):
        return f"{found}, which these queries do not tell from it."
    return f"{found}."
