"""The index being measured, in its processes."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from annvq.benchmarks import rivals
from annvq.benchmarks.processes import Pool, Worker
from annvq.benchmarks.vectors import Vectors
from annvq.threads import usable_cores


class _Key(NamedTuple):
    """What tells built indexes apart."""

    digest: str
    label: str
    n: int
    n_learn: int


class Session:
    """One index at a time, kept from one point to the next: points of one index follow one another.

    Args:
        seed: of training.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.built: dict[str, Any] = {}  # what building took
        self._workers: Pool[Worker] = rivals.pool("index", Worker)
        self._folder: Path | None = None
        self._loaded: str | None = None  # digest of the vectors in the folder
        self._held: _Key | None = None
        self._holding: list[Worker] = []  # workers that have the index open
        self._failed: dict[_Key, str] = {}

    @property
    def folder(self) -> Path:
        """Where the vectors and the index lie."""
        assert self._folder is not None
        return self._folder

    def index(
        self,
        data: Vectors,
        entry: dict[str, Any],
        *,
        n: int | None = None,
        n_learn: int | None = None,
        reopened: bool = False,
    ) -> list[Worker]:
        """The processes that are asked for this entry's index, which is built when first asked for.

        Args:
            n, n_learn: it holds the first n base vectors and is trained on the first n_learn learn vectors; None: all.
            reopened: the process that built it is none of them, so that each opens the index as a user does.

        Raises:
            ModuleNotFoundError: the library is not installed.
            RuntimeError: the index could not be built, now or earlier.
        """
        library = rivals.rival(entry["use"])
        if not library.installed():
            raise ModuleNotFoundError(f"{library.package} is not installed (pip install {library.package})")
        key = _Key(data.digest, entry["label"], n or len(data.base), n_learn or len(data.learn))
        if key in self._failed:
            raise RuntimeError(f"not built: {self._failed[key]}")
        if self._held != key:
            self._drop()
            self._load(data)
            try:
                self._build(entry, key, reopened)
            except RuntimeError as error:  # building it again for each setting would take long and end alike
                self._failed[key] = str(error)
                raise
            self._held = key
        return rivals.measured_at(self._workers, entry["use"])

    def open(self, worker: Worker) -> None:
        """Have the worker hold the index: one that has not built it reads what was saved."""
        if worker not in self._holding:
            assert self._held is not None
            worker.ask(do="open", folder=str(self.folder), name="index", n=self._held.n, threads=usable_cores())
            self._holding.append(worker)

    def _load(self, data: Vectors) -> None:
        if self._loaded != data.digest:
            self.close()
            self._folder = Path(tempfile.mkdtemp(prefix="annvq-index-"))
            for name in ("base", "learn", "queries"):
                np.save(self._folder / f"{name}.npy", getattr(data, name))
            self._loaded = data.digest

    def _build(self, entry: dict[str, Any], key: _Key, reopened: bool) -> None:
        first = self._workers.worker(entry["use"])
        self.built = first.ask(
            do="build", folder=str(self.folder), name="index", spec=entry["spec"], seed=self.seed,
            threads=usable_cores(), n=key.n, n_learn=key.n_learn,
        )  # fmt: skip
        if reopened or rivals.rival(entry["use"]).best_of_levels:  # what was saved is read
            first.close()
        else:
            self._holding.append(first)

    def _drop(self) -> None:
        self._workers.close()
        self._holding, self._held = [], None

    def close(self) -> None:
        """End the processes, drop the files."""
        self._drop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._loaded = None
