"""Codebooks that fit given additive codes best: regularised least squares in closed form."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from annvq.training.learn.shares import ALONE, Alone
from annvq.types import F32, F64, Codes

if TYPE_CHECKING:
    from scipy import sparse

SOLVED = 8192
"""Entries in all up to which normal equations are solved by factorisation; beyond, by conjugate gradients."""


def indicator(codes: Codes, sizes: Sequence[int]) -> "sparse.csr_array":
    """B (n, ΣK), with a one where a vector's code names an entry: B @ entries decodes all codes at once."""
    from scipy import sparse

    n, M = codes.shape
    first = np.concatenate([[0], np.cumsum(sizes)])
    columns = (codes.astype(np.int64) + first[:-1]).ravel()
    ones = np.ones(n * M)
    return sparse.csr_array((ones, columns, np.arange(0, n * M + 1, M)), shape=(n, int(first[-1])))


def pair_counts(codes: Codes, sizes: Sequence[int]) -> F64:
    """BᵀB (ΣK, ΣK): how many vectors have both of two entries."""
    first = np.concatenate([[0], np.cumsum(sizes)])
    counts = np.zeros((first[-1], first[-1]))
    columns = codes.T.astype(np.int64)
    for m, K in enumerate(sizes):
        for o in range(m + 1):
            pairs = np.bincount(columns[m] * sizes[o] + columns[o], minlength=K * sizes[o]).reshape(K, sizes[o])
            counts[first[m] : first[m + 1], first[o] : first[o + 1]] = pairs
            counts[first[o] : first[o + 1], first[m] : first[m + 1]] = pairs.T
    return counts


def entry_sums(rows: Sequence[F64], codes: Codes, sizes: Sequence[int], processes: Alone = ALONE) -> F64:
    """Bᵀ X (ΣK, d): for each entry, the sum of the rows of all processes whose codes (n, M) have it; ``rows`` are those
    of this process as :meth:`~annvq.training.learn.shares.Alone.summable` gives them."""
    members = indicator(codes, sizes).T
    return reduce(np.add, [processes.total(members @ part) for part in rows])


def least_squares_entries(
    x: F32,
    codes: Codes,
    entries: F32,
    sizes: Sequence[int],
    *,
    regularisation: float = 1e-2,
    processes: Alone = ALONE,
) -> F32:
    """Entries C that minimise ‖X − B·C‖² + λ‖C − C₀‖², B being the codes' indicator matrix.

    The classical codebook update of additive quantization (Babenko and Lempitsky, CVPR 2014, section 3; LSQ, Martinez
    et al., ECCV 2016), with two differences: the solution is drawn towards the present entries C₀ rather than towards
    zero, so entries that no code uses stay where they are, and constants do not wander between codebooks; and the
    normal equations are solved in float64 by Cholesky factorisation up to 8192 entries, by conjugate gradients from
    C₀ beyond.

    Args:
        x: (n, d) float32.
        codes: (n, M) integers.
        entries: (sum(sizes), d) float32, C₀.
        sizes: entries per codebook.
        regularisation: λ, in vectors: an entry used by one vector moves 1 / (1 + λ) of the way.
        processes: those that hold rows x and their codes, each a share; the first one solves what all have summed.

    Returns:
        (sum(sizes), d) float32.

    Raises:
        ValueError: more than 8192 entries in all, over several processes.
    """
    start = entries.astype(np.float64)
    if entries.shape[0] > SOLVED:
        if processes.shared:
            raise ValueError(f"entries over several processes must be at most {SOLVED} in all, got {len(entries)}")
        B = indicator(codes, sizes)
        step = conjugate_gradients(B.T @ B, B.T @ (x - B @ start), regularisation)
    else:
        normal = processes.total(pair_counts(codes, sizes))
        sums = entry_sums(processes.summable(x), codes, sizes, processes)
        step = processes.led(lambda: _solved(normal, sums, start, regularisation), start.shape, np.float64)
    return np.asarray(entries + step, dtype=np.float32)


def _solved(normal: F64, sums: F64, start: F64, regularisation: float) -> F64:
    """The step (ΣK, d) from C₀ that solves the normal equations; ``normal`` is overwritten."""
    from scipy import linalg

    # By SciPy's BLAS, as the rest: NumPy's has threads of its own, which wait busily on the cores that these need.
    right = sums - linalg.blas.dgemm(1.0, start.T, normal.T).T
    normal[np.diag_indices_from(normal)] += regularisation
    # Transposed, which a symmetric matrix may be: LAPACK then factorises in place, in half the time.
    factor = linalg.cho_factor(normal.T, overwrite_a=True, check_finite=False)
    step: F64 = linalg.cho_solve(factor, right, overwrite_b=True, check_finite=False)
    return step


def conjugate_gradients(normal: Any, right: F64, regularisation: float, steps: int = 30) -> F64:
    """Solve (normal + λI) S = right for every column of ``right`` at once, preconditioned by the diagonal."""
    scale = 1 / (normal.diagonal() + regularisation)[:, None]
    solution = np.zeros_like(right)
    residual = right.copy()
    search = z = scale * residual
    rz = (residual * z).sum(0)
    for _ in range(steps):
        image = normal @ search + regularisation * search
        curvature = (search * image).sum(0)
        alpha = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        solution = solution + alpha * search
        residual = residual - alpha * image
        z = scale * residual
        before, rz = rz, (residual * z).sum(0)
        search = z + np.divide(rz, before, out=np.zeros_like(rz), where=before > 0) * search
    return solution


def revive_unused(
    x: F32,
    codes: Codes,
    entries: F32,
    sizes: Sequence[int],
    rng: np.random.Generator,
    processes: Alone = ALONE,
) -> tuple[F32, int]:
    """Place entries that no code uses where they help: on the residuals of badly encoded vectors of any process.

    Returns:
        The entries, and how many were moved. Codebook m's unused entry becomes a used entry of m plus the residual of
        a vector that has it, so that this vector would be coded without error.
    """
    first = np.concatenate([[0], np.cumsum(sizes)])
    flat = codes.astype(np.int64) + first[:-1]
    unused = np.flatnonzero(processes.total(np.bincount(flat.ravel(), minlength=first[-1])) == 0)
    if not len(unused):
        return entries, 0
    residual = x - entries[flat].sum(1)
    errors, most = np.einsum("ij,ij->i", residual, residual), max(4 * len(unused), 16)
    worst = np.argsort(-errors, kind="stable" if processes.shared else None)[:most]
    if processes.shared:  # the worst of all are among the worst of each; of equals, the first
        own = np.sort(worst)
        worst = np.argsort(-processes.joined(errors[own]), kind="stable")[:most]
        residual, flat = processes.joined(residual[own]), processes.joined(flat[own])
    entries = entries.copy()
    book = np.searchsorted(first, unused, side="right") - 1
    for entry, m, row in zip(unused, book, rng.choice(worst, len(unused)), strict=True):
        entries[entry] = entries[flat[row, m]] + residual[row]
    return entries, len(unused)
