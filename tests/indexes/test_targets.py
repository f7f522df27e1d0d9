"""Recall targets."""

import numpy as np
import pytest

from annvq.indexes.targets import check_share, fewest


def test_the_fewest_steps_that_reach_a_share():
    reach = np.array([1 / 3, 2 / 3, 1], np.float32)
    assert [fewest(reach, share) for share in (0.2, 1 / 3, 0.5, 2 / 3, 1.0)] == [1, 1, 2, 2, 3]


def test_shares_lie_above_zero_and_up_to_one():
    assert [check_share(value, "recall") for value in (1, np.float32(0.5))] == [1.0, 0.5]
    for value, error in ((0, ValueError), (1.1, ValueError), (True, TypeError), ("high", TypeError)):
        with pytest.raises(error, match="recall must"):
            check_share(value, "recall")
