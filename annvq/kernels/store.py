"""The code store: codes of vectors with norms and ids, in one list or many, that change and are searched at once.

Every change is made whole or not at all, and searches that run meanwhile see the store before it or after it.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.kernels import _native
from annvq.threads import get_num_threads
from annvq.types import F32, I32, I64, U8

StoredNorm: TypeAlias = Literal["uint8", "float32"] | None
_READ = 1 << 20  # ids that are looked through at once

Allowed: TypeAlias = npt.NDArray[np.bool_] | I64


class Rows(NamedTuple):
    """Stored rows: codes (n, M), norms (n,) as they are stored or None, and the list of each (n,)."""

    codes: npt.NDArray[Any]
    norms: npt.NDArray[Any] | None
    lists: I32


class Exported(NamedTuple):
    """All rows of a store, list after list."""

    codes: npt.NDArray[Any]  # (n, M)
    norms: npt.NDArray[Any] | None  # (n,)
    ids: I64  # (n,)
    list_sizes: I64  # (lists,)


class PreparedAllowed:
    """A bitmap or a list of allowed ids, as :meth:`CodeStore.search` takes it, whose rows are found once for many
    searches, and anew after the store has changed.

    It holds a copy of the rows where it allows few, and the store's memory as it was when last searched.
    """

    def __init__(self, allowed: Allowed) -> None:
        self.allowed = allowed.copy()
        self.allowed.flags.writeable = False
        self.native = _native.PreparedFilter(*_split(self.allowed))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.allowed,)  # a copy finds the rows anew


def _split(allowed: Allowed) -> tuple[U8 | None, I64 | None]:
    """A bitmap or a list, the other one None."""
    if allowed.dtype == np.bool_:
        return np.ascontiguousarray(allowed).view(np.uint8), None
    return None, np.ascontiguousarray(allowed)


class CodeStore:
    """Codes in lists, searched by exact ADC.

    ``score(q, i in list l) = ((luts[0] + luts[1]) + …) + norm[i] + (probe_bias[q, l] or bias[q])`` in float32 and in
    that order, bit for bit, whatever the SIMD level, the threads, the batch and the history of changes. Safe to use
    from several threads.

    Args:
        M: codebooks.
        sizes: entries of each, at most 256 for uint8 codes and 65536 for uint16.
        code_dtype: uint8 or uint16.
        norm: what is stored beside a code: None, ``"uint8"`` (a level) or ``"float32"``.
        lists: how many lists there are.
        relabel: (M, 256) uint8, a permutation of each codebook's entries: the order in which codes are kept, so that a
            scan may bound neighbouring entries together. Nothing outside sees it.
    """

    def __init__(
        self,
        M: int,
        sizes: Sequence[int],
        *,
        code_dtype: npt.DTypeLike = np.uint8,
        norm: StoredNorm = None,
        lists: int = 1,
        relabel: U8 | None = None,
    ) -> None:
        self.M, self.sizes, self.norm, self.lists = M, tuple(sizes), norm, lists
        self.code_dtype = np.dtype(code_dtype)
        self.relabel = relabel
        if self.code_dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise ValueError(f"code_dtype must be uint8 or uint16, got {self.code_dtype}")
        wide = self.code_dtype == np.uint16
        self._native = _native.CodeStore(M, list(sizes), wide, norm or "none", lists, relabel)
        self._mapped: tuple[U8, I64 | int, I64] | None = None
        """What it was filled from and where that lies, for as long as nothing has changed."""

    def __len__(self) -> int:
        return self._native.size()

    @property
    def list_sizes(self) -> I64:
        """Rows of each list, (lists,)."""
        return self._native.list_sizes()

    @property
    def nbytes(self) -> int:
        """Bytes that codes and norms take in memory (or mapped), with what is reserved and what is removed but kept."""
        return self._native.code_bytes()

    @property
    def id_nbytes(self) -> int:
        """Bytes that ids and the map of them take in memory (or mapped)."""
        return self._native.id_bytes()

    # -- changes -------------------------------------------------------------------------------------------------

    def append(
        self,
        codes: npt.NDArray[Any],
        norms: npt.NDArray[Any] | None,
        ids: I64,
        lists: I32 | None = None,
        *,
        known_new: bool = False,
    ) -> None:
        """Store rows under new ids.

        Args:
            codes: (n, M) of ``code_dtype``.
            norms: (n,) uint8 or float32 as the store keeps them, else None.
            ids: (n,) int64, at least 0.
            lists: (n,) int32, may be left out where there is one list.
            known_new: the caller knows that the ids are new; they are not looked up.

        Raises:
            ValueError: codes out of range, NaN or −inf norms, ids that repeat or are there; nothing is stored then.
        """
        self._append(codes, norms, ids, lists, "known" if known_new else "checked")

    def replace(
        self, codes: npt.NDArray[Any], norms: npt.NDArray[Any] | None, ids: I64, lists: I32 | None = None
    ) -> int:
        """:meth:`append`, removing at the same moment the rows that have these ids; returns how many did."""
        return self._append(codes, norms, ids, lists, "replaces")

    def _append(
        self, codes: npt.NDArray[Any], norms: npt.NDArray[Any] | None, ids: I64, lists: I32 | None, fresh: str
    ) -> int:
        if codes.dtype != self.code_dtype:
            raise ValueError(f"codes must be {self.code_dtype}, got {codes.dtype}")
        if norms is not None and str(norms.dtype) != self.norm:
            raise ValueError(f"norms must be {self.norm}, got {norms.dtype}")
        levels, values = (norms, None) if self.norm == "uint8" else (None, norms)
        codes = np.ascontiguousarray(codes)
        self._mapped = None
        append = self._native.append_u8 if self.code_dtype == np.uint8 else self._native.append_u16
        return append(codes, levels, values, ids, lists, fresh)

    def remove(self, ids: I64) -> int:
        """Remove rows; returns how many.

        Raises:
            ValueError: an id that is not there or comes twice; nothing is removed then.
        """
        self._mapped = None
        self._native.remove(ids)
        return len(ids)

    # -- look-ups ------------------------------------------------------------------------------------------------

    def contains(self, ids: I64) -> npt.NDArray[np.bool_]:
        """Which ids are there, (n,)."""
        return self._native.contains(ids).view(np.bool_)

    def rows(self, ids: I64) -> Rows:
        """The rows of ids. Raises ValueError where one is not there."""
        return Rows(*self._native.rows(ids))

    def lists_of(self, ids: I64) -> I32:
        """The list of each id, −1 where it is not there, in the shape of ``ids``. Reads all ids that are stored, and
        makes no map of them, which :meth:`rows` keeps: 43 bytes for each."""
        asked, place = np.unique(ids, return_inverse=True)
        lists = np.full(len(asked), -1, np.int32)
        mapped = self._mapped
        if mapped is None or isinstance(mapped[1], int):
            stored, sizes = self._native.ids()
        else:
            stored, sizes = mapped[1], mapped[2]
        ends = np.cumsum(sizes)
        for start in range(0, len(stored) if len(asked) else 0, _READ):
            part = stored[start : start + _READ]
            at = np.minimum(np.searchsorted(asked, part), len(asked) - 1)
            hits = np.flatnonzero(asked[at] == part)
            lists[at[hits]] = np.searchsorted(ends, start + hits, side="right")
        return lists[place].reshape(ids.shape)

    def ids(self) -> I64:
        """A copy of all ids, list after list."""
        return self._native.ids()[0]

    def search(
        self,
        luts: F32 | _native.LazyTables,
        bias: F32,
        k: int,
        *,
        norm_levels: F32 | None = None,
        probes: I32 | None = None,
        probe_bias: F32 | None = None,
        order: I64 | None = None,
        allowed: Allowed | PreparedAllowed | None = None,
    ) -> tuple[F32, I64]:
        """The k lowest scores of each query, ordered by (distance, id), padded with +inf and −1.

        Args:
            luts, bias: tables of nq queries, (nq, M, K), built or not, and (nq,).
            norm_levels: at most 256 values that the levels of a uint8 norm stand for.
            probes: (nq, P), the lists to scan for each query, nearest first, −1 for none; default all.
            probe_bias: (nq, P), in place of ``bias``.
            order: (nq,), a permutation: the queries in the order in which they are worked on, best so that neighbours
                probe the same lists. Nothing but time depends on it.
            allowed: a bitmap ``allowed[id]``, beyond whose end nothing is allowed, or a list of ids in any order, or
                either one prepared.

        Raises:
            ValueError: NaN or −inf in tables or biases, shapes that disagree, or k below 1.
            TypeError: tables that are no such array, and not to be built.
        """
        levels = None
        if norm_levels is not None:
            levels = np.full(256, np.inf, np.float32)
            levels[: len(norm_levels)] = norm_levels
        bitmap = listed = prepared = None
        if isinstance(allowed, PreparedAllowed):
            prepared = allowed.native
        elif allowed is not None:
            bitmap, listed = _split(allowed)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        n, threads = len(bias), get_num_threads()
        distances, found = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
        self._native.search(
            luts, bias, k, levels, probes, probe_bias, order, bitmap, listed, prepared, threads, distances, found
        )
        return distances, found

    # -- whole stores --------------------------------------------------------------------------------------------

    def export(self) -> Exported:
        """Copies of all rows, list after list, as they were appended."""
        return Exported(*self._native.export_rows())

    @property
    def has_blocks(self) -> bool:
        """Whether the store can be written as superblocks that are scanned where they lie: codebooks of 256 entries, or
        an even number of 16 (any byte is a code then), and no float norms."""
        return self._native.has_blocks()

    def export_blocks(self) -> tuple[U8, I64, I64]:
        """All rows as they are scanned: for every list its whole superblocks ``[column][512]``, then what is left as
        ``[column][n % 512]``; with ids (n,) and list sizes. Codes are relabelled. They are copies, but of a mapped
        store that has not changed what is mapped."""
        mapped = self._mapped
        if mapped is None:
            return self._native.export_blocks()
        blocks, ids, sizes = mapped
        if isinstance(ids, int):  # as many as were mapped: others may be removing some by now
            ids = np.arange(ids, ids + sizes.sum(), dtype=np.int64)
        return blocks, ids, sizes

    def filled_from_blocks(
        self, blocks: U8, ids: I64 | int, list_sizes: I64, relabel: U8 | None = None, *, mapped: bool = True
    ) -> "CodeStore":
        """A store of this one's shape that holds what :meth:`export_blocks` gave.

        Args:
            ids: (n,), or the first of n consecutive ones.
            relabel: of the store that was exported.
            mapped: scan the blocks where they lie, as memory maps larger than memory want; else copy them.
        """
        if not self.has_blocks:
            raise ValueError("only codes that fill their bytes, without float norms, lie in blocks")
        store = CodeStore(self.M, self.sizes, norm=self.norm, lists=self.lists, relabel=relabel)
        listed, first = (None, int(ids)) if isinstance(ids, int) else (ids, 0)
        store._native.adopt(blocks, listed, first, list_sizes, mapped)
        store._mapped = (blocks, ids, list_sizes) if mapped else None
        return store
