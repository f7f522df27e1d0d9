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
        (104, 8, (8,) * 13),
        (64, 6, (6,) * 9 + (5,) * 2),
    ],
)
def test_split_bits(bits, nbits, expected):
    assert split_bits(bits, nbits) == expected
    assert sum(expected) == bits
