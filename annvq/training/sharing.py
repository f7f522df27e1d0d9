"""Training vectors of which each process reads and holds its share."""

import numpy as np

from annvq.arrays import to_numpy
from annvq.training.data import MOST_VALIDATED, TrainingData, power_of_two, require_short
from annvq.training.learn.shares import Alone
from annvq.training.outliers import CENTRE_ROWS, far_beyond, how_far
from annvq.types import F32, F64, I64, Array

MANY = 64  # times as many vectors as are learned from


def prepare_shares(
    x: Array,
    dim: int,
    *,
    least: int,
    max_rows: int,
    validation: float,
    seed: int,
    progress: bool,
    processes: Alone,
) -> TrainingData:
    """What :func:`~annvq.training.data.prepare` does, with the same arguments: the same rows are drawn in the same
    order (but of very many, others), and each process reads its share of them."""
    n = int(x.shape[0])
    rng = np.random.default_rng(seed)
    # Few of very many are drawn without a list of all.
    few = MANY * max_rows < n
    order = rng.choice(n, max_rows, replace=False) if few else rng.permutation(n)[:max_rows]
    order, near = _far_ones_last(x, dim, order, processes)
    held = min(MOST_VALIDATED, int(len(order) * validation))
    split = held if len(order) - held >= least else 0  # as few rows as that are learned from and validated on
    valid, train = (_own(x, dim, part, processes) for part in (order[:split], order[split:]))
    trained = max(0, min(near - split - processes.span(len(train))[0], len(train)))  # of these, those that are near
    pieces = [valid, train[:trained]]
    sums = [processes.total(part.sum(axis=0)) for piece in pieces for part in processes.summable(piece)]
    mean = np.sum(sums, axis=0) / near
    for piece in (valid, train):
        piece -= mean.astype(np.float32)
    squares: list[F64] = [processes.joined(np.square(piece, dtype=np.float64).sum(axis=1)) for piece in pieces]
    scale = power_of_two(float(np.sqrt(np.concatenate(squares).sum() / (near * dim))))
    for piece in (valid, train):
        piece /= np.float32(scale)
    return TrainingData(train, valid if split else train, mean.astype(np.float32), scale, seed, progress, processes)


def _far_ones_last(x: Array, dim: int, order: I64, processes: Alone) -> tuple[I64, int]:
    """The numbers of rows, those of rows that are far out last, and how many are not."""
    centre = np.median(_read(x, dim, order[:CENTRE_ROWS]), axis=0)
    far = far_beyond(processes.joined(how_far(_own(x, dim, order, processes), centre)))
    return np.concatenate([order[~far], order[far]]), len(order) - int(far.sum())


def _own(x: Array, dim: int, numbers: I64, processes: Alone) -> F32:
    """This process' share of the rows of these numbers."""
    own = numbers[processes.share(len(numbers))]
    rows = _read(x, dim, own)
    require_short(rows, own)
    return rows


def _read(x: Array, dim: int, numbers: I64) -> F32:
    """Rows of these numbers, in this order, as an array of their own; read in the order in which they lie."""
    rows: F32 = to_numpy(x[np.sort(numbers)], dim)[np.argsort(np.argsort(numbers))]
    return rows
