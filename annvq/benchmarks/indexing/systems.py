"""Libraries with indexes, as suites of kind ``index`` compare them.

A system is built from a ``spec`` and searched under ``settings``, both tables of a suite. All search by squared
Euclidean distance (on vectors of length one where the data set's metric is cosine).
"""

import importlib.util
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from annvq.benchmarks.baselines.base import check_options
from annvq.bits import codebook_bits
from annvq.types import F32


class System(ABC):
    """One library, holding one index."""

    spec_keys: tuple[str, ...] = ()
    """What ``spec`` may hold."""
    setting_keys: tuple[str, ...] = ()
    """What ``settings`` may hold."""

    @abstractmethod
    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        """An empty index, trained."""

    @abstractmethod
    def add(self, base: F32) -> None:
        """Fill it; ids are row numbers."""

    @abstractmethod
    def bits_per_vector(self) -> float | None:
        """Bits per vector to score it, as the index itself says; None where it does not say."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the index to a file or folder."""

    @abstractmethod
    def open(self, path: Path, dim: int) -> None:
        """Read what :meth:`save` wrote, of vectors of ``dim`` dimensions."""

    @abstractmethod
    def configure(self, settings: dict[str, Any]) -> None:
        """Search with these settings from now on."""

    @abstractmethod
    def set_threads(self, count: int) -> None: ...

    @abstractmethod
    def search(self, queries: F32, k: int) -> Any:
        """Ids (nq, k)."""


class Annvq(System):
    """IVFIndex, and RerankIndex over it where ``refine`` says what by."""

    spec_keys = ("quantizer", "bits", "nbits", "nlist", "residual", "refine", "refine_bits")
    setting_keys = ("nprobe", "shortlist")

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        import annvq

        kind, residual = spec.get("quantizer", "residual"), spec.get("residual", "auto")
        norm_bits = 0 if kind == "product" and residual is not True else 8
        coded = self._quantizer(kind, dim, spec["bits"] - norm_bits, spec.get("nbits", 8))
        inner = annvq.IVFIndex(coded, spec.get("nlist"), residual=residual)
        self.index: Any = inner
        refine = spec.get("refine")
        if refine is not None:
            finer = self._quantizer(refine, dim, spec["refine_bits"], 8) if "refine_bits" in spec else refine
            self.index = annvq.RerankIndex(inner, finer)
        self.index.fit(learn, seed=seed)
        self.settings: dict[str, Any] = {}

    @staticmethod
    def _quantizer(kind: str, dim: int, bits: int, most: int) -> Any:
        import annvq

        nbits = codebook_bits(kind, dim, bits, most)
        return annvq.make(kind, dim=dim, M=len(nbits), nbits=nbits[0] if len(set(nbits)) == 1 else nbits)

    def add(self, base: F32) -> None:
        self.index.add(base)

    def bits_per_vector(self) -> float | None:
        return float(self.index.bits_per_vector)

    def save(self, path: Path) -> None:
        self.index.save(path)

    def open(self, path: Path, dim: int) -> None:
        import annvq

        self.index = annvq.load_index(path)

    def configure(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def set_threads(self, count: int) -> None:
        import annvq

        annvq.set_num_threads(count)

    def search(self, queries: F32, k: int) -> Any:
        return self.index.search(queries, k, **self.settings)[1]


class Faiss(System):
    """An index of FAISS' factory, inverted lists with or without refinement."""

    spec_keys = ("factory",)
    setting_keys = ("nprobe", "k_factor")

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        import faiss

        self.index: Any = faiss.index_factory(dim, spec["factory"])
        self.index.train(learn)

    def add(self, base: F32) -> None:
        self.index.add(base)

    def bits_per_vector(self) -> float | None:
        import faiss

        refined = faiss.downcast_index(self.index)
        bits = 8.0 * faiss.extract_index_ivf(self.index).code_size
        return bits + 8.0 * refined.refine_index.sa_code_size() if hasattr(refined, "refine_index") else bits

    def save(self, path: Path) -> None:
        import faiss

        faiss.write_index(self.index, str(path))

    def open(self, path: Path, dim: int) -> None:
        import faiss

        self.index = faiss.read_index(str(path))

    def configure(self, settings: dict[str, Any]) -> None:
        import faiss

        names = {"nprobe": "nprobe", "k_factor": "k_factor_rf"}
        text = ",".join(f"{names[key]}={value}" for key, value in settings.items())
        space: Any = faiss.ParameterSpace()
        space.set_index_parameters(self.index, text)

    def set_threads(self, count: int) -> None:
        import faiss

        faiss.omp_set_num_threads(count)

    def search(self, queries: F32, k: int) -> Any:
        return self.index.search(queries, k)[1]


class Hnswlib(System):
    """hnswlib: a graph over raw vectors."""

    spec_keys = ("M", "ef_construction")
    setting_keys = ("ef",)

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        import hnswlib

        self.index: Any = hnswlib.Index(space="l2", dim=dim)
        self.how = {"M": spec.get("M", 16), "ef_construction": spec.get("ef_construction", 200), "random_seed": seed}

    def add(self, base: F32) -> None:
        self.index.init_index(max_elements=len(base), **self.how)
        self.index.add_items(base, num_threads=self.threads)

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


class Usearch(System):
    """usearch: a graph over raw vectors, in ``dtype``."""

    spec_keys = ("connectivity", "expansion_add", "dtype")
    setting_keys = ("expansion",)

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        from usearch.index import Index

        self.index: Any = Index(ndim=dim, metric="l2sq", **{"dtype": "f32", **spec})

    def add(self, base: F32) -> None:
        self.index.add(np.arange(len(base)), base, threads=self.threads)

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


class Scann(System):
    """ScaNN: a tree, asymmetric hashing and reordering by the vectors themselves."""

    spec_keys = ("leaves", "dims_per_block", "anisotropic", "reorder")
    setting_keys = ("leaves", "reorder")

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        self.spec, self.sample = spec, len(learn)  # it trains when it is filled

    def add(self, base: F32) -> None:
        from scann import scann_ops_pybind

        spec = self.spec
        builder = scann_ops_pybind.builder(base, 10, "squared_l2")
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


SYSTEMS: dict[str, type[System]] = {
    "annvq": Annvq,
    "faiss": Faiss,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "scann": Scann,
}
LEVELS = ("faiss",)
"""Systems whose SIMD level is forced by the environment, so that each gets its best."""


def installed(name: str) -> bool:
    """Whether the library can be imported."""
    return importlib.util.find_spec(name) is not None


def check(name: str, spec: dict[str, Any], settings: dict[str, Any]) -> None:
    """ValueError unless the system exists and knows all that is said of it."""
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
    check_options(f"{name} spec", spec, SYSTEMS[name].spec_keys)
    check_options(f"{name} sweep", settings, SYSTEMS[name].setting_keys)


def build(system: System, folder: Path, name: str, spec: dict[str, Any], seed: int) -> dict[str, Any]:
    """Build from ``learn.npy`` and ``base.npy`` in ``folder`` and save as ``name`` there. Returns what that took."""
    learn, base = np.load(folder / "learn.npy"), np.load(folder / "base.npy")
    start = perf_counter()
    system.train(learn, base.shape[1], spec, seed)
    trained = perf_counter()
    system.add(base)
    added = perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        saved = Path(scratch) / name
        system.save(saved)
        files = [saved] if saved.is_file() else [f for f in saved.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        shutil.move(saved, folder / name)
    return {
        "train_s": trained - start,
        "add_s": added - trained,
        "bits_per_vector": system.bits_per_vector(),
        "file_bytes_per_vector": size / len(base),
    }
