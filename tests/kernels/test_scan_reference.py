"""A store's search equals its meaning in NumPy bit for bit, at every SIMD level, bytes and wider codes alike."""

import numpy as np
import pytest
import scan_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from annvq import kernels
from annvq.kernels.store import CodeStore


@pytest.mark.parametrize("level", kernels.available_levels())
@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 300),
    M=st.integers(1, 9),
    K=st.sampled_from([2, 16, 256, 700]),
    k=st.integers(1, 320),
    coarse=st.booleans(),
    extras=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 2**31),
)
def test_scan(level, n, M, K, k, coarse, extras, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, K, (n, M)).astype(np.uint8 if K <= 256 else np.uint16)
    luts = rng.standard_normal((3, M, K)).astype(np.float32)
    luts = np.round(luts) if coarse else luts  # many ties
    bias = rng.standard_normal(3).astype(np.float32)
    norms = rng.random(n, dtype=np.float32) if extras[0] else None
    ids = rng.permutation(1000)[:n] if extras[1] else np.arange(n)
    keep = rng.random(n) < 0.5 if extras[2] else None
    before = kernels.simd_level()
    try:
        kernels.set_simd_level(level)
        norm = None if norms is None else "float32"
        store = CodeStore(M, [K] * M, code_dtype=codes.dtype, norm=norm)
        store.append(codes, norms, ids)
        allowed = None if keep is None else np.sort(ids[keep])
        found = store.search(luts, bias, k, allowed=allowed)
    finally:
        kernels.set_simd_level(before)
    expected = reference.scan(codes, luts, bias, k, norms=norms, ids=ids, keep=keep)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])
