"""Compiled kernels. Quantizers build tables, indexes scan them; kernels know neither."""

from annvq.kernels._native import LazyTables
from annvq.kernels.simd import available_levels, lookup_cost, set_simd_level, simd_level
from annvq.kernels.tables import book_centres, squared_norms

__all__ = [
    "LazyTables",
    "available_levels",
    "book_centres",
    "lookup_cost",
    "set_simd_level",
    "simd_level",
    "squared_norms",
]
