"""Compiled kernels and their dispatch. Quantizers build tables, indexes scan them; kernels know neither.

The SIMD level is chosen at import: the best this machine has, or what the environment variable ``ANNVQ_SIMD`` names
(``generic``, ``avx2``, ``avx512``, ``avx512vbmi``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from annvq.kernels import _native
from annvq.threads import get_num_threads

if TYPE_CHECKING:
    from annvq.types import F32


def simd_level() -> str:
    """The SIMD level in use."""
    return _native.simd_level()


def available_levels() -> list[str]:
    """The SIMD levels this machine can run, lowest first."""
    return _native.available_levels()


def lookup_cost() -> float | None:
    """Nanoseconds that the cheapest look-up of one code takes from the first cache, nothing else done, at the level in
    use; None where the level has no byte look-ups. Measured once."""
    return _native.lookup_cost() or None


def set_simd_level(name: str) -> None:
    """Use the SIMD level ``name`` from now on (for tests and measurements).

    Raises:
        ValueError: an unknown level, or one this machine does not have.
    """
    _native.set_simd_level(name)


if _forced := os.environ.get("ANNVQ_SIMD"):
    set_simd_level(_forced)


class LazyTables(NamedTuple):
    """Tables (nq, M, K) of queries, built when a scan wants them: few at a time, which stay close to the processor.

    Entries are Σ (q − c)² where ``squared``, else ``scale`` · Σ q·c, each a float32 sum in dimension order without
    fused multiply-add; then ``offsets`` (M, K) are added.
    """

    builder: _native.TableBuilder
    queries: F32
    squared: bool
    scale: float
    offsets: F32 | None = None

    def scaled(self, factor: float) -> LazyTables:
        """The tables times ``factor``; not of squares, nor after offsets."""
        if self.squared or self.offsets is not None:
            raise ValueError("tables of squares, or with offsets, cannot be scaled")
        return self._replace(scale=self.scale * factor)

    def plus(self, offsets: F32) -> LazyTables:
        """The tables with ``offsets`` (M, K) added to those of every query; once."""
        if self.offsets is not None:
            raise ValueError("the tables have offsets already")
        return self._replace(offsets=offsets)

    def native(self) -> _native.UnbuiltTables:
        return _native.UnbuiltTables(self.builder, self.queries, self.squared, self.scale, self.offsets)

    def build(self) -> F32:
        """The tables, padded with +inf where a codebook has fewer than K entries."""
        return self.native().build(get_num_threads())


class TableCache:
    """Tables of queries, keeping the codebooks as the kernels want them from one call to the next.

    A copy (or unpickling) of one starts empty.
    """

    def __init__(self) -> None:
        self._made: dict[bool, tuple[tuple[tuple[int, ...], tuple[int, ...]], _native.TableBuilder, F32]] = {}
        self._seen: tuple[Any, int, F32] | None = None  # a tensor, where its data lie, and a view of them

    def __reduce__(self) -> tuple[Any, ...]:
        return TableCache, ()

    def tables(
        self,
        queries: F32,
        entries: F32,
        sizes: Sequence[int],
        starts: Sequence[int],
        *,
        squared: bool,
        scale: float = 1.0,
        centred: bool = False,
    ) -> LazyTables:
        """Tables of queries against codebooks, as they are now.

        Args:
            queries: (nq, d).
            entries: (ΣK, width), codebook after codebook; compared with the last call's, so they may change.
            sizes: K_m, entries of each of the M codebooks.
            starts: first query dimension that codebook m sees.
            squared, scale: see :class:`LazyTables`.
            centred: take each codebook's centre off its entries first.
        """
        return LazyTables(self.builder(entries, sizes, starts, centred=centred)[0], queries, squared, scale)

    def builder(
        self, entries: F32, sizes: Sequence[int], starts: Sequence[int], *, centred: bool
    ) -> tuple[_native.TableBuilder, F32]:
        """What builds the tables, and the codebooks' centres (M, width) that it takes off, zeros unless ``centred``."""
        shape, made = (tuple(sizes), tuple(starts)), self._made.get(centred)
        if made is None or made[0] != shape or not made[1].holds(entries):
            centres = book_centres(entries, sizes) if centred else np.zeros((len(sizes), entries.shape[1]), np.float32)
            own = entries - np.repeat(centres, sizes, axis=0) if centred else entries
            places = np.asarray(sizes, np.int32), np.asarray(starts, np.int32)
            self._made[centred] = made = (shape, _native.TableBuilder(own, entries, *places), centres)
        return made[1], made[2]

    def of_parameter(
        self,
        queries: F32,
        weight: Any,
        sizes: Sequence[int],
        starts: Sequence[int],
        *,
        squared: bool,
        scale: float = 1.0,
    ) -> LazyTables:
        """:meth:`tables` against a torch tensor (ΣK, width) that may be trained on."""
        return self.tables(queries, self.entries_of(weight), sizes, starts, squared=squared, scale=scale)

    def entries_of(self, weight: Any) -> F32:
        """A torch tensor (ΣK, width) as an array, over the same memory where it can be."""
        seen = self._seen
        if seen is None or seen[0] is not weight or seen[1] != weight.data_ptr():
            entries = np.ascontiguousarray(weight.detach().cpu().numpy(), np.float32)
            if entries.ctypes.data != weight.data_ptr():  # a copy: it would not follow the tensor
                return entries
            # The view keeps the memory, so that its address is no other tensor's.
            self._seen = seen = (weight, weight.data_ptr(), entries)
        return seen[2]


def book_centres(entries: F32, sizes: Sequence[int]) -> F32:
    """What is taken off each codebook's entries to centre them, (M, width): their mean, but for entries that are more
    than a thousand times as far out as most, which would move it away from all others."""
    return np.stack(
        [_native.book_centre(np.ascontiguousarray(book)) for book in np.split(entries, np.cumsum(sizes)[:-1])]
    )


def squared_norms(x: F32) -> F32:
    """‖x‖² of each row, (n,) float32, summed in float64 in dimension order."""
    return _native.squared_norms(x, get_num_threads())
