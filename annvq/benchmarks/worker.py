"""A process that holds an index and searches it: ``python -m annvq.benchmarks.worker LIBRARY scan|index``.

The requests of :mod:`annvq.benchmarks.processes`, in both roles:

``{"do": "search", "k": …, "nq": …, "single": …, "threads": …, "calls": …, "ids": …}``
    search ``calls`` times for the first ``nq`` queries, all at once or one by one; ``ids`` is a file to write the found
    to. The answer has the ``seconds`` that all calls took, by the clock, and the ``cpu_seconds`` of the processor.

Of a scan:

``{"do": "open", "folder": …, "index": …, "n": …}``
    hold the first n codes of a folder (see :mod:`annvq.benchmarks.kinds.scan.codes`) as this kind of index. A search
    may then have ``keep``, a file of allowed ids.
``{"do": "lookup_cost"}``
    the ``ns`` per look-up of a code, nothing else done, or null.

Of an index:

``{"do": "build", "folder": …, "name": …, "spec": …, "seed": …, "threads": …}``
    build the index from the folder's ``learn.npy`` and ``base.npy``, keep it, and save it there as ``name``. The answer
    says what that took.
``{"do": "open", "folder": …, "name": …, "threads": …}``
    hold what was saved. A search then has ``settings``.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from annvq.benchmarks import rivals
from annvq.benchmarks.processes import own_pipe, serve
from annvq.benchmarks.roles import Index, Scan
from annvq.types import F32

Asked = dict[str, Any]


def timed_search(search: Callable[[F32], Any], queries: F32, asked: Asked) -> dict[str, Any]:
    """Search as asked; the seconds that it took."""
    parts = np.split(queries, len(queries)) if asked["single"] else [queries]
    start, cpu = perf_counter(), process_time()
    for _ in range(asked["calls"]):
        found = [search(part) for part in parts]
    took = {"seconds": perf_counter() - start, "cpu_seconds": process_time() - cpu}
    if asked.get("ids"):
        np.save(asked["ids"], np.concatenate(found))
    return took


class ScanHolder:
    """Codes to scan, and the queries that are asked."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.queries: F32 = np.empty((0, 0), np.float32)

    def answer(self, asked: Asked) -> dict[str, Any]:
        """What is sent back for one request."""
        if asked["do"] == "search":
            keep = np.load(asked["keep"]) if asked.get("keep") else None
            self.scan.set_threads(asked["threads"])
            return timed_search(lambda q: self.scan.search(q, asked["k"], keep), self.queries[: asked["nq"]], asked)
        if asked["do"] == "lookup_cost":
            return {"ns": self.scan.lookup_cost()}
        folder = Path(asked["folder"])
        self.scan.open(folder, asked["index"], asked["n"])
        self.queries = np.load(folder / "queries.npy")
        return {}


class IndexHolder:
    """An index, and the queries that it is asked."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.queries: F32 = np.empty((0, 0), np.float32)

    def answer(self, asked: Asked) -> dict[str, Any]:
        """What is sent back for one request."""
        self.index.set_threads(asked["threads"])
        if asked["do"] == "search":
            self.index.configure(asked["settings"])
            return timed_search(lambda q: self.index.search(q, asked["k"]), self.queries[: asked["nq"]], asked)
        folder = Path(asked["folder"])
        self.queries = np.load(folder / "queries.npy")
        if asked["do"] == "open":
            self.index.open(folder / asked["name"], self.queries.shape[1])
            return {}
        return self._build(folder, asked["name"], asked["spec"], asked["seed"])

    def _build(self, folder: Path, name: str, spec: dict[str, Any], seed: int) -> dict[str, Any]:
        learn, base = np.load(folder / "learn.npy"), np.load(folder / "base.npy")
        start = perf_counter()
        self.index.train(learn, base.shape[1], spec, seed)
        trained = perf_counter()
        self.index.add(base)
        added = perf_counter()
        return {
            "train_s": trained - start,
            "add_s": added - trained,
            "bits_per_vector": self.index.bits_per_vector(),
            "file_bytes_per_vector": self._save(folder, name) / len(base),
        }

    def _save(self, folder: Path, name: str) -> int:
        """Save the index in place of what ``name`` was; its size in bytes."""
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            saved = Path(scratch) / name
            self.index.save(saved)
            files = [saved] if saved.is_file() else [f for f in saved.rglob("*") if f.is_file()]
            size = sum(f.stat().st_size for f in files)
            shutil.move(saved, folder / name)
        return size


def main() -> None:
    """Answer until standard input ends."""
    pipe = own_pipe()
    library, role = rivals.rival(sys.argv[1]), sys.argv[2]
    made = getattr(library, role)()
    holder = ScanHolder(made) if role == "scan" else IndexHolder(made)
    serve(*library.levels(), holder.answer, pipe)


if __name__ == "__main__":
    main()
