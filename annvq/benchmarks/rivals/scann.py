"""ScaNN: a tree, asymmetric hashing and reordering by the vectors themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from annvq.benchmarks.roles import Index, Rival
from annvq.types import F32


class Tree(Index):
    """A tree, asymmetric hashing and reordering by the vectors themselves."""

    spec_keys = ("leaves", "dims_per_block", "anisotropic", "reorder")
    setting_keys = ("leaves", "reorder")

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        self.spec, self.sample = spec, len(learn)  # it trains when it is filled

    def add(self, x: F32) -> None:
        from scann import scann_ops_pybind

        spec = self.spec
        builder = scann_ops_pybind.builder(x, 10, "squared_l2")
        builder = builder.tree(spec.get("leaves", 1000), 10, training_sample_size=max(self.sample, 100_000))
        builder = builder.score_ah(
            spec.get("dims_per_block", 2), anisotropic_quantization_threshold=spec.get("anisotropic", float("nan"))
        )
        self.index: Any = builder.reorder(spec.get("reorder", 100)).build()

    def bits_per_vector(self) -> float | None:
        return None

    def save(self, path: Path) -> None:
        path.mkdir()
        self.index.serialize(str(path))

    def open(self, path: Path, dim: int) -> None:
        from scann import scann_ops_pybind

        self.index = scann_ops_pybind.load_searcher(str(path))

    def configure(self, settings: dict[str, Any]) -> None:
        self.how = {"leaves_to_search": settings["leaves"], "pre_reorder_num_neighbors": settings["reorder"]}

    def set_threads(self, count: int) -> None:
        self.threads = count

    def search(self, queries: F32, k: int) -> Any:
        search: Callable[..., Any] = (
            self.index.search_batched_parallel if self.threads > 1 else self.index.search_batched
        )
        return search(queries, final_num_neighbors=k, **self.how)[0].astype(np.int64)


RIVAL = Rival("scann", index=Tree)
