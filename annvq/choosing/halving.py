"""Which codes are measured next, and on what: ever fewer on ever more vectors, within the time there is."""

import math
from collections.abc import Sequence
from dataclasses import replace

from annvq.benchmarks.vectors import Vectors
from annvq.choosing.costs import Rows
from annvq.choosing.grid import Candidate, entries_together
from annvq.choosing.measuring import Measuring, Stage, rows_of
from annvq.choosing.recommending import takes_too_long
from annvq.choosing.speeds import query_us

# Both at d = 128. Of more dimensions fewer are coded, and more are learned from: sums of entries over all dimensions
# need that, and learning hardly takes longer for it.
# On fewer vectors small codebooks would win that do not on more; training less costs little of the order.
_SCREEN = Stage("screened", learn=4_000, base=4_000, effort=0.05)
_MEASURE = Stage("measured", learn=1 << 62, base=1 << 62, effort=0.5)
_SHORTER = replace(_MEASURE, effort=0.2)  # where there is no time for that of as many codes
_MOST_LEARN = 2  # times as many learn vectors, of many dimensions
_SCREENING_SHARE = 0.6  # of the time; the first code of each kind may have what is left for later rounds, too
_FIRST_SHARE = 0.2  # of the time: where the cheapest code takes more, all are screened on fewer vectors
# A round counts only if it is ended, so some time is left to codes that take longer than is expected, and even some of
# what is meant for later.
_PLANNED, _OVER = 0.9, 0.05
_WORTHWHILE = 1.5  # less than so many times the vectors says little more
_FINALISTS = 3  # by rank; before them half of the codes go on, and then half of those
_CHANCE = 0.8  # of the best recall: the best of a kind that has less has no chance of becoming the best
_ROUGHLY = 1.5  # times too long learning seems to take where codes were but screened, it may be in time
_LEARN_EACH = 4  # learn vectors for each entry of the largest codebook, at least, where codes are screened
_LEARN_TOGETHER = 2  # for each entry of codebooks that are learned together; of fewer those of few entries seem to win
_BASE_EACH = 7  # times k base vectors, at least


def halve(work: Measuring, planned: Sequence[Candidate]) -> list[Candidate]:
    """Measure every code on a part of the sample, then ever fewer on more and more, within the time of ``work``; where
    that is infinite, every code on all of it. Returns each as its last stage left it, in the grid's order."""
    work.result = {c: c for c in planned}
    screen = _screen(work, planned)
    # A small sample is measured at once, where there is time: its parts say little.
    learn, base = min(screen.learn, len(work.data.learn) // 2), min(screen.base, len(work.data.base) // 2)
    small = learn < screen.learn or base < screen.base
    needed = sum(work.clock.expects(c, rows_of(_MEASURE, work.data)) for c in planned)
    at_once = needed <= work.until or learn < _LEARN_EACH * _entries(planned)
    if (small and at_once) or work.seconds == math.inf:
        work.measure_all(_MEASURE, work.data, planned, work.until)
        return list(work.result.values())
    part = work.part(learn, base)
    work.measure_all(screen, part, planned, _SCREENING_SHARE * work.seconds)
    _rounds(work, part)
    if all(c.stage != "measured" for c in work.result.values()):  # then there is time for others on the part
        work.measure_all(screen, part, [c for c in planned if work.result[c].stage == "planned"], work.until)
    return list(work.result.values())


def _rounds(work: Measuring, part: Vectors) -> None:
    """Measure the best of those screened on ``part`` on more of the sample, fewer and fewer on more and more."""
    left, reached, first = _finalists(work), 1.0, True
    whole = len(work.data.learn) / len(part.learn)
    while len(left) > 1:
        time = _PLANNED * (work.until - work.elapsed())
        # After screening longer training says something even on the same vectors.
        for stage, least in ((_MEASURE, _WORTHWHILE), (_SHORTER, _WORTHWHILE), (_SHORTER, 1.0 if first else math.inf)):
            more = _growth(work, left, rows_of(stage, part), whole, time)
            last = more >= whole or len(left) <= _FINALISTS
            if not last:
                more = _growth(work, left, rows_of(stage, part), whole, time / 2)
            if more >= least * reached:
                break
        if more >= least * reached:
            if not _again(work, left, part, more, stage):
                break
            reached, first = more, False
            if last:
                break
        elif len(left) == 2:
            break
        left = sorted(left, key=lambda c: _rank(work, c))[: max(2, len(left) // 2)]


def _growth(work: Measuring, codes: Sequence[Candidate], rows: Rows, whole: float, time: float) -> float:
    """How many times ``rows``, at most ``whole``, these codes can be measured on in ``time``; 0 where not once."""
    more = whole
    while sum(work.clock.expects(c, rows.times(more)) for c in codes) > time:
        more /= 1.1
        if more < 1:
            return 0.0
    return more


def _again(work: Measuring, finalists: Sequence[Candidate], part: Vectors, more: float, stage: Stage) -> bool:
    """Measure the finalists on ``more`` times as much. They are compared with one another, so if one of them could
    not be measured in time, what was found before stands for all. Returns whether all were."""
    before = dict(work.result), work.rows, work.last, work.codes
    data = work.part(round(more * len(part.learn)), round(more * len(part.base)))
    if work.measure_all(stage, data, finalists, work.until + _OVER * work.seconds) < len(finalists):
        work.result, work.rows, work.last, work.codes = before
        return False
    for c, figures in work.result.items():
        if c not in finalists and figures.stage == "measured":
            work.result[c] = replace(figures, stage="screened")
    return True


def _finalists(work: Measuring) -> list[Candidate]:
    """Half of the codes, the best by rank, and the best of each kind that has a chance: more vectors and longer
    training change their order."""
    ranked = sorted(
        (c for c, figures in work.result.items() if figures.recall is not None and not _hopeless(work, figures)),
        key=lambda c: _rank(work, c),
    )
    if not ranked:
        return []
    of_kind = {c.kind: c for c in reversed(ranked)}
    least = _CHANCE * (work.result[ranked[0]].recall or 0.0)
    many = max(_FINALISTS, len(ranked) // 2)
    return [
        c
        for at, c in enumerate(ranked)
        if at < many or (of_kind[c.kind] is c and (work.result[c].recall or 0.0) >= least)
    ]


def _rank(work: Measuring, c: Candidate) -> tuple[bool, float]:
    """Best first: by recall, but those last whose queries would take too long, as they are recommended only where
    there is no other."""
    measured, most = work.result[c], work.asked.query_us
    slow = most is not None and (query_us(measured, work.rows[0], work.asked.n) or 0.0) > most
    return slow, -(measured.recall or 0.0)


def _hopeless(work: Measuring, measured: Candidate) -> bool:
    """Whether learning it will take too long even if it takes less than is expected."""
    later = measured.train_s_at_n
    return later is not None and takes_too_long(replace(measured, train_s_at_n=later / _ROUGHLY), work.asked)


def _screen(work: Measuring, planned: Sequence[Candidate]) -> Stage:
    share = min(1.0, 128 / work.data.base.shape[1])
    entries = _entries(planned)
    learn, base = int(_SCREEN.learn * min(1 / share, _MOST_LEARN)), int(_SCREEN.base * share)
    learn = max(learn, 8 * entries, _LEARN_TOGETHER * max(entries_together(c) for c in planned))
    stage = replace(_SCREEN, learn=learn, base=max(base, min(1000, _SCREEN.base)))
    least = min(_BASE_EACH * work.asked.k, stage.base)
    # One code is measured whatever it takes, so that must not be long.
    while _least(work, stage, planned) > _FIRST_SHARE * work.seconds and stage.learn > _LEARN_EACH * entries:
        stage = replace(stage, learn=max(stage.learn // 2, _LEARN_EACH * entries), base=max(stage.base // 2, least))
    return stage


def _least(work: Measuring, stage: Stage, planned: Sequence[Candidate]) -> float:
    """Seconds that the cheapest code is expected to take."""
    rows = Rows(stage.learn, stage.base, len(work.data.queries), stage.effort)
    return min(work.clock.expects(c, rows) for c in planned)


def _entries(planned: Sequence[Candidate]) -> int:
    """Entries of the largest codebook."""
    return max(2 ** max(c.nbits) for c in planned)
