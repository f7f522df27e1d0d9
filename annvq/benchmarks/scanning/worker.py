"""A process that scans codes when asked: ``python -m annvq.benchmarks.scanning.worker annvq|faiss``.

The requests of :mod:`annvq.benchmarks.processes` are

``{"do": "open", "folder": …, "index": …, "n": …}``
    the first n codes of a folder (see :mod:`annvq.benchmarks.scanning.codes`) as this kind of index.
``{"do": "lookup_cost"}``
    annvq's ``ns`` per look-up of a code, nothing else done, or null.
``{"do": "search", "k": …, "nq": …, "single": …, "threads": …, "calls": …, "keep": …, "ids": …}``
    search ``calls`` times for the first ``nq`` queries, all at once or one by one; ``keep`` is a file of allowed ids,
    ``ids`` one to write the found to. The answer has the ``seconds`` that all calls took, by the clock, and the
    ``cpu_seconds`` of the processor.
"""

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.benchmarks.levels import levels
from annvq.benchmarks.processes import own_pipe, serve


class Engine(ABC):
    """One library, holding one index."""

    def __init__(self) -> None:
        self.queries: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)

    @abstractmethod
    def open(self, folder: Path, index: str, n: int) -> None:
        """Hold this index."""

    @abstractmethod
    def set_threads(self, count: int) -> None: ...

    @abstractmethod
    def search(self, queries: npt.NDArray[np.float32], k: int, keep: npt.NDArray[np.int64] | None) -> Any:
        """Ids (nq, k)."""


class Annvq(Engine):
    """annvq's FlatIndex."""

    def open(self, folder: Path, index: str, n: int) -> None:
        import annvq

        self.index = annvq.load_index(folder / f"index-{n}.annvq")

    def set_threads(self, count: int) -> None:
        import annvq

        annvq.set_num_threads(count)

    def search(self, queries: npt.NDArray[np.float32], k: int, keep: npt.NDArray[np.int64] | None) -> Any:
        return self.index.search(queries, k, filter=keep)[1]


class Faiss(Engine):
    """FAISS' flat indexes over the same codes, or, for FastScan, over as many bytes of 4-bit codes."""

    def open(self, folder: Path, index: str, n: int) -> None:
        import faiss

        self.index: Any = None  # the old one's memory first
        if index in ("IndexPQ", "IndexPQFastScan"):
            name = "pq4" if index == "IndexPQFastScan" else "pq8"
            centroids = np.load(folder / f"{name}-centroids.npy")  # (M, K, d/M)
            M, K, width = centroids.shape
            held: Any = faiss.IndexPQ(M * width, M, K.bit_length() - 1)
            faiss.copy_array_to_vector(centroids.ravel(), held.pq.centroids)
            held.is_trained = True
            held.add_sa_codes(np.load(folder / f"{name}-codes.npy", mmap_mode="r")[:n])
            self.index = faiss.IndexPQFastScan(held) if index == "IndexPQFastScan" else held
            return
        entries, norms = np.load(folder / "entries.npy"), np.load(folder / "norms.npy")  # (M, K, d), (n,)
        M, K, dim = entries.shape
        kind = faiss.AdditiveQuantizer.ST_norm_qint8
        held = getattr(faiss, index)(dim, M, K.bit_length() - 1, faiss.METRIC_L2, kind)
        faiss.copy_array_to_vector(entries.ravel(), held.aq.codebooks)
        held.aq.norm_min, held.aq.norm_max = float(norms.min()), float(norms.max())
        held.aq.is_trained = held.is_trained = True
        span = max(held.aq.norm_max - held.aq.norm_min, 1e-20)
        byte = np.clip((norms[:n] - held.aq.norm_min) / span * 255, 0, 255).astype(np.uint8)
        codes = np.load(folder / "codes.npy", mmap_mode="r")[:n]
        held.add_sa_codes(np.ascontiguousarray(np.hstack([codes, byte[:, None]])))
        self.index = held

    def set_threads(self, count: int) -> None:
        import faiss

        faiss.omp_set_num_threads(count)

    def search(self, queries: npt.NDArray[np.float32], k: int, keep: npt.NDArray[np.int64] | None) -> Any:
        if keep is not None:
            raise ValueError("FAISS' flat indexes of codes take no filter")
        return self.index.search(queries, k)[1]


ENGINES: dict[str, type[Engine]] = {"annvq": Annvq, "faiss": Faiss}


def _search(engine: Engine, asked: dict[str, Any]) -> dict[str, Any]:
    queries, k = engine.queries[: asked["nq"]], asked["k"]
    keep = np.load(asked["keep"]) if asked.get("keep") else None
    engine.set_threads(asked["threads"])
    parts = np.split(queries, len(queries)) if asked["single"] else [queries]
    start, cpu = perf_counter(), process_time()
    for _ in range(asked["calls"]):
        found = [engine.search(part, k, keep) for part in parts]
    took = {"seconds": perf_counter() - start, "cpu_seconds": process_time() - cpu}
    if asked.get("ids"):
        np.save(asked["ids"], np.concatenate(found))
    return took


def answer(engine: Engine, asked: dict[str, Any]) -> dict[str, Any]:
    """What is sent back for one request."""
    if asked["do"] == "search":
        return _search(engine, asked)
    if asked["do"] == "lookup_cost":
        from annvq import kernels

        return {"ns": kernels.lookup_cost()}
    folder = Path(asked["folder"])
    engine.open(folder, asked["index"], asked["n"])
    engine.queries = np.load(folder / "queries.npy")
    return {}


def main() -> None:
    """Answer until standard input ends."""
    pipe = own_pipe()
    engine = ENGINES[sys.argv[1]]()
    serve(*levels(sys.argv[1]), lambda asked: answer(engine, asked), pipe)


if __name__ == "__main__":
    main()
