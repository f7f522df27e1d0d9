"""txtai's ANN backend: ``Embeddings(backend="annvq.adapters.txtai.AnnvqANN", …)``."""

from contextlib import suppress
from typing import Any

import numpy as np

from annvq._version import __version__
from annvq.adapters.growing import LEARN_AT, GrowingIndex
from annvq.arrays import positive_int
from annvq.indexes.contract import Index
from annvq.optional import needed_by
from annvq.types import Array

with needed_by("annvq.adapters.txtai"):
    from txtai.ann import ANN


class AnnvqANN(ANN):
    """Vectors of txtai's, searched by annvq under cosine.

    Settings, in the configuration under the backend's name (``"annvq.adapters.txtai.AnnvqANN": {"learnat": 5000}``):

    - ``index``: path of an annvq index under cosine, empty, fitted or not; left out: annvq's choice.
    - ``learnat``: so many vectors are compared exactly before an index learns from them
      (:class:`~annvq.adapters.growing.GrowingIndex`).
    """

    def index(self, embeddings: Array) -> None:
        """Begin with these vectors (n, d), under the ids 0 … n − 1."""
        given = self.config.get(self.config.get("backend"))
        if unknown := sorted(set(given or ()) - {"index", "learnat"}):
            raise ValueError(f"settings of {self.config['backend']} must be index or learnat, got {unknown}")
        path, learn_at = self.setting("index"), self.setting("learnat", LEARN_AT)
        self.backend = GrowingIndex(None if path is None else Index.load(path), metric="cosine", learn_at=learn_at)
        self.config["offset"] = 0
        self._put(embeddings)
        self.metadata({"annvq": __version__, "learnat": learn_at})

    def append(self, embeddings: Array) -> None:
        """Add vectors (n, d) under the next ids."""
        self._put(embeddings)
        self.metadata()

    def _put(self, embeddings: Array) -> None:
        first, n = self.config["offset"], int(embeddings.shape[0])
        self.backend.upsert(embeddings, np.arange(first, first + n))
        self.config["offset"] = first + n

    def delete(self, ids: Any) -> None:
        """Forget the vectors of these ids; those that are not there are passed over."""
        for number in ids:
            with suppress(ValueError):
                self.backend.remove(np.array([number], np.int64))

    def search(self, queries: Array, limit: int) -> list[list[tuple[int, float]]]:
        """The ``limit`` nearest of each query as (id, cosine); ValueError where ``limit`` is below 1."""
        distances, ids = self.backend.search(queries, max(1, min(positive_int(limit, "limit"), len(self.backend))))
        return [
            [(i, 1 - d) for i, d in zip(row, near, strict=True) if i >= 0]
            for row, near in zip(ids.tolist(), distances.tolist(), strict=True)
        ]

    def count(self) -> int:
        """Vectors that can be found."""
        return len(self.backend)

    def save(self, path: str) -> None:
        """Write one file; no pickle."""
        self.backend.save(path)

    def load(self, path: str) -> None:
        """Read what :meth:`save` wrote."""
        self.backend = GrowingIndex.load(path)
