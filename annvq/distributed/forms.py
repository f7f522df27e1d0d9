"""What sharded indexes ask of the indexes that they are made of: codes alone, or codes beside something finer."""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.indexes.coding import Encoded
from annvq.indexes.contract import Index
from annvq.indexes.rerank import RerankIndex
from annvq.indexes.rerank.raw import RawVectors
from annvq.indexes.rerank.refinement import KeptRows
from annvq.indexes.stored import StoreIndex
from annvq.types import I64, U8, Array

Form: TypeAlias = StoreIndex | RerankIndex
"""An index that shards can be made of."""


class Kept(NamedTuple):
    """What an index keeps of n vectors."""

    encoded: Encoded
    rows: U8 | None = None
    """(n, bytes), what is re-ranked from; None of an index that does not re-rank."""

    def some(self, mine: npt.NDArray[np.bool_]) -> "Kept":
        """What is kept of the vectors ``mine`` (n,)."""
        codes, norms, lists = self.encoded
        encoded = Encoded(codes[mine], None if norms is None else norms[mine], None if lists is None else lists[mine])
        return Kept(encoded, None if self.rows is None else self.rows[mine])


def scanned(index: Form) -> StoreIndex:
    """The index of codes: itself, or the one beneath."""
    return index.index if isinstance(index, RerankIndex) else index


def encode(index: Form, x: Array, *, first: bool) -> Kept:
    """What is kept of checked vectors ``x`` (n, d), at least one; ``first``: see :meth:`StoreIndex.encoded`."""
    if isinstance(index, RerankIndex):
        return Kept(*index.refinement.encode_all(index.index, x, first=first))
    return Kept(index.encoded(x, first=first))


def keep(index: Form, kept: Kept, ids: I64, *, replace: bool = False) -> None:
    """Put vectors into an index under ``ids`` (n,)."""
    codes = scanned(index)
    with codes.changing:
        if isinstance(index, RerankIndex) and kept.rows is not None:
            index.refinement.put(ids, kept.rows)  # first, so that what is found can be refined
        codes.store(kept.encoded, ids, replace=replace)


class Source:
    """The vectors of an index, to be dealt out."""

    def __init__(self, index: Form) -> None:
        codes, norms, self.ids, sizes = scanned(index).export()
        lists = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes) if len(sizes) > 1 else None
        self._codes = Kept(Encoded(codes, norms, lists))
        self._refinement = index.refinement if isinstance(index, RerankIndex) else None

    def some(self, mine: npt.NDArray[np.bool_]) -> Kept:
        """What is kept of the vectors ``mine`` (n,), at least one."""
        kept, refinement = self._codes.some(mine), self._refinement
        if refinement is None:
            return kept
        if isinstance(refinement, KeptRows):
            return kept._replace(rows=refinement.store.get(self.ids[mine]))
        return kept._replace(rows=np.empty((int(mine.sum()), 0), np.uint8))


def supported(index: Index) -> Form:
    """``index`` if shards can be made of it, else TypeError or ValueError."""
    if not isinstance(index, StoreIndex | RerankIndex):
        raise TypeError(
            f"index must be a FlatIndex, an IVFIndex or a RerankIndex (or for KeyedShardedIndex a KeyedIndex of one), "
            f"got {type(index).__name__}"
        )
    if index.reads_outside:
        raise ValueError("index must keep what it re-ranks from: shards read no vectors that lie elsewhere")
    codes = scanned(index)
    scored_so = not isinstance(index, RerankIndex) or isinstance(index.refinement, RawVectors)
    unknown = codes.coding.length is None and codes.coding.share is None
    if scored_so and codes.metric == "cosine" and len(codes) and unknown:
        raise ValueError("index must not be of a file before version 6 under cosine: its codes have no common length")
    return index
