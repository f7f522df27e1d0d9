"""hnswlib: a graph over raw vectors."""

from pathlib import Path
from typing import Any

import numpy as np

from annvq.benchmarks.roles import Index, Rival
from annvq.types import F32


class Graph(Index):
    """A graph over raw vectors."""

    spec_keys = ("M", "ef_construction")
    setting_keys = ("ef",)

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        import hnswlib

        self.index: Any = hnswlib.Index(space="l2", dim=dim)
        self.how = {"M": spec.get("M", 16), "ef_construction": spec.get("ef_construction", 200), "random_seed": seed}

    def add(self, x: F32) -> None:
        self.index.init_index(max_elements=len(x), **self.how)
        self.index.add_items(x, num_threads=self.threads)

    def bits_per_vector(self) -> float | None:
        return None

    def save(self, path: Path) -> None:
        self.index.save_index(str(path))

    def open(self, path: Path, dim: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="l2", dim=dim)
        self.index.load_index(str(path))

    def configure(self, settings: dict[str, Any]) -> None:
        self.index.set_ef(settings["ef"])

    def set_threads(self, count: int) -> None:
        self.threads = count

    def search(self, queries: F32, k: int) -> Any:
        return self.index.knn_query(queries, k=k, num_threads=self.threads)[0].astype(np.int64)


RIVAL = Rival("hnswlib", index=Graph)
