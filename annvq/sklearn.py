"""scikit-learn: approximate neighbours in place of ``KNeighborsTransformer``."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from annvq.arrays import VECTOR_DTYPES, as_float32, dtype_name, host_array, normalized, positive_int
from annvq.indexes import FlatIndex
from annvq.indexes.within import all_within, check_radius
from annvq.optional import needed_by
from annvq.quantizers import make
from annvq.quantizers.modules.registry import pays_norm
from annvq.types import F64, I64, Array, Self

with needed_by("annvq.sklearn"):
    from scipy.sparse import csr_matrix
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data

_METRICS = {"euclidean": "l2", "sqeuclidean": "l2", "cosine": "cosine"}
_CHUNK_BYTES = 1 << 26


class QuantizedKNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Vectors to the sparse graph of their nearest neighbours among the vectors seen in ``fit``, found through codes.

    Usable where ``sklearn.neighbors.KNeighborsTransformer`` is: before ``KNeighborsClassifier(metric="precomputed")``,
    ``TSNE``, ``Isomap``, ``SpectralClustering``, ``DBSCAN`` and others that take a neighbourhood graph.

    Args:
        mode: ``"distance"`` (one neighbour more than ``n_neighbors``, as a vector of ``fit`` finds itself first) or
            ``"connectivity"`` (ones).
        n_neighbors: neighbours of each vector.
        metric: ``"euclidean"``, ``"sqeuclidean"`` or ``"cosine"``.
        quantizer: kind of code: ``"residual"``, ``"additive"``, ``"product"``, ``"rotated-product"``.
        bits: bits per vector in all, norm included. Product codes take fewer where a number of codebooks divides the
            dimension that is more than half of what fits; few vectors (less than 256) make smaller codebooks.
        refine: candidates per neighbour whose distance is computed anew from the vectors themselves, which are then
            kept in memory as they were given. 0 searches codes alone and keeps nothing else: distances are then those
            to decoded vectors, with half of the error that these have, a vector's to itself among them.
        random_state: of the codebooks.

    Attributes:
        index_: the :class:`annvq.FlatIndex`, ids in the order of ``fit``.
        n_samples_fit_: vectors in it.
        n_features_in_: their dimension.
    """

    def __init__(
        self,
        *,
        mode: Literal["distance", "connectivity"] = "distance",
        n_neighbors: int = 5,
        metric: Literal["euclidean", "sqeuclidean", "cosine"] = "euclidean",
        quantizer: str = "residual",
        bits: int = 128,
        refine: int = 10,
        random_state: Any = None,
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.quantizer = quantizer
        self.bits = bits
        self.refine = refine
        self.random_state = random_state

    def fit(self, X: Array, y: Any = None) -> Self:
        """Learn codebooks from ``X`` of shape (n_samples, n_features) and encode it; ``y`` is not read."""
        self._check_parameters()
        x = self._validated(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        index = FlatIndex(self._made(x.shape), _METRICS[self.metric])
        self.index_ = index.fit(x, seed=seed).add(x)
        self._vectors = self._comparable(x) if self.refine else None
        self.n_samples_fit_ = len(index)
        return self

    def transform(self, X: Array) -> csr_matrix:
        """The graph of ``X`` (n_queries, n_features): CSR of shape (n_queries, n_samples_fit), rows in order of
        distance."""
        check_is_fitted(self)
        extra = self.mode == "distance"
        distances, ids = self._search(self._validated(X), self._count(None) + extra)
        return self._as_graph(distances, ids, self.mode)

    def kneighbors(self, X: Array = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """Distances (n_queries, n_neighbors) and indices of the nearest vectors of ``fit``, nearest first.

        Args:
            X: queries; None: the vectors of ``fit``, none of which then counts as its own neighbour.
            n_neighbors: default: the estimator's own.
            return_distance: False gives indices alone.
        """
        check_is_fitted(self)
        k = self._count(n_neighbors)
        if X is None:
            distances, ids = self._others(k)
        else:
            distances, ids = self._search(self._validated(X), k)
        return (distances, ids) if return_distance else ids

    def kneighbors_graph(
        self, X: Array = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> csr_matrix:
        """The graph of :meth:`kneighbors`, CSR of shape (n_queries, n_samples_fit)."""
        self._check_mode(mode)
        distances, ids = self.kneighbors(X, n_neighbors)
        return self._as_graph(distances, ids, mode)

    def radius_neighbors_graph(
        self, X: Array = None, radius: float | None = None, mode: str = "connectivity"
    ) -> csr_matrix:
        """The graph of the vectors of ``fit`` within a radius of each query, CSR of shape (n_queries, n_samples_fit).

        They are found as :meth:`kneighbors` finds them: codes name candidates, at least ``refine`` times as many as lie
        within, and the vectors, where they are kept, decide. Rows are in order of distance.

        Args:
            X: queries (n_queries, n_features); vectors of ``fit`` are neighbours of themselves. None: the vectors of
                ``fit``, none of which then counts as its own neighbour.
            radius: a finite number, at least 0, in the metric's distances; it must be given.
            mode: ``"connectivity"`` (ones) or ``"distance"``.

        Raises:
            TypeError, ValueError: no such radius or mode; no ``X`` where ``refine=0``, as the vectors of ``fit`` are
                not kept then.
        """
        check_is_fitted(self)
        self._check_mode(mode)
        if radius is None or check_radius(radius) < 0:
            raise ValueError(f"radius must be a finite number, at least 0, got {radius}")
        queries = self._kept() if X is None else self._validated(X)
        n = self.n_samples_fit_

        def find(rows: npt.NDArray[Any], k: int) -> tuple[F64, I64]:
            distances, ids = self._search(rows, min(k, n))
            none = ((0, 0), (0, k - ids.shape[1]))
            return np.pad(distances, none, constant_values=np.inf), np.pad(ids, none, constant_values=-1)

        lims, distances, ids = all_within(find, queries, np.float64(radius), lambda: n)
        if X is None:
            own = ids == np.repeat(np.arange(n), np.diff(lims))
            distances, ids, lims = distances[~own], ids[~own], lims - np.append(0, np.cumsum(own))[lims]
        data = distances if mode == "distance" else np.ones(len(ids))
        return csr_matrix((data, ids, lims), shape=(len(lims) - 1, n))

    # -- parts ---------------------------------------------------------------------------------------------------

    def _check_mode(self, mode: str) -> None:
        if mode not in ("distance", "connectivity"):
            raise ValueError(f"mode must be 'distance' or 'connectivity', got {mode!r}")

    def _check_parameters(self) -> None:
        for name, known in (("mode", ("distance", "connectivity")), ("metric", tuple(_METRICS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        positive_int(self.n_neighbors, "n_neighbors")
        positive_int(self.bits, "bits")
        positive_int(self.refine, "refine", low=0)

    def _validated(self, X: Array, *, reset: bool = False) -> npt.NDArray[Any]:
        dtypes = [np.dtype(name) for name in VECTOR_DTYPES if name != "bfloat16"]
        x = host_array(X)
        if hasattr(x, "dtype") and dtype_name(x) == "bfloat16":  # which scikit-learn does not know
            x = as_float32(x)
        return validate_data(self, x, reset=reset, dtype=dtypes, ensure_min_samples=2 if reset else 1)

    def _made(self, shape: tuple[int, ...]) -> Any:
        """An untrained quantizer for n vectors of dimension d."""
        n, d = shape
        nbits = min(8, n.bit_length() - 1)
        bits = self.bits - (8 if pays_norm(self.quantizer, _METRICS[self.metric]) else 0)
        M = max(1, bits // nbits)
        if "product" in self.quantizer:
            M = min(M, d)
            even = max(m for m in range(1, M + 1) if d % m == 0)
            M = even if 2 * even > M else M
        return make(self.quantizer, dim=d, M=M, nbits=nbits)

    def _comparable(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return normalized(np.asarray(x, np.float32), "X") if self.metric == "cosine" else x

    def _count(self, n_neighbors: int | None) -> int:
        return positive_int(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")

    def _search(self, x: npt.NDArray[Any], k: int) -> tuple[F64, I64]:
        n = self.n_samples_fit_
        if k > n:
            raise ValueError(f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {k}, n_samples_fit = {n}")
        if self._vectors is None:
            found, ids = self.index_.search(x, k)
            return self._distances(np.maximum(found.astype(np.float64), 0)), ids
        ids = self.index_.search(x, min(n, self.refine * k))[1]
        exact, queries = np.empty(ids.shape), self._comparable(x)
        step = max(1, _CHUNK_BYTES // (8 * ids.shape[1] * x.shape[1]))
        for i in range(0, len(x), step):
            difference = self._vectors[ids[i : i + step]].astype(np.float64) - queries[i : i + step, None]
            exact[i : i + step] = np.einsum("qkd,qkd->qk", difference, difference)
        if self.metric == "cosine":
            exact /= 2  # of unit vectors: 1 − cos
        order = np.lexsort((ids, exact))[:, :k]
        return self._distances(np.take_along_axis(exact, order, 1)), np.take_along_axis(ids, order, 1)

    def _distances(self, found: F64) -> F64:
        return np.sqrt(found) if self.metric == "euclidean" else found

    def _kept(self) -> npt.NDArray[Any]:
        """The vectors of ``fit``."""
        if self._vectors is None:
            raise ValueError("X must be given where refine=0, as the vectors of fit are not kept")
        return self._vectors

    def _others(self, k: int) -> tuple[F64, I64]:
        """The neighbours of the vectors of ``fit`` among one another."""
        vectors = self._kept()
        if k + 1 > self.n_samples_fit_:
            raise ValueError(f"Expected n_neighbors < n_samples_fit = {self.n_samples_fit_}, but n_neighbors = {k}")
        distances, ids = self._search(vectors, k + 1)
        own = ids == np.arange(len(ids))[:, None]
        own[~own.any(axis=1), -1] = True  # a vector with that many duplicates: the last one goes
        keep = ~own
        return distances[keep].reshape(-1, k), ids[keep].reshape(-1, k)

    def _as_graph(self, distances: F64, ids: I64, mode: str) -> csr_matrix:
        data = distances.ravel() if mode == "distance" else np.ones(ids.size)
        rows = np.arange(0, ids.size + 1, ids.shape[1])
        return csr_matrix((data, ids.ravel(), rows), shape=(len(ids), self.n_samples_fit_))

    @property
    def _n_features_out(self) -> int:
        return self.n_samples_fit_
