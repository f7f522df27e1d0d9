"""Learning how much error to expect, from what is known of a code."""

import numpy as np
import numpy.typing as npt

from annvq.types import F32

REGULARISATION = 0.01
"""Of features taken to variance one."""


def expected_error(features: F32, errors: npt.NDArray[np.floating]) -> tuple[float, F32]:
    """A mean and weights, so that ``mean + features @ weights`` tells squared errors: ridge regression.

    Args:
        features: (n, f) of n codes, n at least 1.
        errors: ‖x − x̂‖², (n,).

    Returns:
        The mean and (f,) float32 weights; features that are the same for all codes weigh nothing.
    """
    x = features.astype(np.float64)
    centre, spread = x.mean(0), x.std(0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6 * (np.abs(centre) + 1e-30))
    x = (x - centre) * scale
    mean = float(np.mean(errors, dtype=np.float64))
    normal = x.T @ x + REGULARISATION * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(normal, x.T @ (errors - mean)) * scale
    return mean - float(centre @ weights), weights.astype(np.float32)
