"""Small trained indexes over eight dimensions."""

import numpy as np

import annvq


def vectors(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 8)).astype("f4")


def flat(metric="l2", n=600):
    """A trained flat index of ``n`` vectors, many of which share a code, so that there are ties."""
    index = annvq.FlatIndex(annvq.ResidualVQ(8, M=2, nbits=4), metric=metric)
    return index.fit(vectors(500, 1)).add(vectors(n, 2))


def lists(metric="l2", n=600, **settings):
    index = annvq.IVFIndex(annvq.ProductVQ(8, M=4, nbits=4), nlist=12, metric=metric, **settings)
    return index.fit(vectors(500, 1)).add(vectors(n, 2))
