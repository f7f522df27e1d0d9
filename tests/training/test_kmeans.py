"""K-means and all that learns by it keep quiet, however few the vectors."""

import warnings

import numpy as np
import pytest

import annvq
from annvq.training.learn import kmeans

X = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
LEARN = {
    "cluster": lambda: kmeans.cluster(X, 256, 2, 0),
    "as many as rows": lambda: kmeans.cluster(X, len(X), 2, 0),
    "progressively": lambda: kmeans.cluster_progressively(X, 256, 2, 0),
    "progressively, few rows": lambda: kmeans.cluster_progressively(X[:6], 4, 2, 0),
    "energies": lambda: kmeans.quick_energies(X, (256, 256), 0),
    "product": lambda: annvq.ProductVQ(8, 2).fit(X),
    "rotated product": lambda: annvq.RotatedProductVQ(8, 2).fit(X),
    "residual": lambda: annvq.ResidualVQ(8, 2).fit(X),
    "norm-free": lambda: annvq.ResidualVQ(8, 2, norm_free=True).fit(X),
    "additive": lambda: annvq.AdditiveVQ(8, 2).fit(X),
    "lists": lambda: annvq.IVFIndex(annvq.ProductVQ(8, 2), nlist=100).fit(X).add(X),
    "to faiss": lambda: annvq.to_faiss(annvq.FlatIndex(annvq.ResidualVQ(8, 1)).fit(X).add(X)),
}


@pytest.mark.parametrize("what", LEARN)
def test_nothing_is_printed(what, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LEARN[what]()
    assert capfd.readouterr() == ("", "")
