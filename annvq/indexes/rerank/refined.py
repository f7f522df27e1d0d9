"""Vectors in two forms: as codes in an index that is scanned, and finer, to be ranked by."""

from typing import Any

import numpy as np

from annvq.arrays import check_vectors
from annvq.indexes.contract import Index
from annvq.indexes.ids import check_ids, require_new
from annvq.indexes.rerank.refinement import Refinement
from annvq.indexes.stored import StoreIndex
from annvq.quantizers.coder import Coder
from annvq.types import F32, I64, Array, Self


class RefinedIndex(Index):
    """An index over vectors in two forms, which change together; a subclass says how they are searched.

    Args:
        index: the index of codes.
        refinement: the finer form of its vectors.

    Attributes:
        index, refinement: the same. Both change while ``index.changing`` is held, so that whatever is found there can
            be refined.
    """

    def __init__(self, index: StoreIndex, refinement: Refinement) -> None:
        super().__init__(index.coder, index.metric, index.norm, index.dim)
        self.index, self.refinement = index, refinement

    def _use(self, coder: Coder) -> None:
        super()._use(coder)
        self.index._use(coder)

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def bits_per_vector(self) -> int:
        """Bits stored per vector to score it: scanned code, norm, and what it is re-ranked from, wherever that lies."""
        return self.scan_bits_per_vector + self.refine_bits_per_vector

    @property
    def scan_bits_per_vector(self) -> int:
        """Bits per vector that a scan reads."""
        return self.index.bits_per_vector

    @property
    def refine_bits_per_vector(self) -> int:
        """Bits per vector that only re-ranking reads."""
        return self.refinement.bits

    @property
    def ram_bits_per_vector(self) -> int:
        n = len(self)
        own = -(-8 * self.refinement.nbytes // n) if n else self.refinement.bits
        return self.index.ram_bits_per_vector + own

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> I64:
        return self.index.ids

    def require_fitted(self, what: str) -> None:
        self.index.require_fitted(what)
        self.refinement.require_fitted(what)

    def compared(self, rows: F32, name: str, start: int = 0) -> F32:
        """As the finer form is compared: whole vectors where it is them, else as the scanned index's codes see them."""
        if self.refinement.whole:
            return self.of_unit_length(rows, name, start)
        return super().compared(rows, name, start)

    # -- vectors -------------------------------------------------------------------------------------------------

    def add(self, x: Array, ids: Array | None = None) -> Self:
        self.require_fitted("add")
        x = check_vectors(x, self.dim)
        given = None if ids is None else check_ids(ids, int(x.shape[0]))
        if given is not None:
            self.refinement.check_ids(given)
            self.index.require_new(given)
        return self._put(x, given)

    def upsert(self, x: Array, ids: Array) -> Self:
        """Store ``x`` of shape (n, d) under ``ids`` (int64, each once), in place of what has these ids.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: bad vectors or ids; nothing has changed then.
        """
        self.require_fitted("upsert")
        x = check_vectors(x, self.dim)
        given = check_ids(ids, int(x.shape[0]))
        self.refinement.check_ids(given)
        require_new(given, np.zeros(len(given), np.bool_))
        return self._put(x, given, replace=True)

    def _put(self, x: Array, ids: I64 | None, *, replace: bool = False) -> Self:
        if n := int(x.shape[0]):
            encoded, kept = self.refinement.encode_all(self.index, x, first=not len(self.index))
            with self.index.changing:
                new = self.index.next_ids(n) if ids is None else ids
                if not replace:
                    self.index.require_new(new)
                self.refinement.put(new, kept)  # first, so that what is found can be refined
                self.index.store(encoded, new, replace=replace, known_new=True)
        return self

    def remove(self, ids: Array) -> int:
        given = check_ids(ids, None)
        with self.index.changing:
            removed = self.index.remove(given)
            self.refinement.remove(given)
        return removed

    def reset(self) -> Self:
        with self.index.changing:
            self.index.reset()
            self.refinement.reset()
        return self

    def take(self, other: Self) -> None:
        with self.index.changing:
            self.index.require_new(other.index.ids)
            self.refinement.take(other.refinement)
            self.index.take(other.index)

    def fingerprint(self) -> tuple[Any, ...]:
        return *super().fingerprint(), self.refinement.fingerprint(), self.index.fingerprint()

    @property
    def reads_outside(self) -> bool:
        return self.refinement.reads_outside

    def attach(self, vectors: Array) -> Self:
        """Say where the vectors to re-rank from lie, after loading an index that keeps none; see the base class."""
        self.refinement = self.refinement.attached(vectors, self.index.ids)
        return self

    def reconstruct(self, ids: Array) -> Any:
        self.require_fitted("reconstruct")
        given = check_ids(ids, None)
        self.index.require_stored(given)  # an id that is not there is refused, wherever the vectors lie
        return self.refinement.reconstruct(self.index, given)

    # -- copies --------------------------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        self.refinement.require_to_travel()
        return super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy reads the same vectors where these lie elsewhere: such are never copied."""
        build, arguments = super().__reduce__()
        copied: Self = build(*arguments)
        copied.refinement.share(self.refinement)
        return copied

    def __copy__(self) -> Self:
        return self.__deepcopy__({})
