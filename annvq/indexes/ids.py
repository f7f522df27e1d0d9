"""Ids of vectors: int64, at least 0, each once in an index."""

import numpy as np
import numpy.typing as npt

from annvq.types import I64, Array

END_OF_IDS = 1 << 63
"""One past the largest id."""


def check_ids(ids: Array, n: int | None, name: str = "ids") -> I64:
    """``ids`` as int64 (n,), each at least 0.

    Raises:
        TypeError: not an integer array.
        ValueError: wrong shape or negative.
    """
    wanted = f"int64 of shape ({'n' if n is None else n},)"
    array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be {wanted}, got {array.dtype}")
    if array.ndim != 1 or (n is not None and len(array) != n):
        raise ValueError(f"{name} must be {wanted}, got {array.dtype} {array.shape}")
    if array.dtype == np.uint64 and len(array) and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit int64, got {int(array.max())}")
    out: I64 = np.ascontiguousarray(array, dtype=np.int64)
    if len(out) and int(out.min()) < 0:
        raise ValueError(f"{name} must not be negative (−1 marks an empty place in results), got {int(out.min())}")
    return out


def following_ids(first: int, n: int) -> I64:
    """The ids from ``first`` on, (n,), for vectors that come without.

    Raises:
        ValueError: int64 has too few left.
    """
    if first + n > END_OF_IDS:
        raise ValueError(f"ids must be given: {first} is next, and fewer than {n} are left in int64")
    return np.arange(first, first + n, dtype=np.uint64).astype(np.int64)


def require_new(ids: I64, there: npt.NDArray[np.bool_]) -> None:
    """Raise ValueError where ids (n,) repeat or, as ``there`` (n,) says, are stored."""
    ordered = np.sort(ids)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if there.any() or len(twice):
        repeated = sorted({*ids[there].tolist(), *twice.tolist()})
        wanted = "be new and differ" if there.any() else "differ"
        raise ValueError(f"ids must {wanted} from one another; repeated: {repeated[:5]}")


def check_distinct(ids: npt.NDArray[np.int64]) -> None:
    """Raise ValueError where a file's ids repeat or are negative."""
    ordered = np.sort(ids, axis=None)
    if len(ordered) and ordered[0] < 0:
        raise ValueError(f"its ids must not be negative, got {ordered[0]}")
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError("its ids repeat")
