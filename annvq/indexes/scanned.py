"""Indexes that are searched by one scan: what it finds, as searches return it."""

from abc import abstractmethod
from typing import Any

import numpy as np

from annvq.arrays import like
from annvq.indexes.contract import Index
from annvq.indexes.filters import Allowed, Filter, most_allowed
from annvq.indexes.within import Within, all_within, as_queries_came, check_radius
from annvq.kernels import _native
from annvq.types import F32, I64, Array


class ScannedIndex(Index):
    """An index whose searches all come down to :meth:`find`, a scan of one list of vectors or of several."""

    @property
    def _lists(self) -> int:
        """How many lists there are."""
        return 1

    @abstractmethod
    def allowed(self, filter: Filter) -> Allowed:
        """A filter as :meth:`find` takes it."""

    @abstractmethod
    def find(
        self, queries: F32, k: int, allowed: Allowed = None, nprobe: int | None = None, wanted: int | None = None
    ) -> tuple[F32, I64]:
        """Guts of ``search``: distances and ids (nq, k) for checked queries, a resolved filter, and lists to probe.

        Of the k results, ``wanted`` (default: all) are those that the number of lists is chosen for, where it is not
        given, and that are there if the index holds as many.

        Raises:
            ValueError, TypeError: nprobe that this index cannot probe.
        """

    def results(self, found: tuple[F32, I64], queries: Array) -> tuple[Any, Any]:
        """What ``search`` returns of what :meth:`find` found, as the queries came.

        Sums for squared distances may end below zero, where they round or codes count a vector too near; such distances
        are returned as 0, in the order of the sums.
        """
        distances, ids = self.above_zero(found)
        if isinstance(queries, np.ndarray):
            return distances, ids
        return like(distances, queries), like(ids, queries)

    def above_zero(self, found: tuple[F32, I64]) -> tuple[F32, I64]:
        """What was found, in place, with 0 for squared distances below it."""
        if self.metric == "l2":
            _native.raise_to_zero(found[0])
        return found

    @property
    def lists_within(self) -> int | None:
        """Lists that :meth:`find` is asked to probe for all vectors within a radius; None where there are no lists."""
        return None

    def all_lists(self, probes: int | None) -> bool:
        """Whether so many lists, or :attr:`lists_within`, are all that there are."""
        return probes is None or probes == self._lists

    def search_within(self, queries: Array, radius: float, *, filter: Filter = None) -> Within:
        return self._within(queries, radius, filter, None)

    def _within(self, queries: Array, radius: float, filter: Filter, nprobe: int | None) -> Within:
        limit, q, allowed = check_radius(radius), self.prepared(queries, "queries"), self.allowed(filter)
        probes = self.lists_within if nprobe is None else nprobe
        found = all_within(
            lambda rows, k: self.above_zero(self.find(rows, k, allowed, probes)),
            q,
            limit,
            lambda: most_allowed(allowed, len(self)),
        )
        return as_queries_came(found, queries)
