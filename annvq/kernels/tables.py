"""Distance tables of queries against codebooks, built natively when a scan wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from annvq.kernels import _native
from annvq.threads import get_num_threads
from annvq.types import F32


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
        return LazyTables(self.builder, self.queries, False, self.scale * factor)

    def plus(self, offsets: F32) -> LazyTables:
        """The tables with ``offsets`` (M, K) added to those of every query; once."""
        if self.offsets is not None:
            raise ValueError("the tables have offsets already")
        return LazyTables(self.builder, self.queries, self.squared, self.scale, offsets)

    def native(self) -> _native.UnbuiltTables:
        """What a native scan takes."""
        return _native.UnbuiltTables(self.builder, self.queries, self.squared, self.scale, self.offsets)

    def build(self) -> F32:
        """The tables, padded with +inf where a codebook has fewer than K entries."""
        return self.native().build(get_num_threads())


def book_centres(entries: F32, sizes: Sequence[int]) -> F32:
    """What is taken off each codebook's entries to centre them, (M, width): their mean, but for entries that are more
    than a thousand times as far out as most, which would move it away from all others."""
    return np.stack(
        [_native.book_centre(np.ascontiguousarray(book)) for book in np.split(entries, np.cumsum(sizes)[:-1])]
    )


def squared_norms(x: F32) -> F32:
    """‖x‖² of each row, (n,) float32, summed in float64 in dimension order."""
    return _native.squared_norms(x, get_num_threads())
