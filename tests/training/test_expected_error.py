"""What tells how much error to expect: against scikit-learn's ridge regression."""

import numpy as np
from sklearn.linear_model import Ridge

from annvq.training.learn.errors import REGULARISATION, expected_error


def test_weights_are_those_of_ridge_regression():
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(500, 7)) * np.arange(1, 8) + 3, 0).astype(np.float32)
    features[:, 4] = 2.5  # tells nothing
    errors = features[:, 0] * 3 + features[:, 6] + rng.exponential(size=500)
    mean, weights = expected_error(features, errors)
    used = np.delete(np.arange(7), 4)
    x = features[:, used].astype(np.float64)
    spread = x.std(0)
    right = Ridge(alpha=REGULARISATION * 500).fit((x - x.mean(0)) / spread, errors)
    assert weights[4] == 0
    np.testing.assert_allclose(weights[used], right.coef_ / spread, rtol=1e-5)
    np.testing.assert_allclose(mean + features @ weights, right.predict((x - x.mean(0)) / spread), rtol=1e-5)
