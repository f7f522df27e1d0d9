"""The transformer among scikit-learn's own."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import annvq
from annvq.arrays import host_array, to_numpy
from annvq.sklearn import QuantizedKNeighborsTransformer


@pytest.fixture(autouse=True)
def _one_thread():
    """Data this small are not worth a second thread."""
    before = annvq.get_num_threads()
    annvq.set_num_threads(1)
    yield
    annvq.set_num_threads(before)


SMALL = {"bits": 24, "refine": 10, "random_state": 0}


@parametrize_with_checks(
    [
        QuantizedKNeighborsTransformer(n_neighbors=3, bits=16, random_state=0),
        QuantizedKNeighborsTransformer(n_neighbors=3, bits=16, refine=0, mode="connectivity", random_state=0),
    ]
)
def test_estimator_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    x, y = make_blobs(600, n_features=8, centers=5, cluster_std=2.0, random_state=0)
    return x.astype(np.float32), y


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_graph_is_that_of_the_exact_transformer(blobs, mode):
    x, _ = blobs
    exact = KNeighborsTransformer(mode=mode, n_neighbors=4).fit(x[:500])
    ours = QuantizedKNeighborsTransformer(mode=mode, n_neighbors=4, **SMALL | {"refine": 125}).fit(x[:500])
    for rows in (x[:500], x[500:]):
        a, b = exact.transform(rows), ours.transform(rows)
        assert sparse.isspmatrix_csr(b)
        assert b.shape == a.shape
        assert b.nnz == a.nnz
        np.testing.assert_allclose(a.toarray(), b.toarray(), atol=2e-3)
    assert list(ours.get_feature_names_out()[:2]) == [
        "quantizedkneighborstransformer0",
        "quantizedkneighborstransformer1",
    ]
    theirs = exact.kneighbors(n_neighbors=3)
    for left, right in zip(ours.kneighbors(n_neighbors=3), theirs, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-3)
    np.testing.assert_allclose(
        ours.kneighbors_graph(n_neighbors=3).toarray(), exact.kneighbors_graph(n_neighbors=3).toarray()
    )


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("refine", [0, 10])
def test_distances(blobs, metric, refine):
    x, _ = blobs
    ours = QuantizedKNeighborsTransformer(metric=metric, **SMALL | {"refine": refine}).fit(x[:500])
    exact = KNeighborsTransformer(metric=metric).fit(x[:500])
    d, i = ours.kneighbors(x[500:], 5)
    true_d, true_i = exact.kneighbors(x[500:], 5)
    assert (np.diff(d, axis=1) >= 0).all()
    shared = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(i, true_i, strict=True)])
    assert shared > (0.9 if refine else 0.5)
    np.testing.assert_allclose(d.mean(), true_d.mean(), rtol=0.05 if refine else 0.4)
    assert ours.index_.metric == ("cosine" if metric == "cosine" else "l2")
    assert (ours._vectors is None) == (refine == 0)


def test_in_a_pipeline(blobs):
    x, y = blobs
    graph = QuantizedKNeighborsTransformer(n_neighbors=10, quantizer="additive", **SMALL)
    classifier = KNeighborsClassifier(n_neighbors=10, metric="precomputed")
    pipeline = make_pipeline(clone(graph), classifier).fit(x[:500], y[:500])
    exact = KNeighborsClassifier(n_neighbors=10).fit(x[:500], y[:500])
    assert (pipeline.predict(x[500:]) == exact.predict(x[500:])).mean() > 0.95


def test_random_state_repeats(blobs):
    x, _ = blobs
    graphs = [QuantizedKNeighborsTransformer(**SMALL).fit_transform(x[:300]).toarray() for _ in range(2)]
    np.testing.assert_array_equal(*graphs)


def test_refusals(blobs):
    x, _ = blobs
    fitted = QuantizedKNeighborsTransformer(**SMALL | {"refine": 0}).fit(x[:40])
    cases = [
        (lambda: QuantizedKNeighborsTransformer(mode="graph").fit(x), ValueError, "mode must be one of distance"),
        (lambda: QuantizedKNeighborsTransformer(metric="l1").fit(x), ValueError, "metric must be one of euclidean"),
        (lambda: QuantizedKNeighborsTransformer(quantizer="pq").fit(x), ValueError, "unknown quantizer 'pq'"),
        (lambda: QuantizedKNeighborsTransformer(n_neighbors=0).fit(x), ValueError, "n_neighbors must be at least 1"),
        (lambda: QuantizedKNeighborsTransformer(refine=-1).fit(x), ValueError, "refine must be at least 0"),
        (lambda: fitted.kneighbors(x, 41), ValueError, "Expected n_neighbors <= n_samples_fit"),
        (lambda: fitted.kneighbors(), ValueError, "refine=0"),
        (lambda: fitted.kneighbors_graph(x, mode="x"), ValueError, "mode must be"),
    ]
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()


def test_arrays_of_other_kinds_without_copies(blobs):
    x, _ = blobs
    ours = QuantizedKNeighborsTransformer(**SMALL).fit(torch.from_numpy(x[:400]))
    assert np.shares_memory(ours._vectors, x)  # as given, not copied
    expected = ours.transform(x[400:]).toarray()
    np.testing.assert_array_equal(ours.transform(torch.from_numpy(x[400:])).toarray(), expected)
    np.testing.assert_array_equal(ours.transform(x[400:].tolist()).toarray(), expected)
    assert np.shares_memory(host_array(torch.from_numpy(x)), x)


class Exporting:
    """An array of another library: shape, dtype, slices and DLPack, and nothing else."""

    def __init__(self, array):
        self._array = array
        self.shape = array.shape
        self.dtype = f"library.{array.dtype}"

    def __getitem__(self, key):
        return Exporting(self._array[key])

    def __dlpack__(self, **kwargs):
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_dlpack_is_enough(blobs):
    x, _ = blobs
    assert np.shares_memory(to_numpy(Exporting(x)), x)
    q = annvq.ProductVQ(8, 2, 4).fit(Exporting(x))
    np.testing.assert_array_equal(q.encode(Exporting(x)), q.encode(x))
    with pytest.raises(TypeError, match="got int64"):
        q.encode(Exporting(x.astype(np.int64)))


def test_array_api_strict(blobs):
    strict = pytest.importorskip("array_api_strict")
    x, _ = blobs
    q = annvq.ProductVQ(8, 2, 4).fit(x)
    np.testing.assert_array_equal(q.encode(strict.asarray(x)), q.encode(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_on_a_gpu(blobs):
    x = torch.from_numpy(blobs[0]).cuda()
    ours = QuantizedKNeighborsTransformer(**SMALL).fit(x[:400])
    assert ours.transform(x[400:]).shape == (200, 400)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_graph_of_a_radius_is_that_of_exact_neighbours(blobs, metric):
    x = blobs[0]
    ours = QuantizedKNeighborsTransformer(metric=metric, **SMALL | {"refine": 125}).fit(x[:500])
    exact = NearestNeighbors(metric=metric).fit(x[:500])
    distances = np.sort(exact.kneighbors(x[500:], 500)[0], axis=1)
    for rank in (0, 20, 200, 499):  # none or few, some, more than are asked for first, nearly all
        radius = float(distances[:, rank].mean()) * 1.0001
        for mode in ("connectivity", "distance"):
            a = exact.radius_neighbors_graph(x[500:], radius, mode=mode)
            b = ours.radius_neighbors_graph(x[500:], radius, mode)
            assert sparse.isspmatrix_csr(b)
            assert (b.shape, b.nnz) == (a.shape, a.nnz)
            np.testing.assert_allclose(a.toarray(), b.toarray(), atol=2e-3)
    assert all((np.diff(row) >= 0).all() for row in np.split(b.data, b.indptr[1:-1]))


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_graph_of_a_radius_among_the_vectors_of_fit(blobs, metric):
    x = np.concatenate([blobs[0][:200], blobs[0][:3]])  # the last ones twice: neighbours of one another, not of itself
    ours = QuantizedKNeighborsTransformer(metric=metric, **SMALL | {"refine": 203}).fit(x)
    exact = NearestNeighbors(metric=metric).fit(x)
    distances = np.sort(exact.kneighbors(x, 203)[0], axis=1)
    for rank in (3, 100, 202):
        radius = float(distances[:, rank].mean()) * 1.0001
        for mode in ("connectivity", "distance"):
            a = exact.radius_neighbors_graph(radius=radius, mode=mode)
            b = ours.radius_neighbors_graph(radius=radius, mode=mode)
            assert (b.shape, b.nnz) == (a.shape, a.nnz)
            np.testing.assert_allclose(a.toarray(), b.toarray(), atol=2e-3)
        assert b.diagonal().sum() == 0
    assert ours.radius_neighbors_graph(None, 0.0)[0, 200] == 1


@pytest.mark.parametrize("radius", [None, -1.0, -1e-300])
def test_a_radius_must_be_given_and_not_be_negative(blobs, radius):
    ours = QuantizedKNeighborsTransformer(**SMALL).fit(blobs[0][:50])
    with pytest.raises(ValueError, match="radius must be a finite number, at least 0, got"):
        ours.radius_neighbors_graph(blobs[0][:5], radius)


def test_graph_of_a_radius_of_codes_alone(blobs):
    x = blobs[0]
    ours = QuantizedKNeighborsTransformer(**SMALL | {"refine": 0}).fit(x)
    distances, ids = ours.kneighbors(x[:5], 600)
    radius = float(distances[:, 100].mean())
    graph = ours.radius_neighbors_graph(x[:5], radius, "distance")
    np.testing.assert_array_equal(graph.indices, ids[distances <= radius])
    np.testing.assert_array_equal(graph.data, distances[distances <= radius])
    for radius, mode, error in ((np.nan, "distance", ValueError), ("1", "distance", TypeError), (1.0, "x", ValueError)):
        with pytest.raises(error, match=r"radius must be a finite number|mode must be"):
            ours.radius_neighbors_graph(x[:5], radius, mode)
    with pytest.raises(ValueError, match="X must be given where refine=0"):
        ours.radius_neighbors_graph(radius=1.0)
