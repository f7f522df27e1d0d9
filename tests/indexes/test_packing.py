"""Codes in files take as many bits as they have."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq.indexes.packing import pack, packed_bytes, unpack


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=9), st.integers(0, 70), st.integers(0, 2**31))
def test_round_trip(bits, n, seed):
    dtype = np.uint8 if max(bits) <= 8 else np.uint16
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, 1 << b, n) for b in bits], 1).astype(dtype)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(n, bits) == -(-n * sum(bits) // 8)
    np.testing.assert_array_equal(unpack(packed, n, bits, dtype), codes)
