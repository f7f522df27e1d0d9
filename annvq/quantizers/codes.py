"""Codes that come from outside, checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from annvq.arrays import dtype_name, host_array
from annvq.types import U8, Array, Codes


def check_codes(codes: Array, sizes: Sequence[int], dtype: np.dtype[Any]) -> Codes:
    """``codes`` as a NumPy array once it is known to hold (n, M) integers, each below its codebook's size.

    Raises:
        TypeError, ValueError: wrong kind, dtype or shape; a code out of range.
    """
    wanted = f"{dtype} of shape (n, {len(sizes)})"
    if not (hasattr(codes, "dtype") and hasattr(codes, "shape")):
        raise TypeError(f"codes must be {wanted}, got {type(codes).__name__}")
    array = np.asarray(host_array(codes))
    if array.dtype.kind not in "iu":
        raise TypeError(f"codes must be {wanted}, got {dtype_name(codes)}")
    if array.ndim != 2 or array.shape[1] != len(sizes):
        raise ValueError(f"codes must be {wanted}, got {dtype_name(codes)} {tuple(array.shape)}")
    if len(array):
        low, high = int(array.min()), array.max(axis=0)
        over = high.astype(np.int64) >= np.asarray(sizes)
        if low < 0 or over.any():
            raise ValueError(f"codes must lie in 0..K−1 with K = {sizes}; got {low}..{int(high.max())}")
    return array


def check_rows(rows: Array, row_bytes: int) -> U8:
    """``rows`` as a NumPy array once it is known to be uint8 (n, row_bytes); TypeError or ValueError if not."""
    wanted = f"rows must be uint8 of shape (n, {row_bytes})"
    if not (hasattr(rows, "dtype") and hasattr(rows, "shape")):
        raise TypeError(f"{wanted}, got {type(rows).__name__}")
    array: U8 = np.asarray(host_array(rows))
    if array.dtype != np.uint8:
        raise TypeError(f"{wanted}, got {dtype_name(rows)}")
    if array.ndim != 2 or array.shape[1] != row_bytes:
        raise ValueError(f"{wanted}, got {tuple(array.shape)}")
    return array
