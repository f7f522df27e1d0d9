"""What re-ranking asks of that which it computes exact distances from."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import LEAST, chunks, largest, rows_to_numpy
from annvq.indexes.coding import Encoded, joined
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native
from annvq.types import F32, I64, U8, Array, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

Found: TypeAlias = tuple[F32, I64]

_KINDS: "dict[str, type[Refinement]]" = {}


class Refinement(ABC):
    """A finer form of the vectors of ``index``, the scanned one: what is kept of each, and distances of queries to it.

    Distances are float32 sums of sixteen partial sums, lane l over the dimensions l, l + 16, …, folded in halves
    (lane l with l + 8, then + 4, + 2, + 1): the same on every machine.

    A subclass with a ``kind`` is known by it in files. ``queries`` and ``rows`` are checked, and normalised under
    cosine; queries have d dimensions where distances are those of whole vectors, else as many as codes see.
    """

    kind: ClassVar[str]
    bits: int
    """Bits stored per vector."""
    whole: bool = True
    """Whether distances are those of whole vectors; else of what the codes of ``index`` see of them."""
    least: float = LEAST
    """What the largest number of vectors must reach to be told apart under l2 and ip."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    # -- learning ------------------------------------------------------------------------------------------------

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError unless this can refine."""

    def fit_first(self, index: StoreIndex, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        """Learn what must be known before ``index`` learns, from checked learn vectors ``x`` (n, d)."""

    def fit(self, index: StoreIndex, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        """Learn what is left to learn, now that ``index`` has learned."""

    # -- rows ----------------------------------------------------------------------------------------------------

    def encode_all(self, index: StoreIndex, x: Array, *, first: bool) -> tuple[Encoded, U8]:
        """What ``index`` stores of vectors ``x`` (n, d), at least one, and what is kept here; read in chunks. Of those
        that are the ``first`` the scale is checked."""
        parts, most = [], 0.0
        for start, stop in chunks(int(x.shape[0]), index.dim):
            piece = rows_to_numpy(x, start, stop)
            most = max(most, largest(piece)) if first else most
            parts.append(self.encode(index, piece, index.compared(piece, "x", start), start))
        if first:
            index.require_scale(most, self.least)
        return joined([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    @abstractmethod
    def encode(self, index: StoreIndex, x: F32, rows: F32, first: int) -> tuple[Encoded, U8]:
        """What ``index`` stores of vectors, and what is kept here of each, (n, bytes).

        Args:
            x: vectors (n, d) as they came, checked; numbered from ``first`` in errors.
            rows: the same as the metric compares them.

        Raises:
            ValueError: vectors that cannot be kept.
        """

    def check_ids(self, ids: I64) -> None:
        """Raise ValueError where vectors of these ids could not be refined."""

    @abstractmethod
    def put(self, ids: I64, kept: U8) -> None:
        """Keep what :meth:`encode` gave, in place of what has these ids."""

    @abstractmethod
    def remove(self, ids: I64) -> None:
        """Forget what is kept of these ids."""

    @abstractmethod
    def reset(self) -> None:
        """Forget what is kept of all vectors."""

    @abstractmethod
    def take(self, other: Self) -> None:
        """Keep all that another refinement of this fingerprint keeps, too."""

    # -- distances -----------------------------------------------------------------------------------------------

    @abstractmethod
    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        """The k nearest of ``ids`` (nq, s; −1 for none) to each query, by (distance, id)."""

    @abstractmethod
    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        """The vectors (n, d) that distances are computed from."""

    # -- facts and files -----------------------------------------------------------------------------------------

    reads_outside: bool = False
    """Whether vectors are read that are kept elsewhere."""

    def attached(self, vectors: Array, ids: I64) -> Self:
        """The same over vectors that lie elsewhere, which have a row for each of ``ids``.

        Raises:
            ValueError: nothing is read from elsewhere, or these are not such vectors, or too few.
        """
        raise ValueError("this index keeps what it re-ranks from; there is nothing to attach")

    def share(self, other: "Refinement") -> None:
        """Read what ``other``, of which this is a copy, reads from elsewhere."""

    def require_to_travel(self) -> None:
        """Raise ValueError where another process could not find the vectors that lie elsewhere."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes in memory."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What it is, as JSON holds it."""

    def fingerprint(self) -> tuple[Any, ...]:
        """What it is and has learned, to compare."""
        return self.kind, self.bits

    @abstractmethod
    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config, without the kind, and tensors of a file; their names begin with ``refine.``."""

    @classmethod
    @abstractmethod
    def from_stored(
        cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex
    ) -> "Refinement":
        """The inverse of :meth:`to_stored` for ``index``, which holds its vectors; takes its own out of ``tensors``.

        Raises:
            KeyError, TypeError, ValueError: something is missing or does not fit.
        """


class NothingKept(Refinement):
    """A refinement that keeps nothing of a vector beside what is scanned."""

    def encode(self, index: StoreIndex, x: F32, rows: F32, first: int) -> tuple[Encoded, U8]:
        return index.coding.encode(rows), np.empty((len(rows), 0), np.uint8)

    def put(self, ids: I64, kept: U8) -> None:
        pass

    def remove(self, ids: I64) -> None:
        pass

    def reset(self) -> None:
        pass

    def take(self, other: Self) -> None:
        pass

    @property
    def nbytes(self) -> int:
        return 0


class KeptRows(Refinement):
    """A refinement that keeps a row of bytes for each vector.

    Args:
        row_bytes: bytes of a row.
    """

    def __init__(self, row_bytes: int) -> None:
        self.store = _native.RowStore(row_bytes)

    def put(self, ids: I64, kept: U8) -> None:
        self.store.append(ids, kept, True)

    def remove(self, ids: I64) -> None:
        self.store.remove(ids)

    def reset(self) -> None:
        self.store = _native.RowStore(self.store.row_bytes)

    def take(self, other: Self) -> None:
        self.put(*other.store.export())

    @property
    def nbytes(self) -> int:
        return self.store.nbytes

    def rows_to_stored(self) -> dict[str, npt.NDArray[Any]]:
        """The rows as tensors of a file."""
        ids, rows = self.store.export()
        return {"refine.ids": ids, "refine.rows": rows}

    def restore_rows(self, tensors: dict[str, npt.NDArray[Any]], n: int) -> None:
        """The inverse of :meth:`rows_to_stored`, for an index of ``n`` vectors."""
        ids, rows = tensors.pop("refine.ids"), tensors.pop("refine.rows")
        if ids.dtype != np.int64 or rows.dtype != np.uint8 or rows.shape != (len(ids), self.store.row_bytes):
            raise ValueError(f"its rows to re-rank are {rows.dtype} {rows.shape} for {ids.dtype} {ids.shape} ids")
        self.store.adopt(ids, rows)
        if len(self.store) != n:
            raise ValueError(f"it has {len(self.store)} rows to re-rank for {n} codes")


def refinement_from_stored(
    config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex
) -> Refinement:
    """The refinement of a file's config, of whichever kind; see :meth:`Refinement.from_stored`."""
    kind = config["kind"]
    if not isinstance(kind, str) or kind not in _KINDS:
        known = [repr(name) for name in _KINDS]
        raise ValueError(f"it re-ranks from {kind!r}, expected {', '.join(known[:-1])} or {known[-1]}")
    return _KINDS[kind].from_stored(config, tensors, index)
