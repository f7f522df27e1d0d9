"""Building large indexes: trained once, encoded chunk by chunk, continued where it stopped.

A build to ``out`` keeps its state in the folder ``out.building``: the trained, empty index, and the index of each chunk
of vectors, written atomically. Starting the same build again skips what is there. In the end the chunks are joined and
written to ``out``, and the folder is removed.

Memory: one chunk of vectors in float32 (:data:`CHUNK_BYTES`) with what encoding it takes, at most 2²⁰ learn vectors
while training, and while chunks are joined two million rows (:mod:`~annvq.indexes.joining`). An index that re-ranks, or
whose codes do not fill bytes, is joined in memory: codes, ids and what it keeps of vectors, and while it is written a
copy of these. Vectors are read from where they lie: memory maps may be larger than memory.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from annvq.arrays import check_vectors, chunks, rows_to_numpy, sample_crc
from annvq.columns import exports_arrow, refuse_no_table
from annvq.indexes.contract import Index
from annvq.indexes.joining import join
from annvq.indexes.stored import StoreIndex
from annvq.paths import check_path
from annvq.replacing import destination
from annvq.storage import write_text
from annvq.types import F32, Array

CHUNK_BYTES = 1 << 26
_HELD_OUT = 500
_LEARN_ROWS = 1 << 20  # of more learn vectors a sample is read


def _work_folder(out: Path) -> Path:
    """``out.building``; of a name so long that this could not be one, the beginning and a checksum."""
    name = out.name
    if len(os.fsencode(name)) > 200:
        name = f"{name[:40]}-{zlib.crc32(os.fsencode(name)):08x}"
    return out.with_name(name + ".building")


def add_in_chunks(index: Index, vectors: Array | Iterable[Array], *, progress: bool = False) -> Index:
    """Add vectors that need not fit into memory.

    Args:
        vectors: (n, d), read in chunks of 64 MiB in float32; or an iterable of such arrays, added one by one as they
            come. Where one is refused, those before it stay.
        progress: show a progress bar.
    """
    source, total = _pieces(vectors, index.dim)
    for piece in _shown(source, total, "add", progress):
        index.add(piece)
    return index


def _pieces(vectors: Any, dim: int) -> tuple[Iterator[Array], int | None]:
    refuse_no_table(vectors, "vectors")
    if not hasattr(vectors, "shape") and not exports_arrow(vectors):
        return iter(vectors), None
    vectors = check_vectors(vectors, dim)
    ranges = list(chunks(int(vectors.shape[0]), dim, chunk_bytes=CHUNK_BYTES))
    return (vectors[a:b] for a, b in ranges), len(ranges)


def _shown(items: Iterable[Any], total: int | None, what: str, progress: bool) -> Iterable[Any]:
    if not progress:
        return items
    shown: Iterable[Any] = tqdm(items, total=total, desc=what, unit="chunk")
    return shown


def merge(index: Index, other: Index) -> Index:
    """Put all vectors of ``other`` into ``index``, codes as they are.

    Raises:
        TypeError: not two indexes of the same kind.
        ValueError: they were not trained alike, or share ids; nothing has changed then.
    """
    if not isinstance(index, Index):
        raise TypeError(f"index must be an annvq index that ids name vectors of, got {type(index).__name__}")
    if type(index) is not type(other):
        raise TypeError(f"other must be a {type(index).__name__}, as index is, got {type(other).__name__}")
    if index.fingerprint() != other.fingerprint():
        raise ValueError("other must have the codebooks, centroids and settings of index")
    index.take(other)
    return index


def file_crc(path: str | os.PathLike[str]) -> int:
    """CRC-32 of a file's bytes."""
    return zlib.crc32(Path(path).read_bytes())


class Build:
    """A build that can be stopped at any moment and continued.

    Args:
        empty: the untrained index to build; what is trained already stays as it is.
        base: (n, d) vectors to add; ids are their row numbers.
        learn: (m, d) vectors to train on.
        out: file of the index.
        what: says, as JSON holds it, what is built: a build that stopped is continued only as the same.
        chunk_rows: vectors per chunk; default 64 MiB of them in float32.

    Raises:
        ValueError: another build to ``out`` has not been finished, or vectors do not fit.
    """

    def __init__(
        self,
        empty: Index,
        base: Array,
        learn: Array,
        out: str | os.PathLike[str],
        *,
        what: Any = None,
        seed: int = 0,
        chunk_rows: int | None = None,
    ) -> None:
        self.out = Path(check_path(out, "out"))
        base = check_vectors(base, empty.dim, "base")
        learn = check_vectors(learn, empty.dim, "learn")
        self.empty, self.base, self.learn, self.seed = empty, base, learn, seed
        destination(self.out)  # refused now and not when all is done
        self.folder = _work_folder(self.out)
        self.rows = chunk_rows or max(1, CHUNK_BYTES // (4 * empty.dim))
        prints = [sample_crc(x) for x in (base, learn)]
        shapes = [[*map(int, x.shape), str(x.dtype)] for x in (base, learn)]
        self.plan = json.dumps(
            {"what": what, "kind": empty.kind, "metric": empty.metric, "seed": seed, "rows": self.rows,
             "vectors": shapes, "samples": prints},
            sort_keys=True,
        )  # fmt: skip

    def restart(self) -> None:
        """Forget what an earlier build to the same file has done."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def run(self, *, progress: bool = False) -> Index:
        """Train, encode, join and write; returns the index (its codes mapped from the file, where it does not re-rank).

        Where that fails after something was learned, :attr:`folder` keeps it, for the same build to go on from.
        """
        self._open()
        try:
            return self._run(progress)
        except Exception:
            if not self.begun:
                self.restart()
            raise

    @property
    def begun(self) -> bool:
        """Whether :attr:`folder` holds anything to go on from."""
        return (self.folder / "trained.annvq").is_file()

    def _run(self, progress: bool) -> Index:
        trained = self._train(progress)
        n = int(self.base.shape[0])
        ranges = [(a, min(n, a + self.rows)) for a in range(0, n, self.rows)]
        for number, (start, stop) in enumerate(_shown(ranges, len(ranges), "encode", progress)):
            if not self._chunk(number).is_file():
                part = self._loaded(trained)
                part.add(self.base[start:stop], np.arange(start, stop, dtype=np.int64))
                part.save(self._chunk(number))
        whole = self._joined(trained, [self._chunk(number) for number in range(len(ranges))], progress)
        self._tune(whole)
        whole.save(self.out)
        if isinstance(whole, StoreIndex):
            whole = Index.load(self.out, mmap=True)  # what was mapped goes
        self.restart()
        return whole

    def _joined(self, trained: Path, parts: list[Path], progress: bool) -> Index:
        stem = self.folder / "joined"
        joined = join(parts, stem, lambda steps: _shown(steps, len(steps), "join", progress)) if parts else None
        if joined is not None:
            return joined
        whole = self._loaded(trained)
        for part in _shown(parts, len(parts), "join", progress):
            merge(whole, self._loaded(part))
        return whole

    def _open(self) -> None:
        plan = self.folder / "plan.json"
        if plan.is_file():
            if plan.read_text(encoding="utf-8") != self.plan:
                raise ValueError(
                    f"{self.folder} holds another build that was not finished (of other vectors, or otherwise made): "
                    "start anew, or finish that one first"
                )
            return
        self.folder.mkdir(exist_ok=True)
        write_text(plan, self.plan)

    def _train(self, progress: bool) -> Path:
        path = self.folder / "trained.annvq"
        if not path.is_file():
            self.empty.fit(self._learn_split()[0], seed=self.seed, progress=progress)
            self.empty.save(path)
        return path

    def _learn_split(self) -> tuple[Array, F32]:
        """Vectors to train on, and some held out of them to measure with."""
        m, rng = int(self.learn.shape[0]), np.random.default_rng(self.seed)
        rows = np.arange(m) if m <= _LEARN_ROWS else np.unique(rng.integers(0, m, _LEARN_ROWS))
        held = np.sort(rng.choice(rows, min(_HELD_OUT, len(rows) // 20), replace=False))
        keep = np.setdiff1d(rows, held)
        return self.learn[keep], rows_to_numpy(self.learn[held], 0, len(held), "learn")

    def _tune(self, index: Index) -> None:
        """Measure on what is stored how many lists to probe and how long shortlists must be, unless that was given."""
        held = self._learn_split()[1]
        if len(held) and len(index):
            index.measure(held)

    def _chunk(self, number: int) -> Path:
        return self.folder / f"chunk-{number:06d}.annvq"

    def _loaded(self, path: Path) -> Index:
        index = Index.load(path)
        return index.attach(self.base) if index.reads_outside else index
