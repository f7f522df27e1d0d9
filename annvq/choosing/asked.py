"""What is asked of a code beside its bits."""

from dataclasses import dataclass
from typing import Any

from annvq.arrays import positive_int
from annvq.benchmarks.metrics import k_recall
from annvq.benchmarks.vectors import RESULTS


@dataclass(frozen=True)
class Asked:
    """What a code shall do among ``n`` vectors.

    Attributes:
        n: vectors that the index will hold.
        k: of k-recall@k, which codes are ranked by.
        query_us: microseconds that a query may take, about; None: any.
        recall: k-recall@k that is enough; None: as much as can be had.
        train_s: seconds that learning may take, about; None: any.

    Raises:
        ValueError: a number is out of its range; see :func:`annvq.choosing.choose`.
        TypeError: n or k is no whole number.
    """

    n: int = 1
    k: int = 10
    query_us: float | None = None
    recall: float | None = None
    train_s: float | None = None

    def __post_init__(self) -> None:
        positive_int(self.n, "n")
        if positive_int(self.k, "k") > RESULTS:
            raise ValueError(f"k must be at most {RESULTS}, got {self.k}")
        for name in ("query_us", "train_s"):
            value = getattr(self, name)
            if value is not None:
                positive(value, name)
        if self.recall is not None and not (_is_number(self.recall) and 0 < self.recall <= 1):
            raise ValueError(f"recall must be a number in (0, 1], got {self.recall!r}")

    @property
    def criterion(self) -> str:
        """The recall that codes are ranked by, by name."""
        return k_recall(self.k)


def positive(value: Any, name: str) -> None:
    """Raise ValueError unless ``value`` is a positive number."""
    if not (_is_number(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
