"""What codes are, as numbers and as bytes; those that come from outside, checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from annvq.arrays import dtype_name, host_array, like, positive_int
from annvq.packing import pack_rows, row_bytes, unpack_rows
from annvq.types import U8, Array, Codes

MAX_M = 1024


def check_nbits(nbits: Any, M: int) -> tuple[int, ...]:
    """Bits of every codebook, from one int or a sequence of M of them, each in 1..16."""
    if isinstance(nbits, np.ndarray) and nbits.ndim == 1:
        nbits = nbits.tolist()
    if isinstance(nbits, Sequence) and not isinstance(nbits, str | bytes):
        if len(nbits) != M:
            raise ValueError(f"nbits must be one int or M={M} of them, got {len(nbits)}: {tuple(nbits)}")
        return tuple(positive_int(b, "nbits", high=16) for b in nbits)
    return (positive_int(nbits, "nbits", high=16),) * M


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


class CodeShape:
    """What a code is: M numbers, each of so many bits.

    Args:
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
    """

    def __init__(self, M: int, nbits: int | Sequence[int]) -> None:
        self.M = positive_int(M, "M", high=MAX_M)
        self.bits_per_codebook = check_nbits(nbits, self.M)
        self.sizes = tuple(1 << b for b in self.bits_per_codebook)

    @property
    def nbits(self) -> int | tuple[int, ...]:
        """Bits per codebook: one int where all are equal, else a tuple of M."""
        bits = self.bits_per_codebook
        return bits[0] if len(set(bits)) == 1 else bits

    @property
    def bits(self) -> int:
        """Bits of one code: the sum of nbits over the codebooks, without any norm."""
        return sum(self.bits_per_codebook)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """uint8 if every nbits is at most 8, else uint16."""
        return np.dtype(np.uint8 if max(self.bits_per_codebook) <= 8 else np.uint16)

    def check_codes(self, codes: Array) -> Codes:
        """``codes`` as a NumPy array once it is known to hold (n, M) codes in range; TypeError or ValueError if not."""
        return check_codes(codes, self.sizes, self.code_dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one code in :meth:`to_rows`: :attr:`bits` in whole bytes."""
        return row_bytes(self.bits_per_codebook)

    def to_rows(self, codes: Array) -> Any:
        """Codes as bytes, for a column of a database.

        A row holds the numbers of codebook 0, 1, … one after another, each in as many bits as its codebook has, least
        significant bit first; zero bits fill up the last byte. Where every codebook has 8 bits, a row is the code.

        Args:
            codes: (n, M) integers, each below its codebook's size.

        Returns:
            (n, :attr:`row_bytes`) uint8, NumPy or torch as ``codes`` came.

        Raises:
            TypeError, ValueError: wrong kind, dtype, shape, or a code out of range.
        """
        return like(pack_rows(self.check_codes(codes).astype(self.code_dtype), self.bits_per_codebook), codes)

    def from_rows(self, rows: Array) -> Any:
        """The inverse of :meth:`to_rows`: (n, M) codes of :attr:`code_dtype`.

        Raises:
            TypeError, ValueError: not (n, :attr:`row_bytes`) uint8, or bits that are not zero behind the last number.
        """
        array = check_rows(rows, self.row_bytes)
        return like(unpack_rows(array, self.bits_per_codebook, self.code_dtype), rows)
