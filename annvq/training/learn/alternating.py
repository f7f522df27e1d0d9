"""Learning additive codebooks by alternation: refit by least squares, perturb and cool, encode by local search."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tqdm import trange

from annvq.kernels.encode import AdditiveEncoder, code_dtype, decode_additive
from annvq.training.learn.least_squares import least_squares_entries, revive_unused
from annvq.training.learn.shares import ALONE, Alone
from annvq.types import F32, Codes

WATCHED = 10_000  # vectors from whose errors noise is set and history written


@dataclass(frozen=True)
class Alternation:
    """How :func:`train_additive` alternates.

    Args:
        iterations: steps of refitting and encoding.
        rounds: rounds of iterated local search in each step; codes are carried over from the step before.
        temperature: noise at the start: the standard deviation of a sum of M entries' noise, as a share of what
            quantization leaves over. It falls as ``(1 − t / iterations) ** 0.5``. 0 turns it off.
        regularisation: of the least squares.
    """

    iterations: int = 40
    rounds: int = 5
    temperature: float = 0.8
    regularisation: float = 1e-2


@dataclass
class AlternationHistory:
    """Mean squared error on (the first 10,000 of) the training vectors after each step's encoding, and entries revived
    in it."""

    mse: list[float] = field(default_factory=list)
    revived: list[int] = field(default_factory=list)


def mean_squared_error(
    x: F32, codes: Codes, entries: F32, sizes: Sequence[int], *, processes: Alone = ALONE, count: int | None = None
) -> float:
    """Mean of ‖x − x̂‖² over the vectors, or over the first ``count`` of all processes'."""
    x, codes = x[:count], codes[:count]
    difference = x - decode_additive(codes, entries, sizes)
    errors = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    return float((processes.joined(errors) if count is None else processes.head(errors, count)).mean())


def train_additive(
    x: F32,
    sizes: Sequence[int],
    plan: Alternation | None = None,
    *,
    seed: int = 0,
    codes: Codes | None = None,
    progress: bool = False,
    processes: Alone = ALONE,
) -> tuple[F32, AlternationHistory]:
    """Learn additive codebooks from nothing but vectors.

    Each step refits all codebooks jointly, perturbs them and encodes by iterated local search, from the codes before.
    The perturbation is SR-C of LSQ++ (Martinez et al., ECCV 2018, section 4), normal noise on the entries that is
    annealed to nothing, with one difference: it is in proportion to the error of the codes, not to the data, so that
    few and many bits, and few and many codebooks, are heated alike.

    Codes are random at first. The codes of a residual quantizer are nearer, and yet end in worse codebooks: their
    first codebook carries most of the energy, and neither refits nor perturbations undo that.

    Args:
        x: (n, d) float32.
        sizes: entries per codebook.
        plan: how to alternate.
        seed: of codes, perturbations and searches.
        codes: (n, M) to start from instead of random ones.
        progress: show a progress bar.
        processes: those that hold the vectors, each a share of x (and codes).

    Returns:
        Entries (sum(sizes), d) float32 and the history.
    """
    plan = plan or Alternation()
    rng = np.random.default_rng(seed)
    history = AlternationHistory()
    if codes is None:
        first, total = processes.span(len(x))
        own = slice(first, first + len(x))
        codes = np.stack([rng.integers(0, K, total)[own] for K in sizes], axis=1).astype(code_dtype(sizes))
    refit = partial(least_squares_entries, sizes=sizes, regularisation=plan.regularisation, processes=processes)
    entries = np.zeros((sum(sizes), x.shape[1]), dtype=np.float32)
    for t in _steps(plan.iterations, progress):
        entries = refit(x, codes, entries)
        entries, revived = revive_unused(x, codes, entries, sizes, rng, processes)
        heat = plan.temperature * (1 - (t + 1) / plan.iterations) ** 0.5
        if heat > 0:
            left = x[:WATCHED] - decode_additive(codes[:WATCHED], entries, sizes)
            spread = processes.head(left, WATCHED).std(0)
            noise = rng.standard_normal(entries.shape, dtype=np.float32)
            entries = entries + noise * (spread * np.float32(heat / len(sizes) ** 0.5))
        codes = AdditiveEncoder(entries, sizes).iterated_search(x, codes, iterations=plan.rounds, seed=seed + t)
        history.mse.append(mean_squared_error(x, codes, entries, sizes, processes=processes, count=WATCHED))
        history.revived.append(revived)
    return refit(x, codes, entries), history


def _steps(count: int, progress: bool) -> Iterable[int]:
    return trange(count, desc="alternate", disable=not progress, leave=False)
