"""A process that builds and searches an index: ``python -m annvq.benchmarks.indexing.worker SYSTEM``.

The requests of :mod:`annvq.benchmarks.processes` are

``{"do": "build", "folder": …, "name": …, "spec": …, "seed": …, "threads": …}``
    build the index from the folder's ``learn.npy`` and ``base.npy``, keep it, and save it there as ``name``.
``{"do": "open", "folder": …, "name": …}``
    hold what was saved.
``{"do": "search", "settings": …, "k": …, "nq": …, "single": …, "threads": …, "calls": …, "ids": …}``
    search ``calls`` times for the first ``nq`` queries, all at once or one by one; ``ids`` is a file to write the found
    to. The answer has the ``seconds`` that all calls took.
"""

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from annvq.benchmarks.indexing.systems import SYSTEMS, System, build
from annvq.benchmarks.levels import levels
from annvq.benchmarks.processes import own_pipe, serve


class Holder:
    """A system, and the queries that it is asked."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.queries = np.empty((0, 0), np.float32)

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What is sent back for one request."""
        if asked["do"] == "search":
            return self._search(asked)
        folder = Path(asked["folder"])
        self.queries = np.load(folder / "queries.npy")
        if asked["do"] == "open":
            self.system.open(folder / asked["name"], self.queries.shape[1])
            return {}
        self.system.set_threads(asked["threads"])
        return build(self.system, folder, asked["name"], asked["spec"], asked["seed"])

    def _search(self, asked: dict[str, Any]) -> dict[str, Any]:
        system, queries = self.system, self.queries[: asked["nq"]]
        system.set_threads(asked["threads"])
        system.configure(asked["settings"])
        parts = np.split(queries, len(queries)) if asked["single"] else [queries]
        start = perf_counter()
        for _ in range(asked["calls"]):
            found = [system.search(part, asked["k"]) for part in parts]
        seconds = perf_counter() - start
        if asked.get("ids"):
            np.save(asked["ids"], np.concatenate(found))
        return {"seconds": seconds}


def main() -> None:
    """Answer until standard input ends."""
    pipe = own_pipe()
    holder = Holder(SYSTEMS[sys.argv[1]]())
    serve(*levels(sys.argv[1]), holder.answer, pipe)


if __name__ == "__main__":
    main()
