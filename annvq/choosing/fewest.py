"""The fewest bytes a vector that find enough: choosing at one budget after another, nearer and nearer.

Recall put through the inverse of the normal distribution's function rises along the logarithm of the bits by nearly
equal steps. So two budgets tell where a third should lie. The first ones are found by product codes, which are measured
in a second or two; they need more bytes than the best codes do.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

from scipy.special import ndtri

_RISE, _LEAST_RISE, _MOST_RISE = 0.6, 0.3, 1.5  # of Φ⁻¹(recall) for twice the bits: as a rule, and within what bounds
_FIRST = 8  # bytes that are looked at first
_RUNS = 3  # budgets that are measured closely, where these find one that does
_MORE_RUNS = 2  # where they do not
_NEAR = 16  # budgets that differ by less than such a part are not told apart
_SAVED = 0.85  # of the bytes that product codes take the best code is expected to take


class Reached(Protocol):
    """A choice at a budget."""

    @property
    def reached(self) -> float:
        """The highest recall that is expected of a code there."""


C = TypeVar("C", bound=Reached)


def fewest_bytes(
    at: Callable[[int, float], C],
    scout: Callable[[int], float],
    wanted: float,
    most: int,
    left: Callable[[], float],
) -> list[C]:
    """Choices at some budgets, in the order they were made. The smallest that reaches ``wanted`` is the answer.

    Args:
        at: the choice at so many bytes a vector, made in so many seconds.
        scout: recall that is expected of product codes of so many bytes.
        wanted: recall.
        most: bytes.
        left: seconds that are left.
    """
    size, known = min(_FIRST, most), dict[int, float]()
    while True:
        known[size] = scout(size)
        if known[size] >= wanted or size == most or left() <= 0:
            break
        size = min(2 * size, most)
    size = max(1, round(_SAVED * _crossing(known, wanted, most)))
    made: dict[int, C] = {}
    while True:
        # While none does there is time for another one.
        runs = max(1 if any(c.reached >= wanted for c in made.values()) else 2, _RUNS - len(made))
        made[size] = at(size, left() / runs)
        enough = [n for n, c in made.items() if c.reached >= wanted]
        short = max((n for n, c in made.items() if c.reached < wanted), default=0)
        least = min(enough, default=None)
        spent = len(made) >= (_RUNS if enough else _RUNS + _MORE_RUNS) or left() <= 0
        if (
            spent
            or short == most
            or least == 1
            or (least is not None and least - max(short, 1) <= max(1, least // _NEAR))
        ):
            return list(made.values())
        found = _crossing({n: c.reached for n, c in made.items()}, wanted, most)
        size = min(max(found, short + 1), most if least is None else least - 1)


def _crossing(known: dict[int, float], wanted: float, most: int) -> int:
    """Bytes that should just reach ``wanted``, by the two of ``known`` (bytes: recall) that come nearest to it."""
    near = sorted(known, key=lambda n: (abs(_height(known[n]) - _height(wanted)), -n))[:2]
    rise = _RISE
    if len(near) == 2:
        rise = (_height(known[near[0]]) - _height(known[near[1]])) / math.log2(near[0] / near[1])
    doublings = (_height(wanted) - _height(known[near[0]])) / min(max(rise, _LEAST_RISE), _MOST_RISE)
    return min(most, max(1, math.ceil(near[0] * 2 ** min(doublings, 20.0))))


def _height(recall: float) -> float:
    return float(ndtri(min(max(recall, 1e-3), 1 - 1e-3)))
