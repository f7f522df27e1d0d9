"""Filters: which ids a search may return."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.indexes.ids import check_ids
from annvq.kernels.store import PreparedAllowed
from annvq.types import I64, Array

Filter: TypeAlias = "Array | Callable[[I64], Any] | PreparedFilter | None"
"""Which ids a search may return: a bitmap (bool, ``filter[id]``; ids beyond its end are not allowed), a list of allowed
ids, or a function that is called once with the stored ids (n,) and returns which are allowed, bool (n,). One that is
used again and again is best made a :class:`PreparedFilter`. Integers are ids whatever their type: a mask in uint8, or
packed bits, must be made bool."""

Allowed: TypeAlias = npt.NDArray[np.bool_] | I64 | PreparedAllowed | None
"""A resolved filter: a bitmap over ids, a list of ids, either one prepared, or None where all are allowed."""


class PreparedFilter(PreparedAllowed):
    """A filter for many searches: which rows it allows is found by the first, and again after an index has changed.

    One query at a time that allows one id in a hundred of a million is then answered many times as fast. Meant for one
    index: used on several in turn, it finds the rows each time. It holds on to the index's memory as it was when last
    searched, and may be used by several threads.

    Args:
        filter: a bitmap or a list of ids, see :data:`Filter`; copied.

    Raises:
        TypeError, ValueError: not such a filter.
    """

    def __init__(self, filter: Array) -> None:
        if filter is None or callable(filter) or isinstance(filter, PreparedAllowed):
            raise TypeError(f"filter must be a bitmap or an array of ids, got {type(filter).__name__}")
        super().__init__(_listed(filter))


def resolve_filter(filter: Filter, ids: Callable[[], I64]) -> Allowed:
    """A filter as what searches take.

    Args:
        filter: see :data:`Filter`. Listed ids that are not stored match nothing.
        ids: gives the stored ids, for a function to judge.

    Raises:
        TypeError, ValueError: not such a filter.
    """
    if filter is None or isinstance(filter, PreparedAllowed):
        return filter
    if callable(filter):
        stored = ids()
        answer = np.asarray(filter(stored))
        if answer.dtype != np.bool_ or answer.shape != stored.shape:
            found = f"{answer.dtype} {answer.shape}"
            raise ValueError(f"filter must return bool of shape ({len(stored)},) for as many ids, got {found}")
        return stored[answer]
    return _listed(filter)


def _listed(filter: Array) -> npt.NDArray[np.bool_] | I64:
    array = np.asarray(filter.cpu() if hasattr(filter, "cpu") else filter)
    if array.dtype.kind not in "biu" and array.shape != (0,):
        raise TypeError(f"filter must be a bitmap (bool) or ids (int64) of shape (n,), got {_named(filter, array)}")
    if array.dtype != np.bool_:
        return check_ids(array, None, "filter")
    if array.ndim != 1:
        raise ValueError(f"filter must be a bitmap of shape (ids,), got bool {array.shape}")
    return np.ascontiguousarray(array)


def _named(filter: Array, array: npt.NDArray[Any]) -> str:
    """What a caller gave: its dtype, or where NumPy sees but an object, its type."""
    return type(filter).__name__ if array.ndim == 0 else str(array.dtype)


def most_allowed(allowed: Allowed, n: int) -> int:
    """How many of ``n`` stored vectors a filter allows at most; listed ids that are not stored count too."""
    if allowed is None:
        return n
    named = allowed.allowed if isinstance(allowed, PreparedAllowed) else allowed
    return min(n, int(np.count_nonzero(named)) if named.dtype == np.bool_ else len(named))


def allowed_among(allowed: Allowed, ids: I64) -> I64:
    """Those of ``ids`` (n,) that a filter allows."""
    named = allowed.allowed if isinstance(allowed, PreparedAllowed) else allowed
    if named is None:
        return ids
    if named.dtype != np.bool_:
        return ids[np.isin(ids, named)]
    known = ids[ids < len(named)]
    return known[named[known]]
