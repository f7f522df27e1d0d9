"""What the harness asks of a method."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from annvq.types import F32


@dataclass(frozen=True)
class Budget:
    """Dimension, metric and the bits that a vector may take in all: code and norm."""

    dim: int
    bits: int
    metric: str = "l2"


class Method(Protocol):
    """One code, trained and searched. Vectors are float32; under ``cosine`` they come normalised."""

    config: dict[str, Any]
    """What was built, as JSON holds it."""

    def fit(self, learn: F32) -> None:
        """Train on learn vectors."""

    def add(self, x: F32) -> None:
        """Encode and store vectors; ids go on from those stored."""

    def decode(self, start: int, stop: int) -> F32:
        """The stored vectors of these ids, as their codes give them."""

    def search(self, queries: F32, k: int) -> npt.NDArray[np.int64]:
        """Ids (nq, k) of the nearest stored vectors, nearest first; −1 where there are none."""

    def bits_per_vector(self) -> float:
        """What the index itself stores per vector to score it."""

    def wmops(self) -> float | None:
        """Counted cost of encoding one vector; None where nobody has counted it."""


def check_options(name: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    """ValueError where an option is not among ``known``."""
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ValueError(f"{name}: unknown option {wrong[0]!r}; known: {', '.join(known)}")
