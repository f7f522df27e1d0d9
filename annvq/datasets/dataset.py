"""What a data set is: vectors to search, to train on and to ask with, and the exact answers."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import dtype_name
from annvq.rows import LazyRows, NoVectorsError, RoundedRows

Vectors: TypeAlias = Any
"""A NumPy array or memory map (n, d), or :class:`~annvq.rows.LazyRows`."""

#: The metrics annvq knows, in the field's words: squared Euclidean distance, −⟨q, x⟩, 1 − cos(q, x). Lower is
#: nearer.
METRICS = ("l2", "ip", "cosine")

#: Element types vectors may be stored in; bfloat16 as two bytes without a name where ml_dtypes has not named them.
#: float64 is rounded to float32 on reading; others are refused.
VECTOR_DTYPES = ("uint8", "int8", "float16", "bfloat16", "float32")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Base, learn and query vectors with exact neighbours.

    Attributes:
        name: what the set is called in result rows.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        base: (n, d) vectors to search, in the stored element type, read-only and often memory-mapped.
        learn: (n_learn, d) vectors to train on; none of them equals a query.
        queries: (nq, d) vectors to ask with.
        neighbors: (nq, k) int64, each query's nearest base rows by (distance, id). k is 100, or more where
            the file gives more, or n where the base is smaller.
        distances: (nq, k) float32 in annvq's definitions: ``l2`` is *squared* Euclidean distance, ``ip`` is
            −⟨q, x⟩, ``cosine`` is 1 − cos.
        learn_is_base_sample: True where the set has no learn vectors of its own and ``learn`` was drawn from
            base.
        source: where it came from: a path, an address or a generator.
        info: further facts (licence, citation) as the card gives them.
    """

    name: str
    metric: str
    base: Vectors
    learn: Vectors
    queries: Vectors
    neighbors: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    learn_is_base_sample: bool = False
    source: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Base vectors."""
        return int(self.base.shape[0])

    @property
    def nq(self) -> int:
        """Queries."""
        return int(self.queries.shape[0])

    @property
    def d(self) -> int:
        """Dimension."""
        return int(self.base.shape[1])

    @property
    def k(self) -> int:
        """Exact neighbours known per query."""
        return int(self.neighbors.shape[1])

    def __repr__(self) -> str:
        origin = "from base" if self.learn_is_base_sample else "own"
        return (
            f"Dataset({self.name!r}, {self.metric}, n={self.n:,}, learn={len(self.learn):,} ({origin}), "
            f"nq={self.nq:,}, d={self.d}, {self.base.dtype}, k={self.k})"
        )


def check_metric(metric: str) -> str:
    """``metric`` itself, or a ValueError that lists the known ones."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return metric


def check_positive(name: str, value: int) -> int:
    """``value`` itself, or an error that says that ``name`` must be a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def as_vectors(array: Vectors, what: str) -> Vectors:
    """``array`` as (n, d) vectors of a supported element type, without a copy where none is needed.

    float64 is rounded to float32, the one lossy conversion that is made; of rows that are read as they are asked for,
    when they are. ``what`` names the array in errors.

    Raises:
        NoVectorsError: it is empty.
        ValueError: not two-dimensional, or an element type that cannot be kept without loss.
    """
    if array.ndim != 2:
        raise ValueError(f"{what} must be two-dimensional (vectors in rows), got shape {array.shape}")
    if 0 in array.shape:
        raise NoVectorsError(f"{what} is empty: shape {array.shape}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if isinstance(array, LazyRows) and array.dtype == np.float64:
        return RoundedRows(array)
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            rounded = np.asarray(array).astype(np.float32)
        if not np.isfinite(rounded).all() and np.isfinite(array).all():
            raise ValueError(f"{what} holds float64 values beyond float32's range")
        return rounded
    if dtype_name(array) not in VECTOR_DTYPES:
        raise ValueError(f"{what} must hold {', '.join(VECTOR_DTYPES)} or float64 values, got {array.dtype}")
    return array
