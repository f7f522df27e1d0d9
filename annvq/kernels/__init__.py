"""Compiled kernels and their dispatch. Quantizers build tables, indexes scan them; kernels know neither.

The SIMD level is chosen at import: the best this machine has, or what the environment variable ``ANNVQ_SIMD`` names
(``generic``, ``avx2``, ``avx512``, ``avx512vbmi``).
"""

import os

from annvq.kernels import _native


def simd_level() -> str:
    """The SIMD level in use."""
    return _native.simd_level()


def available_levels() -> list[str]:
    """The SIMD levels this machine can run, lowest first."""
    return _native.available_levels()


def set_simd_level(name: str) -> None:
    """Use the SIMD level ``name`` from now on (for tests and measurements).

    Raises:
        ValueError: an unknown level, or one this machine does not have.
    """
    _native.set_simd_level(name)


if _forced := os.environ.get("ANNVQ_SIMD"):
    set_simd_level(_forced)
