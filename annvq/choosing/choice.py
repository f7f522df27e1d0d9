"""Choosing a code: what was found, and the function that finds it."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from time import perf_counter
from typing import Any

from rich.table import Table

from annvq.arrays import check_vectors, positive_int
from annvq.benchmarks import environment
from annvq.benchmarks.report import number
from annvq.benchmarks.run import Observer
from annvq.benchmarks.statistics import SAME, told_apart
from annvq.benchmarks.vectors import Vectors
from annvq.choosing.ahead import Ahead
from annvq.choosing.asked import Asked, positive
from annvq.choosing.budget import bits_of
from annvq.choosing.fewest import fewest_bytes
from annvq.choosing.finals import Finals
from annvq.choosing.forms import PLAIN
from annvq.choosing.grid import Candidate, candidates
from annvq.choosing.halving import halve
from annvq.choosing.keeping import Kept
from annvq.choosing.measuring import WOULD_TAKE, Measuring
from annvq.choosing.recommending import front_within, next_better, recommend, takes_too_long, too_long
from annvq.choosing.sampling import Further, split, warm_up
from annvq.threads import get_num_threads

_MOST_EACH = 10  # bits a dimension, of the largest codes
LATE = "×"
"""Marks codes that take longer to learn than was asked for."""


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
        asked: what the code shall do, and among how many vectors.
        tried: where the fewest bytes were looked for, the recall that is expected at the bytes that were tried.
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
    asked: Asked = field(default_factory=Asked)
    tried: tuple[tuple[int, float], ...] = ()

    @property
    def for_n(self) -> int:
        """Vectors that recall is predicted among."""
        return self.asked.n

    @property
    def reached(self) -> float:
        """The highest recall that is expected of a code that may be recommended, among :attr:`for_n` vectors."""
        return max(c.expected or 0.0 for c in self.front)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        listed = {name: [c.to_dict() for c in held[name]] for name in ("candidates", "front")}
        beyond = None if self.beyond is None else self.beyond.to_dict()
        asked = {"asked": asdict(self.asked), "for_n": self.for_n}
        return held | listed | {"recommended": self.recommended.to_dict(), "beyond": beyond} | asked

    def prediction(self) -> str:
        """Recall of the recommended code among :attr:`for_n` vectors, in a sentence; empty where it was not
        predicted."""
        found = self.recommended.predicted
        if found is None:
            return ""
        names = sorted(found, key=lambda name: name != self.asked.criterion)  # what codes are ranked by comes first
        listed = ", ".join(f"{name} {number(found[name], '.3f')}" for name in names)
        return f"{at_n(self.for_n).capitalize()} (predicted, from {self.recommended.predicted_from:,}): {listed}."

    def learning(self) -> str:
        """How long learning the recommended code takes among :attr:`for_n` vectors, in a sentence."""
        seconds = self.recommended.train_s_at_n
        if seconds is None:
            return ""
        said = f"about {seconds:,.0f} s" if seconds >= 1 else "less than a second"
        return f"Learning it there takes {said} (predicted)."

    def budgets(self) -> str:
        """The bytes that were tried, in a sentence; empty where a budget was given."""
        if not self.tried:
            return ""
        listed = ", ".join(f"{size} bytes {recall:.3f}" for size, recall in sorted(self.tried))
        enough = f"enough for {self.asked.criterion} {self.asked.recall:g}"
        found = any(recall >= (self.asked.recall or 0.0) for _, recall in self.tried)
        lead = (
            f"{self.bits // 8} bytes are the fewest of those tried that are {enough}" if found else f"None is {enough}"
        )
        return f"{lead}; expected at most: {listed}."

    def said(self) -> list[str]:
        """All that is said of the recommendation, a sentence or a few each."""
        texts = (self.budgets(), self.reason, self.prediction(), self.learning(), self.next_better)
        return [text for text in texts if text]

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

    def unmeasured(self) -> list[str]:
        """Codes that the table does not have, with the reason: a line for those that there was no time for, and one for
        each that failed."""
        left = [c for c in self.candidates if c.stage == "planned" and c.error is None]
        planned = [f"{c.label} ({(c.skipped or '').removeprefix(WOULD_TAKE)})" for c in left]
        lines = [f"Not measured, with the time that each would take: {'; '.join(planned)}."] if planned else []
        return lines + [f"Failed: {c.label}: {c.error}" for c in self.candidates if c.error is not None]

    def table(self) -> Any:
        """A rich table of the candidates that were measured; those on the Pareto front are marked."""
        table = Table(
            title=f"{self.bits} bits per vector; {self.n:,} vectors, {self.nq:,} held-out queries",
            title_justify="left",
        )
        criterion, there = self.asked.criterion, at_n(self.for_n)
        one = ("recall@1",) if criterion != "recall@1" else ()
        heads = ("", "code", criterion, f"{criterion} {there} (predicted)", *one, "MSE", "train s")
        for name in (*heads, f"train s {there} (predicted)", "encode µs", "search µs", "WMOPS"):
            table.add_column(name, justify="left" if name in ("", "code") else "right")
        order = ("measured", "screened", "planned")
        last = self.recommended.stage
        top = self.front[0].recall_figure
        for c in sorted(self.candidates, key=lambda c: (order.index(c.stage), -(c.recall or -1.0))):
            if c.error is not None or c.stage == "planned":
                continue  # see `unmeasured`
            mark = "★" if c is self.recommended else ("•" if c in self.front else "")
            late = takes_too_long(c, self.asked)
            shown = [(c.recall_at_1, ".3f")] if one else []
            shown += [(c.mse, ".4g"), (c.train_s, ".1f"), (c.train_s_at_n, ",.0f")]
            shown += [(c.encode_us, ".2f"), (c.search_us, ".0f"), (c.wmops, ".3g")]
            cells = [number(c.recall_figure, ".3f"), *(format(v, f) if v is not None else "–" for v, f in shown)]
            if late:
                mark = f"{mark}{LATE}"
            if c is not self.front[0] and c.stage == last and not told_apart(c.recall_figure, top):
                cells[0] = f"{SAME} {cells[0]}"
            cells.insert(1, number(c.predicted[criterion] if c.predicted else None, ".3f"))
            table.add_row(mark, c.label, *cells, style=None if c.stage == last else "dim")
        table.caption = (
            f"★ recommended, • on the Pareto front of recall, encoding and search time; ±: half of the 95 % interval; "
            f"{SAME}: {self.nq:,} queries do not tell it from the highest"
        ) + ("; dim: estimates from fewer vectors and shorter training" if last == "measured" else "")
        if self.asked.train_s is not None:
            table.caption += (
                f"; {LATE}: learning is expected to take more than {self.asked.train_s:g} s, not recommended"
            )
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
    train_s: float | None = None,
    k: int = 10,
    exhaustive: bool = False,
    keep: str | os.PathLike[str] | None = None,
    fresh: bool = False,
) -> Choice:
    """Measure a grid of codes at a budget of bits per vector on a sample of ``x`` and recommend one; without a budget,
    of the fewest bytes that find enough.

    The sample is split in three disjoint parts: queries, learn vectors, and a base to search. Every bit
    stored per vector is charged, the norm of residual and additive codes among them, and what re-ranks; ids are not.
    Training is shorter than ``fit``'s own, alike for all codes. Of the best codes other forms are measured, in lists
    and re-ranked (:mod:`annvq.choosing.forms`), and recall is predicted among ``n`` vectors
    (:mod:`annvq.choosing.predicting`).

    Args:
        x: (n, d) vectors, NumPy (memory maps too) or torch.
        bits: bits per vector in all. Without it, and without another form of the budget, the fewest bytes are looked
            for that are expected to reach ``recall``, by measuring at some budgets (:mod:`annvq.choosing.fewest`).
            The other forms:
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
        recall: k-recall@k among ``n`` vectors that is enough, in (0, 1]: of the codes that are expected to reach it
            the quickest to search is recommended. Default: as much as can be had.
        train_s: seconds that learning the code from ``n`` vectors may take, as far as it can be told from how long
            learning it from the sample took (:mod:`annvq.choosing.learning`); codes that take longer are not
            recommended. Default: any.
        k: of k-recall@k, which codes are ranked by and which is predicted, at most 100.
        exhaustive: every code of the grid on the whole sample, however long it takes; ``seconds`` is not looked at.
        keep: folder that what was measured is kept in, one row of ``results.jsonl`` each. The same choice goes on from
            there where it was stopped, or is given more seconds.
        fresh: forget first what that folder holds.

    Raises:
        TypeError, ValueError: x holds no such vectors, too few of them, or no code fits the budget.
    """
    x = check_vectors(x, None, "x")
    if not (recall is not None and bits is None and bytes_per_vector is None and memory is None):
        its_n = None if memory is None else int(x.shape[0]) if n is None else n
        bits = bits_of(bits=bits, bytes_per_vector=bytes_per_vector, memory=memory, n=its_n)
        whole = 32 * int(x.shape[1])
        if bits >= whole:
            raise ValueError(f"bits={bits:,} per vector: the vectors themselves take {whole:,}, so no code is needed")
    asked = Asked(int(x.shape[0]) if n is None else n, k, query_us, recall, train_s)
    positive_int(sample, "sample")
    positive_int(nq, "nq")
    positive(seconds, "seconds")
    if int(x.shape[0]) < 1000:
        raise ValueError(f"x must have at least 1000 vectors to choose on, got {int(x.shape[0])}")
    start = perf_counter()
    with environment.pinned_threads(get_num_threads() if threads is None else positive_int(threads, "threads")):
        warm_up()
        data = split(x, metric, sample, nq, seed)
        further = Further(x, metric, sample, seed)
        seconds = math.inf if exhaustive else seconds
        work = _Work(data, further, asked, seed, seconds, start, observer or Observer(), Kept(keep, fresh=fresh))
        return work.fewest() if bits is None else work.at(bits)


class _Work:
    """Choosing at one budget or several, on the same vectors."""

    def __init__(
        self, data: Vectors, further: Further, asked: Asked, seed: int, seconds: float, start: float, watch: Observer,
        kept: Kept,
    ) -> None:  # fmt: skip
        self.data, self.further, self.asked, self.seed, self.kept = data, further, asked, seed, kept
        self.seconds, self.start, self.watch = seconds, start, watch
        self.points = 0  # that were measured at other budgets

    def left(self) -> float:
        return self.seconds - (perf_counter() - self.start)

    def _measuring(self, bits: int, seconds: float, start: float) -> Measuring:
        work = Measuring(self.data, bits, self.seed, seconds, self.watch, start, self.kept, self.asked)
        work.points = self.points
        return work

    def _planned(self, bits: int) -> Sequence[Candidate]:
        return candidates(bits, self.data.base.shape[1], self.data.metric, len(self.data.learn), self.asked.k)

    def at(self, bits: int, seconds: float | None = None) -> Choice:
        """The choice at a budget; ``seconds``: default all from the start."""
        window = (self.seconds, self.start) if seconds is None else (seconds, perf_counter())
        measuring = self._measuring(bits, *window)
        halve(measuring, self._planned(bits))
        choice = _choice(measuring, Finals(measuring, Ahead(measuring, self.further)))
        self.points = measuring.points
        return choice

    def _scouted(self, size: int) -> float:
        """Recall that is expected of product codes of ``size`` bytes, or the first of the grid where there are none,
        after very short training."""
        planned = sorted(self._planned(8 * size), key=lambda c: c.kind != "product")[:1]
        measuring = self._measuring(8 * size, max(self.left(), 1e-9), perf_counter())
        halve(measuring, planned)
        found = Finals(measuring, Ahead(measuring, self.further)).run(forms=False)
        self.points = measuring.points
        return max((c.expected or 0.0 for c in found), default=0.0)

    def _most(self) -> int:
        """Bytes of the largest codes."""
        size = max(2, _MOST_EACH * self.data.base.shape[1] // 8)
        while size > 1 and not self._fits(size):
            size -= 1
        return size

    def _fits(self, size: int) -> bool:
        try:
            self._planned(8 * size)
        except ValueError:
            return False
        return True

    def fewest(self) -> Choice:
        """The choice at the fewest bytes that are expected to find enough; where none do, at the most that were
        tried."""
        wanted = self.asked.recall or 1.0
        made = fewest_bytes(
            lambda size, seconds: self.at(8 * size, max(seconds, 1e-9)), self._scouted, wanted, self._most(), self.left
        )
        tried = tuple((c.bits // 8, c.reached) for c in made)
        enough = [c for c in made if c.reached >= wanted]
        chosen = min(enough, key=lambda c: c.bits) if enough else max(made, key=lambda c: c.reached)
        return replace(chosen, tried=tried, seconds=perf_counter() - self.start)


def _choice(measuring: Measuring, finals: Finals) -> Choice:
    bits, data, asked, codes = measuring.bits, measuring.data, measuring.asked, finals.run()
    good = [c for c in codes if c.error is None and c.stage != "planned"]
    if not good:
        failed = next(c for c in codes if c.error is not None)
        raise ValueError(f"bits={bits}: no code could be measured; the first: {failed.error}")
    last = [c for c in good if c.stage == "measured"] or good
    best, _ = recommend(front_within(last, asked), asked)
    closer = finals.closer(best)
    codes, last = ([closer if c is best else c for c in listed] for listed in (codes, last))
    front = front_within(last, asked)
    best, reason = recommend(front, asked)  # a closer prediction may say that it is not enough
    reason = " ".join(filter(None, [reason, too_long(last, best, asked)]))
    n, n_learn = measuring.rows
    beyond = measuring.beyond(best) if best is front[0] and best.form == PLAIN else None
    return Choice(
        bits, n, n_learn, len(data.queries), tuple(codes), tuple(front), best, reason, measuring.elapsed(), beyond,
        next_better(front, best, beyond), get_num_threads(), asked,
    )  # fmt: skip


def at_n(n: int) -> str:
    """What predicted figures are said to hold at."""
    return f"at n = {n:,}"
