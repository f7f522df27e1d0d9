"""Labels are permutations under which entries that share low bits are near."""

import numpy as np
import pytest

from annvq.kernels.pooling import near_labels


def _spread(book, labels, low_bits):
    """Mean squared distance between entries whose labels share their low bits."""
    groups = labels.astype(int) % (1 << low_bits)
    same = (groups[:, None] == groups) & ~np.eye(len(book), dtype=bool)
    return ((book[:, None] - book) ** 2).sum(2)[same].mean()


@pytest.mark.parametrize("low_bits", [4, 5, 6, 7])
def test_entries_that_share_low_bits_are_near(low_bits):
    rng = np.random.default_rng(0)
    book = rng.standard_normal((256, 4))
    (labels,) = near_labels([book])
    np.testing.assert_array_equal(np.sort(labels), np.arange(256))
    random = np.mean([_spread(book, rng.permutation(256), low_bits) for _ in range(5)])
    assert _spread(book, labels, low_bits) < 0.5 * random


def test_a_line_is_paired_with_its_neighbours():
    book = np.random.default_rng(1).permutation(256).astype(np.float64)[:, None]
    (labels,) = near_labels([book])
    assert _spread(book, labels, 7) == 1


def test_degenerate_and_short_books():
    labels = near_labels([np.zeros((256, 3)), np.zeros((16, 3)), np.full((256, 1), 1e30)])
    for row in labels:
        np.testing.assert_array_equal(np.sort(row), np.arange(256))


@pytest.mark.parametrize("width", [1, 3, 40])
def test_no_exchange_between_two_pairs_brings_either_nearer(width):
    """At each level, by distances within groups that are summed here from the entries themselves."""
    book = np.random.default_rng(width).standard_normal((256, width))
    (labels,) = near_labels([book])
    entries = ((book[:, None] - book) ** 2).sum(2)
    for low_bits in range(8, 0, -1):  # groups share so many low bits; pairs of groups one fewer
        member = labels.astype(int) % (1 << low_bits) == np.arange(1 << low_bits)[:, None]  # (groups, entries)
        apart = member.astype(float) @ entries @ member.T
        half = 1 << (low_bits - 1)
        x, y = np.arange(half), np.arange(half) + half
        now = np.add.outer(apart[x, y], apart[x, y])
        straight = apart[np.ix_(x, x)] + apart[np.ix_(y, y)]
        crossed = apart[np.ix_(x, y)] + apart[np.ix_(y, x)]
        others = ~np.eye(half, dtype=bool)
        assert (np.minimum(straight, crossed) >= now - 1e-6 * (1 + now.mean()))[others].all()
