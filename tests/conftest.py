"""Small fitted quantizers that tests share."""

import numpy as np
import pytest

import annvq
from annvq.quantizers import registered
from annvq.training import KMeans, Recipe


@pytest.fixture(params=sorted(registered()))
def kind(request):
    """The name of each registered quantizer in turn."""
    return request.param


@pytest.fixture(scope="session")
def small():
    """``small(kind, …)``: a quickly fitted quantizer and the vectors it learned from."""

    def make(kind, nbits=4, M=3, dim=12, **config):
        rng = np.random.default_rng(0)
        x = (rng.normal(size=(600, dim)) @ rng.normal(size=(dim, dim))).astype(np.float32)
        q = annvq.make(kind, dim=dim, M=M, nbits=nbits, **config)
        return q.fit(x, seed=0, recipe=Recipe((KMeans(4),))), x

    return make
