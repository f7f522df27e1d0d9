"""Learning additive codebooks by alternation: encode by local search, refit by least squares, perturb and cool."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from annvq.kernels.encode import AdditiveEncoder, Codes, decode_additive
from annvq.training.least_squares import F32, least_squares_entries, revive_unused


@dataclass(frozen=True)
class Alternation:
    """How :func:`train_additive` alternates.

    Args:
        iterations: encode-and-refit steps.
        rounds: rounds of local search in each step; codes are carried over from the step before.
        open: codebooks re-opened in a round.
        width: partial sums kept within a round.
        beam: beam of the residual encoding that gives the first codes.
        temperature: SR-C's noise at the start, as a share of the data's standard deviation over M; it falls as
            ``(1 − t / iterations) ** 0.5``. 0 turns it off.
        regularisation: of the least squares.
    """

    iterations: int = 25
    rounds: int = 8
    open: int = 3
    width: int = 4
    beam: int = 5
    temperature: float = 1.0
    regularisation: float = 1e-2


@dataclass
class AlternationHistory:
    """Mean squared error on the training vectors after each step's encoding, and entries revived in it."""

    mse: list[float] = field(default_factory=list)
    revived: list[int] = field(default_factory=list)


def mean_squared_error(x: F32, codes: Codes, entries: F32, sizes: Sequence[int]) -> float:
    """Mean of ‖x − x̂‖² over the vectors."""
    difference = x - decode_additive(codes, entries, sizes)
    return float(np.einsum("ij,ij->i", difference, difference, dtype=np.float64).mean())


def train_additive(
    x: F32, entries: F32, sizes: Sequence[int], plan: Alternation | None = None, *, seed: int = 0
) -> tuple[F32, AlternationHistory]:
    """Improve additive codebooks.

    Each step refits all codebooks jointly, perturbs them and encodes by local search, warm-started from the codes
    before. The perturbation is SR-C of LSQ++ (Martinez et al., ECCV 2018, section 4): normal noise on the entries, in
    each coordinate with the standard deviation of the data over M, annealed to nothing.

    Args:
        x: (n, d) float32.
        entries: (sum(sizes), d) float32 to start from, best a residual quantizer's.
        sizes: entries per codebook.
        plan: how to alternate.
        seed: of the perturbations and of the order of the searches.

    Returns:
        Entries (sum(sizes), d) float32 and the history.
    """
    plan = plan or Alternation()
    rng = np.random.default_rng(seed)
    history = AlternationHistory()
    codes = AdditiveEncoder(entries, sizes).residual(x, plan.beam)
    spread = x.std(0)
    for t in range(plan.iterations):
        heat = plan.temperature * (1 - (t + 1) / plan.iterations) ** 0.5
        entries = least_squares_entries(x, codes, entries, sizes, regularisation=plan.regularisation)
        entries, revived = revive_unused(x, codes, entries, sizes, rng)
        if heat > 0:
            noise = rng.standard_normal(entries.shape, dtype=np.float32)
            entries = entries + noise * (spread * np.float32(heat / len(sizes)))
        codes = AdditiveEncoder(entries, sizes).local_search(
            x, codes, rounds=plan.rounds, open=plan.open, width=plan.width, seed=seed + t
        )
        history.mse.append(mean_squared_error(x, codes, entries, sizes))
        history.revived.append(revived)
    return least_squares_entries(x, codes, entries, sizes, regularisation=plan.regularisation), history
