"""Rows that are read as they are asked for: what NumPy gives for the same rows, and no more read than is needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annvq.rows import JoinedRows, RoundedRows

X = np.arange(60, dtype=np.float32).reshape(20, 3)
CUTS = [0, 0, 7, 7, 8, 19, 20]


class Counted(JoinedRows):
    """Pieces of X that are counted as they are read."""

    def __init__(self):
        super().__init__(np.diff(CUTS), 3, "float32")
        self.read = []

    def piece(self, number):
        self.read.append(number)
        return X[CUTS[number] : CUTS[number + 1]]


numbers = st.integers(-20, 19)
ends = st.none() | st.integers(-30, 30)
asked = st.one_of(
    numbers,
    st.builds(slice, ends, ends, ends.filter(lambda step: step != 0)),
    st.lists(numbers, max_size=30).map(lambda rows: np.array(rows, np.int64)),
    st.lists(numbers, min_size=4, max_size=4).map(lambda rows: np.array(rows).reshape(2, 2)),
    st.lists(st.booleans(), min_size=20, max_size=20).map(np.array),
)


@given(asked)
def test_rows_are_those_of_numpy(rows):
    for lazy in (Counted(), RoundedRows(Counted())):
        got = lazy[rows]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, X[rows])
        np.testing.assert_array_equal(lazy[rows, 1:], X[rows][..., 1:])


def test_all_rows():
    lazy = Counted()
    assert (len(lazy), lazy.shape, lazy.ndim) == (20, (20, 3), 2)
    np.testing.assert_array_equal(np.asarray(lazy), X)
    np.testing.assert_array_equal(np.asarray(lazy, np.float64), X)


def test_only_pieces_that_are_needed_are_read():
    lazy = Counted()
    lazy[8:10]
    assert lazy.read == [4]
    lazy.read.clear()
    lazy[np.array([19, 3, 8, 3, 9])]
    assert lazy.read == [1, 4, 5]


@pytest.mark.parametrize("rows", [20, -21, np.array([0, 20]), np.array([0.5]), "x", [True]])
def test_what_is_no_row(rows):
    with pytest.raises(IndexError, match="rows must"):
        Counted()[rows]
