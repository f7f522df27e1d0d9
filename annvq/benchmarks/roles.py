"""What the harness asks of a library, by role: codes in its flat index, scans of given codes, whole indexes.

A :class:`Rival` says which roles a library has. Codes are measured in the harness' own process (a library with threads
of its own takes :func:`annvq.get_num_threads` when a code is made); scans and indexes in processes of their own, see
:mod:`annvq.benchmarks.worker`.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from annvq.types import F32, I64

Levels = tuple[str, list[str]]
"""The SIMD level in use, and those that a library was built for and this processor has, lowest first."""


def unsaid() -> Levels:
    """The levels of a library that does not say."""
    return "its own", ["its own"]


@dataclass(frozen=True)
class Budget:
    """Dimension, metric and the bits that a vector may take in all: code and norm."""

    dim: int
    bits: int
    metric: str = "l2"


class Code(Protocol):
    """One code, trained and searched. Vectors are float32; under ``cosine`` they come normalised."""

    config: dict[str, Any]
    """What was built, as JSON holds it."""

    def fit(self, learn: F32) -> None:
        """Train on learn vectors."""

    def add(self, x: F32) -> None:
        """Encode and store vectors; ids go on from those stored."""

    def decode(self, start: int, stop: int) -> F32 | None:
        """The stored vectors of these ids, as their codes give them; None where the library cannot say."""

    def search(self, queries: F32, k: int) -> I64:
        """Ids (nq, k) of the nearest stored vectors, nearest first; −1 where there are none."""

    def bits_per_vector(self) -> float:
        """What the index itself stores per vector to score it."""

    def wmops(self) -> float | None:
        """Counted cost of encoding one vector; None where nobody has counted it."""


@dataclass(frozen=True)
class Source:
    """Where the codes of a scan come from: vectors to learn from and to encode, or, where they are None, chance.

    ``base(start, stop)`` gives vectors; random codes have none but those that they decode to.
    """

    name: str
    dim: int
    n: int
    queries: F32
    learn: F32 | None
    base: Callable[[int, int], F32] | None


class Scan(ABC):
    """Flat indexes over codes that are given, in the library's form (see :mod:`annvq.benchmarks.kinds.scan.codes`)."""

    indexes: ClassVar[dict[str, tuple[str, ...]]] = {}
    """What ``"product"`` and ``"residual"`` codes can be searched by, as suites and rows call it."""
    least_queries: ClassVar[dict[str, int]] = {}
    """Queries that an index must be asked at once, at least, for several threads to be of use."""
    filters: ClassVar[bool] = False
    """Whether a search can be confined to allowed ids."""

    @staticmethod
    def prepare(source: Source, kind: str, M: int, n: int, folder: Path, seed: int) -> None:
        """Write into ``folder`` what the library needs beside the codes that all share; in the harness' process."""
        return None

    @abstractmethod
    def open(self, folder: Path, index: str, n: int) -> None:
        """Hold this index over the first n codes of a folder."""

    @abstractmethod
    def set_threads(self, count: int) -> None: ...

    @abstractmethod
    def search(self, queries: F32, k: int, keep: I64 | None) -> Any:
        """Ids (nq, k), of those in ``keep`` where it is given."""

    def lookup_cost(self) -> float | None:
        """ns per look-up of a code where nothing else is done; None where nobody knows."""
        return None


class Index(ABC):
    """A whole index, built from a ``spec`` and searched under ``settings``, both tables of a suite.

    All search by squared Euclidean distance (on vectors of length one where the data set's metric is cosine).
    """

    spec_keys: ClassVar[tuple[str, ...]] = ()
    """What ``spec`` may hold."""
    setting_keys: ClassVar[tuple[str, ...]] = ()
    """What ``settings`` may hold."""
    grows: ClassVar[bool] = False
    """Whether :meth:`add` may be called again, also after :meth:`open`."""
    upserts: ClassVar[bool] = False
    """Whether vectors can be replaced."""

    @abstractmethod
    def set_threads(self, count: int) -> None:
        """Use so many threads from now on; first called before :meth:`train` or :meth:`open`."""

    @abstractmethod
    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        """An empty index, trained."""

    @abstractmethod
    def add(self, x: F32) -> None:
        """Add vectors; ids go on from those stored, the first is 0."""

    @abstractmethod
    def bits_per_vector(self) -> float | None:
        """Bits per vector to score it, as the index itself says; None where it does not say."""

    def ram_bits_per_vector(self) -> float | None:
        """Bits per vector in memory, its id and what is reserved among them; None where the index does not say."""
        return None

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
    def search(self, queries: F32, k: int) -> Any:
        """Ids (nq, k)."""

    def upsert(self, x: F32, ids: I64) -> None:
        """Replace the vectors of these ids; only where ``upserts`` says so."""
        raise NotImplementedError


@dataclass(frozen=True)
class Rival:
    """A library, by its roles; the module of its name in :mod:`annvq.benchmarks.rivals` has one, ``RIVAL``.

    Attributes:
        package: what is imported, and what ``pip install`` calls it.
        codes: names of its codes; ``make(name, budget, options, seed)`` gives an untrained one, or a ValueError for
            options it does not know and bits it cannot have.
        scan, index: classes of these roles.
        levels: of the process that it is called in.
        level_variables: environment variables that force the SIMD level of a process.
        best_of_levels: it is measured at every level it has, and its best counts.
    """

    package: str
    codes: tuple[str, ...] = ()
    make: Callable[[str, Budget, dict[str, Any], int], Code] | None = None
    scan: type[Scan] | None = None
    index: type[Index] | None = None
    levels: Callable[[], Levels] = unsaid
    level_variables: tuple[str, ...] = ()
    best_of_levels: bool = False

    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.package) is not None


def check_options(name: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    """ValueError where an option is not among ``known``."""
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ValueError(f"{name}: unknown option {wrong[0]!r}; known: {', '.join(known)}")
