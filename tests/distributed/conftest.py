"""One small Ray for all tests of sharded indexes."""

import numpy as np
import pytest

import annvq


@pytest.fixture(scope="package")
def small_ray():
    ray = pytest.importorskip("ray", reason="ray is not installed")
    # Ray's own threads and sockets outlive its shutdown for a moment.
    ray.init(
        num_cpus=2,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
    )
    yield ray
    ray.shutdown()


def vectors(n, seed, dim=8):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype("f4")


def flat(metric="l2", n=600, dim=8):
    """A trained flat index of ``n`` vectors, many of which share a code, so that there are ties."""
    index = annvq.FlatIndex(annvq.ResidualVQ(dim, M=2, nbits=4), metric=metric)
    return index.fit(vectors(500, 1, dim)).add(vectors(n, 2, dim))


def lists(metric="l2", n=600, **settings):
    index = annvq.IVFIndex(annvq.ProductVQ(8, M=4, nbits=4), nlist=12, metric=metric, **settings)
    return index.fit(vectors(500, 1)).add(vectors(n, 2))
