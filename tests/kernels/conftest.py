"""Kernel tests run on every SIMD level of the machine; ``ANNVQ_REQUIRE_SIMD`` names those it must have."""

import os

import pytest

from annvq import kernels

LEVELS = kernels.available_levels()
for _required in os.environ.get("ANNVQ_REQUIRE_SIMD", "").split(","):
    if _required and _required not in LEVELS:
        raise RuntimeError(f"ANNVQ_REQUIRE_SIMD asks for {_required}, which this machine lacks")


@pytest.fixture(params=LEVELS)
def level(request):
    before = kernels.simd_level()
    kernels.set_simd_level(request.param)
    yield request.param
    kernels.set_simd_level(before)
