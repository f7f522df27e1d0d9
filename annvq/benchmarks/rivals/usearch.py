"""usearch: a graph over raw vectors, in ``dtype``."""

from pathlib import Path
from typing import Any

import numpy as np

from annvq.benchmarks.roles import Index, Rival
from annvq.types import F32


class Graph(Index):
    """A graph over raw vectors, in ``dtype``."""

    spec_keys = ("connectivity", "expansion_add", "dtype")
    setting_keys = ("expansion",)
    grows = True

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        from usearch.index import Index

        self.index: Any = Index(ndim=dim, metric="l2sq", **{"dtype": "f32", **spec})

    def add(self, x: F32) -> None:
        self.index.add(len(self.index) + np.arange(len(x)), x, threads=self.threads)

    def bits_per_vector(self) -> float | None:
        return None

    def save(self, path: Path) -> None:
        self.index.save(str(path))

    def open(self, path: Path, dim: int) -> None:
        from usearch.index import Index

        self.index = Index.restore(str(path))

    def configure(self, settings: dict[str, Any]) -> None:
        self.index.expansion_search = settings["expansion"]

    def set_threads(self, count: int) -> None:
        self.threads = count

    def search(self, queries: F32, k: int) -> Any:
        keys = self.index.search(queries, k, threads=self.threads).keys
        return np.asarray(keys).reshape(len(queries), k).astype(np.int64)


RIVAL = Rival("usearch", index=Graph)
