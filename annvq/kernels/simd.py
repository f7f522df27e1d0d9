"""The SIMD level that kernels use.

It is chosen at import: the best this machine has, or what the environment variable ``ANNVQ_SIMD`` names (``generic``;
on x86-64 ``avx2``, ``avx512``, ``avx512vbmi``; on 64-bit ARM ``neon``, ``neondot``). Kernels that a level lacks are
those of the level it falls back to.
"""

import os

from annvq.kernels import _native


def simd_level() -> str:
    """The SIMD level in use."""
    return _native.simd_level()


def available_levels() -> list[str]:
    """The SIMD levels this machine can run, the best one last."""
    return _native.available_levels()


def lookup_cost() -> float | None:
    """Nanoseconds that the cheapest look-up of one code takes from the first cache, nothing else done, at the level in
    use; None where the level has no byte look-ups. Measured once."""
    return _native.lookup_cost() or None


def set_simd_level(name: str) -> None:
    """Use the SIMD level ``name`` from now on (for tests and measurements).

    Raises:
        ValueError: an unknown level, or one this machine does not have.
    """
    _native.set_simd_level(name)


if _forced := os.environ.get("ANNVQ_SIMD"):
    set_simd_level(_forced)
