"""Codes in as many bits as they have: the form they take in files, and row by row in databases.

Rows follow one another without padding, codebook 0 first, least significant bit first; only the last byte is padded.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_ROWS = 1 << 16  # a multiple of 8, so that every chunk but the last fills whole bytes


def packed_bytes(n: int, bits: Sequence[int]) -> int:
    """Bytes that ``n`` packed codes take."""
    return (n * sum(bits) + 7) // 8


def pack(codes: npt.NDArray[Any], bits: Sequence[int]) -> npt.NDArray[np.uint8]:
    """(n, M) codes as a stream of bytes, ``bits[m]`` bits for codebook m."""
    if all(b == 8 for b in bits):
        return np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1)
    parts = [_pack_chunk(codes[i : i + _ROWS], bits) for i in range(0, len(codes), _ROWS)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def _pack_chunk(codes: npt.NDArray[Any], bits: Sequence[int]) -> npt.NDArray[np.uint8]:
    columns = [(codes[:, m, None] >> np.arange(b, dtype=codes.dtype)) & 1 for m, b in enumerate(bits)]
    return np.packbits(np.concatenate(columns, axis=1).astype(np.uint8).reshape(-1), bitorder="little")


def unpack(packed: npt.NDArray[np.uint8], n: int, bits: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The inverse of :func:`pack`: (n, M) codes of ``dtype``."""
    if all(b == 8 for b in bits):
        return packed.reshape(n, len(bits)).astype(dtype, copy=False)
    codes = np.empty((n, len(bits)), dtype=dtype)
    row_bits = sum(bits)
    for start in range(0, n, _ROWS):
        stop = min(n, start + _ROWS)
        stream = packed[start * row_bits // 8 : packed_bytes(stop, bits)]
        flat = np.unpackbits(stream, count=(stop - start) * row_bits, bitorder="little").reshape(stop - start, row_bits)
        at = 0
        for m, b in enumerate(bits):
            codes[start:stop, m] = flat[:, at : at + b] @ (1 << np.arange(b, dtype=np.uint32))
            at += b
    return codes


def row_bytes(bits: Sequence[int]) -> int:
    """Bytes of one code by itself."""
    return packed_bytes(1, bits)


def pack_rows(codes: npt.NDArray[Any], bits: Sequence[int]) -> npt.NDArray[np.uint8]:
    """(n, M) codes as (n, bytes), each packed by itself: zero bits fill up the last byte of each row."""
    left = -sum(bits) % 8
    if left:
        codes, bits = np.pad(codes, ((0, 0), (0, 1))), (*bits, left)
    return pack(codes, bits).reshape(len(codes), row_bytes(bits))


def unpack_rows(rows: npt.NDArray[np.uint8], bits: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The inverse of :func:`pack_rows`: (n, M) codes of ``dtype``.

    Raises:
        ValueError: bits that fill up a row and are not zero; it is named by its number.
    """
    left = -sum(bits) % 8
    codes = unpack(np.ascontiguousarray(rows).reshape(-1), len(rows), (*bits, left) if left else bits, dtype)
    if not left:
        return codes
    filled = codes[:, -1] != 0
    if filled.any():
        raise ValueError(f"rows must have zeros in the last {left} bits; row {int(filled.argmax())} has not")
    return np.ascontiguousarray(codes[:, :-1])
