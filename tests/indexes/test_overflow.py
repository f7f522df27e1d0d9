"""Queries so long that their inner products are beyond float32."""

import numpy as np
import pytest

import annvq
from annvq.training import KMeans, Recipe


@pytest.mark.parametrize("lists", [False, True])
def test_queries_whose_products_overflow_are_named(lists):
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32) * np.float32(1e10)
    q = annvq.ProductVQ(8, 2, 4)
    index = annvq.IVFIndex(q, 4, metric="ip") if lists else annvq.FlatIndex(q, "ip")
    index.fit(x, recipe=Recipe((KMeans(2),))).add(x)
    with pytest.raises(ValueError, match=r"queries, .* and their products must be finite in float32"):
        index.search(x[:3] * np.float32(1e25), 1)
