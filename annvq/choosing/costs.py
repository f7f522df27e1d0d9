"""What measuring a code takes: estimated before it is begun, and corrected by what others took."""

from dataclasses import dataclass, replace

from annvq.benchmarks.rivals.annvq import KEPT, LITTLE
from annvq.choosing.grid import Candidate, groups_of
from annvq.indexes.ivf.coarse import ROWS_PER_LIST
from annvq.quantizers.modules.additive import MANY
from annvq.training.devices import multiplies_bfloat16, torch_device
from annvq.training.learn.kmeans import WARM_ROWS, suited_kept
from annvq.training.networks import LearnNetwork
from annvq.types import Self

_FIXED = 0.3  # seconds that every code takes
_UNSEEN = 1.2  # times the estimate is expected of kinds of which none was measured
_DOUBT = 1.0  # seconds by the estimate that the estimate itself counts for beside what was measured


@dataclass(frozen=True)
class Rows:
    """What a code is measured on.

    Attributes:
        learn, base, queries: vectors.
        effort: share of the iterations of ``fit``'s own recipe.
    """

    learn: int
    base: int
    queries: int
    effort: float

    def times(self, more: float) -> Self:
        """So many times the learn and base vectors."""
        return replace(self, learn=round(more * self.learn), base=round(more * self.base))


def estimate(c: Candidate, rows: Rows) -> float:
    """Seconds that measuring ``c`` takes, on one core of a server.

    The terms follow from the algorithms, their factors from processor times at 128 and 384 dimensions and 64 and 384
    bits. They have to be right within a few times only: :class:`Clock` corrects them. How those of learning grow with
    rows and effort counts beside that: :mod:`annvq.choosing.learning` goes by it.
    """
    entries, _, compared = _sizes(c)
    encoding = 3e-10 * compared + _SEARCHING.get(c.kind, 0.0) * entries
    searching = 4 * rows.queries * (2e-10 * entries * c.dim + 2e-10 * rows.base * len(c.nbits))
    return _FIXED + training(c, rows) + encoding * rows.base + searching


def training(c: Candidate, rows: Rows) -> float:
    """Seconds of :func:`estimate` that learning ``c`` takes."""
    entries, groups, compared = _sizes(c)
    length = 2e-4 * entries if c.metric == "cosine" else 0.0  # that codes shall have: learned from some of them
    return _training(c, rows, compared, entries // groups, groups) + length


def lists_training(nlist: int, dim: int, learn: int) -> float:
    """Seconds that learning so many lists from ``learn`` vectors takes."""
    return _LISTS * nlist * dim * min(learn, ROWS_PER_LIST * nlist)


def _sizes(c: Candidate) -> tuple[int, int, float]:
    """Entries of all codebooks, groups of these, and numbers that a vector is compared with."""
    entries = sum(2**bits for bits in c.nbits)
    groups = groups_of(c.kind, c.dim, len(c.nbits))
    return entries, groups, entries * c.dim / groups


# Seconds by kind: of searching codes by a beam or in rounds, per entry; of learning, per number compared.
_SEARCHING = {
    "residual": 4e-8,
    "additive": 6e-8,
    "product-additive": 6e-8,
    "principal-additive": 6e-8,
    "conditional": 1e-7,
}
_LEARNING = {"additive": 1.3e-10, "product-additive": 1.3e-10, "conditional": 1.3e-10}
_KMEANS = 1e-10
_STEPS = LearnNetwork.steps + LearnNetwork.rounds * LearnNetwork.round_steps
_LISTS = 1e-9  # seconds of learning lists, for each, for each dimension of each learn vector


def _training(c: Candidate, rows: Rows, compared: float, together: int, groups: int) -> float:
    """Seconds of learning; ``together`` entries of each group are refitted at once."""
    effort = rows.effort
    iterating = rows.learn * compared * (1 + 5 * effort)
    if c.kind == "principal-additive":
        refits = groups * (0.3 + 4e-11 * together**3) * (1 + 6 * effort)
        return 2.0 + 3e-9 * rows.learn * compared * (1 + effort) + refits
    if c.kind == "residual":
        return _residual_training(c, rows, compared, together)
    if c.kind in _LEARNING:
        refits = groups * (4e-11 * together**3 + 1e-12 * together**2 * c.dim) * (2 + 40 * effort)
        free = groups * (4.5 + 7 * effort) * (together / 2048) ** 2 if c.norm_free else 0.0
        network = _network_training(c.dim, rows, together) if c.kind == "conditional" else 0.0
        start = 0.0
        if c.kind in ("additive", "conditional") and together > MANY:
            start = _residual_training(c, rows, compared, together)
        return 0.3 + _LEARNING[c.kind] * iterating + refits + free + network + start
    if c.kind == "rotated-product":
        return (0.4 + 11 * effort) * c.dim / 128 + _KMEANS * iterating
    if c.kind == "principal-product":
        return 0.03 + 1e-9 * rows.learn * c.dim + _KMEANS * iterating + 1e-9 * c.dim**3
    return 0.03 + 2.1 * effort * c.dim / 128 + _KMEANS * iterating


def _network_training(dim: int, rows: Rows, together: int) -> float:
    """Seconds of learning a network behind ``together`` entries, and codes for it."""
    fast = multiplies_bfloat16(torch_device("auto"))
    step = 3e-5 * dim + (1.1e-7 if fast else 4.8e-7) * dim**2  # (dim²: of 4 · dim hidden units)
    return _STEPS * rows.effort * step + 3e-7 * together * rows.learn


def _residual_training(c: Candidate, rows: Rows, compared: float, together: int) -> float:
    """Seconds of learning residual codebooks. Nearly all is k-means on what the codes leave over that a beam keeps of
    each vector."""
    kept = suited_kept([2**bits for bits in c.nbits])
    kept = min(rows.learn * (min(kept, KEPT) if rows.effort < LITTLE else kept), max(rows.learn, WARM_ROWS))
    refits = 1e-11 * together**3 * (2 + 40 * rows.effort)
    iterating = 3e-11 * rows.learn * compared * (1 + 5 * rows.effort)
    return 0.3 + 1.6e-10 * kept * compared * (1 + 3 * rows.effort) + iterating + refits


class Clock:
    """Estimates for this machine, corrected by what codes took: those of the same kind where there are any."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, float]] = {}  # by kind: seconds estimated and taken

    def tell(self, c: Candidate, rows: Rows, took: float) -> None:
        """Measuring ``c`` on ``rows`` took so many seconds."""
        estimated, taken = self._told.get(c.kind, (0.0, 0.0))
        self._told[c.kind] = (estimated + estimate(c, rows), taken + took)

    def expects(self, c: Candidate, rows: Rows) -> float:
        """Seconds for ``c``."""
        seen = c.kind in self._told
        told = [self._told[c.kind]] if seen else list(self._told.values())
        estimated, taken = (sum(values) for values in zip(*told, strict=True)) if told else (0.0, 0.0)
        return (1.0 if seen else _UNSEEN) * estimate(c, rows) * (taken + _DOUBT) / (estimated + _DOUBT)
