"""The codes and processes of a run of scans; both are kept from one point to the next."""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from annvq.benchmarks import rivals
from annvq.benchmarks.kinds.scan import codes
from annvq.benchmarks.kinds.scan.pairs import Effort, Scanner
from annvq.benchmarks.processes import Pool
from annvq.benchmarks.roles import Source
from annvq.benchmarks.vectors import Vectors
from annvq.datasets import exact_neighbors
from annvq.types import I64


@dataclass
class Scanned:
    """A data set whose codes are scanned: real vectors, or, where there are none, chance.

    Attributes:
        key: tells data sets apart.
        sizes: numbers of vectors that are asked of each code (kind, M).
    """

    key: str
    source: Source
    real: Vectors | None
    sizes: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    _nearest: dict[int, I64] = field(default_factory=dict)

    def neighbors(self, n: int) -> I64:
        """The nearest of the first n real vectors to each query, (nq, 1)."""
        assert self.real is not None
        if n not in self._nearest:
            self._nearest[n] = exact_neighbors(self.real.base[:n], self.real.queries, 1)[0]
        return self._nearest[n]


class Session:
    """What a run has at hand.

    Args:
        seed: of codes and filters.
        effort: of each comparison.
    """

    def __init__(self, seed: int, effort: Effort) -> None:
        self.seed, self.effort = seed, effort
        self.workers: Pool[Scanner] = rivals.pool("scan", Scanner)
        self._root: Path | None = None
        self._held: tuple[str, str, int] | None = None

    def folder(self, scanned: Scanned, code: str, M: int) -> Path:
        """The codes of a data set, made when first asked for."""
        key = (scanned.key, code, M)
        if self._root is None or self._held != key:
            self._forget()
            self._root = Path(tempfile.mkdtemp(prefix="annvq-scan-"))
            codes.make(scanned.source, code, M, sorted(scanned.sizes[code, M]), self._root / "codes", self.seed)
            self._held = key
        return self._root / "codes"

    def annvq(self, simd: str) -> Scanner:
        """annvq at the level that it takes, or at AVX2."""
        return self.workers.worker("annvq", "avx2" if simd == "avx2" else None)

    def rival(self, library: str, simd: str) -> list[Scanner]:
        """A library at each level that ``simd`` allows and this machine has."""
        if simd == "avx2":
            return [self.workers.worker(library, "AVX2")]
        return rivals.measured_at(self.workers, library)

    def allowed(self, folder: Path, n: int, share: float) -> Path | None:
        """A file of the ids that a filter lets through, drawn by chance; None where all are."""
        if not share:
            return None
        path = folder / f"keep-{n}-{share}.npy"
        if not path.exists():
            some = np.random.default_rng([self.seed, 5]).choice(n, max(1, int(n * share)), replace=False)
            np.save(path, np.sort(some).astype(np.int64))
        return path

    def _forget(self) -> None:
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root = self._held = None

    def close(self) -> None:
        """End the processes, drop the codes."""
        self.workers.close()
        self._forget()
