"""Counts of operations, their weights, and those of a few primitives."""

from dataclasses import dataclass
from typing import NamedTuple

from annvq.complexity.arguments import one_of


class Weights(NamedTuple):
    """What one operation of each sort weighs."""

    addition: int
    multiplication: int
    move: int
    branch: int


WEIGHTS: dict[str, Weights] = {"single": Weights(1, 1, 1, 4), "double": Weights(2, 2, 2, 4)}


@dataclass(frozen=True)
class OperationCounts:
    """Additions (subtractions and comparisons among them), multiplications, moves and branches."""

    additions: int = 0
    multiplications: int = 0
    moves: int = 0
    branches: int = 0

    def __add__(self, other: "OperationCounts") -> "OperationCounts":
        return OperationCounts(
            self.additions + other.additions,
            self.multiplications + other.multiplications,
            self.moves + other.moves,
            self.branches + other.branches,
        )

    def __mul__(self, times: int) -> "OperationCounts":
        return OperationCounts(
            self.additions * times, self.multiplications * times, self.moves * times, self.branches * times
        )

    __rmul__ = __mul__

    def wmops(self, precision: str = "single") -> float:
        """Weighted operations in millions.

        Raises:
            ValueError: an unknown ``precision``.
        """
        weights = WEIGHTS[one_of("precision", precision, tuple(WEIGHTS))]
        total = (
            weights.addition * self.additions
            + weights.multiplication * self.multiplications
            + weights.move * self.moves
            + weights.branch * self.branches
        )
        return total / 1e6


def distance(n: int, dim: int, times: int = 1) -> OperationCounts:
    """Squared Euclidean distances from ``times`` vectors to ``n`` entries."""
    return OperationCounts(additions=times * n * (2 * dim - 1), multiplications=times * n * dim)


def argmin(n: int) -> OperationCounts:
    """The least of ``n`` values."""
    return OperationCounts(additions=n - 1, moves=n - 1)


def partial_sort(n: int, keep: int, times: int = 1) -> OperationCounts:
    """The ``keep`` least of ``n`` values by repeated argmin, ``times`` over."""
    steps = times * (keep * (n - 1) - keep * (keep - 1) // 2)
    return OperationCounts(additions=steps, moves=steps)


def mse(pairs: int, dim: int) -> OperationCounts:
    """Mean squared errors of ``pairs`` reconstructions."""
    return OperationCounts(additions=pairs * (2 * dim - 1), multiplications=pairs * (dim + 1))
