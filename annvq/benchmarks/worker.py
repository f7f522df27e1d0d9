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

``{"do": "build", "folder": …, "name": …, "spec": …, "n": …, "n_learn": …, "seed": …, "threads": …}``
    build the index from the first vectors of the folder's ``learn.npy`` and ``base.npy``, keep it, and save it there as
    ``name``. The answer says what that took.
``{"do": "open", "folder": …, "name": …, "n": …, "threads": …}``
    hold what was saved, of n vectors. A search then has ``settings``.
``{"do": "stream", "call": "add"|"upsert", "size": …, "calls": …, "cold": …, "budget_s": …, "threads": …}``
    add queries to the index, or put them in place of vectors that it holds: ``calls`` times ``size`` of them, no
    further call once ``budget_s`` seconds are spent. Before each call that is to be ``cold``, the processor's caches
    are filled with something else. The answer has the ``seconds`` of each call; null where the library has no such
    call.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from annvq.benchmarks import rivals
from annvq.benchmarks.processes import own_pipe, serve
from annvq.benchmarks.roles import Index, Scan
from annvq.types import F32, I64

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


@lru_cache(maxsize=1)
def _ballast() -> I64:
    """Twice as much memory as the largest cache; where the system does not tell its size, as much as most have."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    largest = max((int(size[:-1]) << 10 for size in sizes if size[:-1].isdigit() and size[-1] == "K"), default=64 << 20)
    return np.zeros(2 * largest // 8, np.int64)


def chill() -> None:
    """Fill the processor's caches with something else."""
    ballast = _ballast()
    ballast += 1


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
        self.n = self.streamed = 0  # vectors held, and those of them that came one by one
        self.rng = np.random.default_rng(0)  # which vectors are replaced

    def answer(self, asked: Asked) -> dict[str, Any]:
        """What is sent back for one request."""
        self.index.set_threads(asked["threads"])
        if asked["do"] == "search":
            self.index.configure(asked["settings"])
            return timed_search(lambda q: self.index.search(q, asked["k"]), self.queries[: asked["nq"]], asked)
        if asked["do"] == "stream":
            return {"seconds": self._stream(asked)}
        folder = Path(asked["folder"])
        self.queries, self.n = np.load(folder / "queries.npy"), asked["n"]
        if asked["do"] == "open":
            self.index.open(folder / asked["name"], self.queries.shape[1])
            return {}
        return self._build(folder, asked)

    def _build(self, folder: Path, asked: Asked) -> dict[str, Any]:
        learn, base = np.load(folder / "learn.npy")[: asked["n_learn"]], np.load(folder / "base.npy")[: self.n]
        start = perf_counter()
        self.index.train(learn, base.shape[1], asked["spec"], asked["seed"])
        trained = perf_counter()
        self.index.add(base)
        added = perf_counter()
        return {
            "train_s": trained - start,
            "add_s": added - trained,
            "bits_per_vector": self.index.bits_per_vector(),
            "ram_bits_per_vector": self.index.ram_bits_per_vector(),
            "file_bytes_per_vector": self._save(folder, asked["name"]) / len(base),
        }

    def _stream(self, asked: Asked) -> list[float] | None:
        if asked["call"] == "upsert" and not self.index.upserts:
            return None
        seconds: list[float] = []
        size, spent = asked["size"], 0.0
        while len(seconds) < asked["calls"] and (not seconds or spent < asked["budget_s"]):
            x = self.queries[(self.streamed + np.arange(size)) % len(self.queries)]
            self.streamed += size
            ids = np.sort(self.rng.choice(self.n, size, replace=False))
            if asked["cold"]:
                chill()
            start = perf_counter()
            if asked["call"] == "add":
                self.index.add(x)
            else:
                self.index.upsert(x, ids)
            seconds.append(perf_counter() - start)
            spent += seconds[-1]
        return seconds

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
