"""Bits shared out over codebooks."""

import pytest

from annvq.bits import split_bits


@pytest.mark.parametrize(
    ("bits", "nbits", "expected"),
    [
        (64, 8, (8,) * 8),
        (56, 8, (8,) * 7),
        (92, 8, (8,) * 8 + (7,) * 4),
        (5, 8, (5,)),
        (64, 6, (6,) * 9 + (5,) * 2),
    ],
)
def test_split_bits(bits, nbits, expected):
    assert split_bits(bits, nbits) == expected
    assert sum(expected) == bits


@pytest.mark.parametrize(
    ("bits", "nbits", "dim", "expected"),
    [
        (100, 8, 128, (7,) * 4 + (6,) * 12),
        (72, 8, 96, (6,) * 12),
        (48, 8, 64, (6,) * 8),
        (64, 8, 128, (8,) * 8),
        (72, 8, 7, (8,) * 9),  # more than dimensions: refused when the quantizer is made
        (64, 8, 100, (7,) * 4 + (6,) * 6),
        (64, 8, 25, (8,) * 8),  # 25 codebooks would divide it, of 2 and 3 bits
        (64, 8, 1009, (8,) * 8),
    ],
)
def test_codebooks_that_divide_the_dimensions_if_not_too_many_do(bits, nbits, dim, expected):
    assert split_bits(bits, nbits, dim) == expected
