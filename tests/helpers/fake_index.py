"""An index of another kind in one file: decoded vectors side by side, all compared with each query in float64.

It is registered by being defined, and then under the contract tests like every kind that annvq has.
"""

import numpy as np

from annvq.arrays import check_vectors, like, positive_int
from annvq.indexes.contract import Index
from annvq.indexes.filters import resolve_filter
from annvq.indexes.ids import END_OF_IDS, check_distinct, check_ids, following_ids, require_new
from annvq.kernels.store import PreparedAllowed


class DecodedIndex(Index):
    """Distances to decoded vectors, which are kept."""

    kind = "decoded"

    def __init__(self, quantizer, metric="l2"):
        super().__init__(quantizer, metric)
        self.held, self.vectors = np.empty(0, np.int64), np.empty((0, self.dim), np.float32)
        self.next_id = 0

    @property
    def bits_per_vector(self):
        return 32 * self.dim

    @property
    def ram_bits_per_vector(self):
        return 32 * self.dim

    def __len__(self):
        return len(self.held)

    @property
    def ids(self):
        return np.sort(self.held)

    def fit(self, x, *, seed=0, progress=False, recipe=None):
        if not bool(self.quantizer.fitted):
            self.quantizer.fit(self.prepared(x, "x"), seed=seed, progress=progress, recipe=recipe)
        return self

    # -- vectors -------------------------------------------------------------------------------------------------

    def add(self, x, ids=None):
        self.require_fitted("add")
        check_vectors(x, self.dim)
        n = int(x.shape[0])
        new = following_ids(self.next_id, n) if ids is None else check_ids(ids, n)
        require_new(new, np.isin(new, self.held))
        self._append(self.quantizer.decode(self.quantizer.encode(self.prepared(x, "x"))), new)
        return self

    def _append(self, vectors, ids):
        self.vectors, self.held = np.concatenate([self.vectors, vectors]), np.concatenate([self.held, ids])
        self.next_id = max([self.next_id, *(int(i) + 1 for i in ids)])

    def search(self, queries, k, *, filter=None):
        q, k = self.asked(queries, k)
        rows = np.flatnonzero(self._allowed(resolve_filter(filter, lambda: self.held)))
        found = self._distances(q, self.vectors[rows])
        order = np.lexsort((np.broadcast_to(self.held[rows], found.shape), found))[:, :k]
        distances, ids = np.full((len(q), k), np.inf, np.float32), np.full((len(q), k), -1, np.int64)
        distances[:, : order.shape[1]] = np.take_along_axis(found, order, 1)
        ids[:, : order.shape[1]] = self.held[rows][order]
        return like(distances, queries), like(ids, queries)

    def _distances(self, q, x):
        q, x = q[:, None].astype(np.float64), x[None].astype(np.float64)
        if self.metric == "l2":
            return np.square(q - x).sum(2).astype(np.float32)
        products = (q * x).sum(2)
        return ((1 - products) if self.metric == "cosine" else -products).astype(np.float32)

    def _allowed(self, allowed):
        """Which rows a resolved filter allows."""
        if isinstance(allowed, PreparedAllowed):
            allowed = allowed.allowed
        if allowed is None:
            return np.ones(len(self), np.bool_)
        if allowed.dtype == np.bool_:
            allowed = np.flatnonzero(allowed)
        return np.isin(self.held, allowed)

    def _rows(self, ids):
        ids = check_ids(ids, None)
        place = {number: row for row, number in enumerate(self.held.tolist())}
        if missing := [i for i in ids.tolist() if i not in place]:
            raise ValueError(f"ids {missing[:5]} are not there")
        return np.array([place[i] for i in ids.tolist()], np.int64)

    def remove(self, ids):
        rows = self._rows(ids)
        if len(np.unique(rows)) != len(rows):
            raise ValueError("ids must differ from one another")
        self.vectors, self.held = np.delete(self.vectors, rows, 0), np.delete(self.held, rows)
        return len(rows)

    def reset(self):
        self.held, self.vectors, self.next_id = self.held[:0], self.vectors[:0], 0
        return self

    def reconstruct(self, ids):
        return self.vectors[self._rows(ids)]

    def take(self, other):
        require_new(other.held, np.isin(other.held, self.held))
        self._append(other.vectors, other.held)
        self.next_id = max(self.next_id, other.next_id)

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self):
        return {"next_id": self.next_id}, {"ids": self.held, "vectors": self.vectors}

    @classmethod
    def _from_stored(cls, quantizer, config, tensors, *, mapped):
        index = cls(quantizer, config["metric"])
        ids, vectors = tensors.pop("ids"), tensors.pop("vectors")
        if (ids.dtype, vectors.dtype, vectors.shape) != (np.int64, np.float32, (len(ids), index.dim)):
            raise ValueError(f"its vectors are {vectors.dtype} {vectors.shape} for {ids.dtype} {ids.shape} ids")
        check_distinct(ids)
        index.held, index.vectors = ids, vectors
        index.next_id = positive_int(config["next_id"], "next_id", low=int(ids.max(initial=-1)) + 1, high=END_OF_IDS)
        return index
