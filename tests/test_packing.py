"""Codes in files and rows take as many bits as they have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq.packing import pack, pack_rows, packed_bytes, row_bytes, unpack, unpack_rows


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=9), st.integers(0, 70), st.integers(0, 2**31))
def test_round_trip(bits, n, seed):
    dtype = np.uint8 if max(bits) <= 8 else np.uint16
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, 1 << b, n) for b in bits], 1).astype(dtype)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(n, bits) == -(-n * sum(bits) // 8)
    np.testing.assert_array_equal(unpack(packed, n, bits, dtype), codes)


def written_out(code, bits):
    """The bytes of one code, bit by bit."""
    text = "".join(f"{int(number):0{b}b}"[::-1] for number, b in zip(code, bits, strict=True))
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=9), st.integers(0, 40), st.integers(0, 2**31))
def test_rows(bits, n, seed):
    dtype = np.uint8 if max(bits) <= 8 else np.uint16
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, 1 << b, n) for b in bits], 1).astype(dtype)
    rows = pack_rows(codes, bits)
    assert rows.shape == (n, row_bytes(bits))
    assert rows.tolist() == [written_out(code, bits) for code in codes]
    back = unpack_rows(rows, bits, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, codes)


def test_rows_that_are_filled_up_with_ones_are_refused():
    rows = pack_rows(np.array([[1, 2], [3, 4]], np.uint8), (3, 4))
    rows[1] |= 0x80
    with pytest.raises(ValueError, match="zeros in the last 1 bits; row 1 has not"):
        unpack_rows(rows, (3, 4), np.uint8)
