"""The levels of a norm byte."""

import numpy as np

from annvq.training.learn.norms import fit_levels


def test_levels_are_means_of_the_values_nearest_to_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.gamma(2.0, size=60)
        levels = fit_levels(values.astype(np.float32), 4).astype(float)
        nearest = np.abs(values[:, None] - levels).argmin(1)
        assert len(np.unique(nearest)) > 1
        for level in np.unique(nearest):
            np.testing.assert_allclose(levels[level], values[nearest == level].mean(), rtol=1e-5)
