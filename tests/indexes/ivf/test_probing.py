"""How many lists to probe."""

import numpy as np

from annvq.indexes.ivf.coarse import Coarse
from annvq.indexes.ivf.probing import Probing, reach_of, widened


def test_reach():
    coarse = Coarse(np.array([[0.0], [1.0], [5.0]], np.float32), "l2")
    lists = np.array([[0, 1], [2, -1]], np.int32)
    reach = reach_of(coarse, np.array([[0.1], [0.2]], np.float32), lists)
    np.testing.assert_allclose(reach, [1 / 3, 2 / 3, 1])
    probing = Probing(None, 0.5)
    assert probing.usual(64) == 4  # nothing was measured
    probing.measured(reach, 0.5)
    assert (probing.usual(3), probing.lists_for(1.0, 3)) == (2, 3)
    assert Probing(7, 0.5).usual(5) == 5


def test_narrow_filters_widen_by_the_root_of_their_share():
    assert widened(8, 100, 10, 1000) == 80
    assert widened(8, 100, 1000, 1000) == 8
    assert widened(8, 100, 0, 1000) == widened(8, 100, 1, 1000) == 100
