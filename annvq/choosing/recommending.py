"""Which of the codes that were measured is recommended, and why."""

from collections.abc import Sequence

from annvq.benchmarks.report import number
from annvq.benchmarks.statistics import told_apart
from annvq.choosing.asked import Asked
from annvq.choosing.grid import Candidate

# Times closer than this ratio are one time: they are measured, and measuring them again gives others.
_SAME_TIME = 1.1
_SAME_RECALL = 0.01  # a code that has so much less is not recommended, even where the queries do not tell it apart


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


def takes_too_long(c: Candidate, asked: Asked) -> bool:
    """Whether learning ``c`` is expected to take longer than was asked for."""
    return asked.train_s is not None and c.train_s_at_n is not None and c.train_s_at_n > asked.train_s


def front_within(candidates: Sequence[Candidate], asked: Asked) -> list[Candidate]:
    """The front of those that are learned in time; where there are none, the one that is learned soonest."""
    within = [c for c in candidates if not takes_too_long(c, asked)]
    return pareto(within or [min(candidates, key=lambda c: c.train_s_at_n or 0.0)])


def recommend(front: Sequence[Candidate], asked: Asked) -> tuple[Candidate, str]:
    """The code with the highest recall, or a cheaper one that the queries cannot tell from it, and why.

    Codes are compared query by query. Of those that are within :data:`_SAME_RECALL` of the highest recall and that the
    queries do not tell from it (95 %), the one with the least product of encoding and search time is taken. Only those
    whose queries take no longer than ``asked.query_us`` are looked at; where there are none, the quickest. Where some
    are expected to reach ``asked.recall``, the one of these is taken whose queries take the least time.

    Args:
        front: from :func:`front_within`.
    """
    chosen, reason = _recommended(front, asked)
    if takes_too_long(chosen, asked):
        reason = f"The quickest to learn: none is learned in about {asked.train_s:g} s at n. {_shown(chosen)}."
    return chosen, reason


def _recommended(front: Sequence[Candidate], asked: Asked) -> tuple[Candidate, str]:
    recall = asked.recall
    if asked.query_us is not None:
        quick = [c for c in front if (c.query_us or 0.0) <= asked.query_us]
        if not quick:
            chosen = min(front, key=lambda c: c.query_us or 0.0)
            return chosen, f"The quickest: none takes {asked.query_us:g} µs a query or less. {_shown(chosen)}."
        front = quick
    enough = [] if recall is None else [c for c in front if (c.expected or 0.0) >= recall]
    if enough:
        chosen = min(enough, key=lambda c: c.query_us or 0.0)
        found = f"{chosen.criterion} {chosen.expected:.3f} is expected, where {recall:g} is enough"
        return chosen, f"The quickest to search of those that find enough ({found}): {_shown(chosen)}."
    best = front[0]
    short = "" if recall is None else f"None is expected to reach {best.criterion} {recall:g}: it takes more bits. "
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


def too_long(candidates: Sequence[Candidate], best: Candidate, asked: Asked) -> str:
    """The code that finds more than ``best`` but takes too long to learn, in a sentence; empty where there is none."""
    more = [c for c in candidates if takes_too_long(c, asked) and (c.recall or 0) > (best.recall or 0)]
    if not more or takes_too_long(best, asked):
        return ""
    c = max(more, key=lambda c: c.recall or 0)
    return (
        f"{c.label} finds {number(c.recall_figure, '.3f')}, but learning it is expected to take about "
        f"{c.train_s_at_n:,.0f} s at n, where {asked.train_s:g} s are allowed."
    )


def _shown(c: Candidate) -> str:
    return f"{c.criterion} {number(c.recall_figure, '.3f')}, {c.encode_us:.1f} µs to encode a vector, {_query_time(c)}"


def _query_time(c: Candidate) -> str:
    at_n = "" if c.search_us_at_n in (None, c.search_us) else f" (about {c.search_us_at_n:,.0f} µs at n)"
    return f"{c.search_us:.0f} µs a query{at_n}"
