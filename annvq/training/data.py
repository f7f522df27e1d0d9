"""Training vectors as recipes see them: sampled, split, centred and scaled."""

from dataclasses import dataclass, replace

import numpy as np

from annvq.arrays import chunks, to_numpy
from annvq.kernels import squared_norms
from annvq.training.learn.shares import ALONE, Alone
from annvq.training.model import CodebookModel, Model
from annvq.training.outliers import far_out
from annvq.types import F32, I64, Array

MAX_SQUARED_NORM = 1e37
"""Of learn vectors: sums of several such are still float32."""

MOST_VALIDATED = 10_000  # rows held out


@dataclass(frozen=True)
class TrainingData:
    """What the parts of a recipe learn from.

    Vectors have mean zero and root-mean-square coordinate about one, so that neither offset nor scale of the data
    matters to a recipe; codebooks are moved back afterwards by :meth:`restore`.
    """

    train: F32  # (n, d)
    validation: F32  # (nv, d), disjoint from train unless there were too few rows
    mean: F32  # (d,)
    scale: float
    base_seed: int
    progress: bool = False
    processes: Alone = ALONE  # those that hold the rows, each a share
    unread: "Unread | None" = None  # rows beyond these

    def seed(self, *path: int) -> int:
        """A seed of its own for each purpose."""
        return int(np.random.SeedSequence([self.base_seed, *path]).generate_state(1)[0])

    def validation_error(self, quantizer: Model) -> float:
        """Mean ‖x − x̂‖² over the validation rows."""
        return mean_error(quantizer, self.validation, self.processes)

    def near(self, least: int) -> "TrainingData":
        """These without training rows that are far out, where ``least`` rows are left then."""
        near = ~far_out(self.train, self.processes)
        if near.all() or near.sum() < least:
            return self
        first, _ = self.processes.span(len(self.train))
        return replace(self, train=self.train[near[first : first + len(self.train)]])

    def another(self, number: int) -> F32 | None:
        """Rows (n, d) of the sample of this number, from 1 on, none of them among those of others; None where there are
        no more."""
        if self.unread is None:
            return None
        rows = self.unread.sample(number)
        return None if rows is None else rows[~far_out(rows)]

    @property
    def rows(self) -> int:
        """How many training rows there are in all."""
        return self.processes.span(len(self.train))[1]

    def inside(self, quantizer: CodebookModel) -> "tuple[CodebookModel, TrainingData]":
        """What holds the codebooks of ``quantizer``, and these data as it sees them."""
        core, train = quantizer.in_own_coordinates(self.train)
        if core is quantizer:
            return quantizer, self
        valid = quantizer.in_own_coordinates(self.validation)[1]
        return core, replace(self, train=train, validation=valid, unread=None)

    def restore(self, quantizer: Model) -> None:
        """Bring codebooks learned on these vectors to the data's own offset and scale."""
        quantizer.restore(self.mean, self.scale)


@dataclass(frozen=True)
class Unread:
    """What an array holds beyond the rows that are learned from first, in samples of as many, prepared as those were;
    one is in memory at a time."""

    x: Array
    size: int  # rows of a sample
    seed: int
    mean: F32
    scale: float

    def sample(self, number: int) -> F32 | None:
        """Rows (n, d) of the sample of this number; 0 are those learned from first. The last is left out where it is
        less than half of one."""
        n = int(self.x.shape[0])
        numbers = np.random.default_rng(self.seed).permutation(n)[number * self.size : (number + 1) * self.size]
        if 2 * len(numbers) < self.size:
            return None
        rows = to_numpy(self.x[np.sort(numbers)], len(self.mean))
        require_short(rows, np.sort(numbers))
        return (rows - self.mean) / np.float32(self.scale)


def mean_error(quantizer: Model, x: F32, processes: Alone = ALONE) -> float:
    """Mean ‖x − x̂‖² over the rows of ``x``, of which each process may hold a share."""
    total, errors = 0.0, [np.empty(0)]
    for start, stop in chunks(len(x), quantizer.dim):
        part = x[start:stop]
        squares = np.square(part - quantizer.decode_rows(quantizer.encode_rows(part)), dtype=np.float64)
        if processes.shared:
            errors.append(squares.sum(axis=1))
        else:
            total += float(squares.sum())
    return float(processes.joined(np.concatenate(errors)).mean()) if processes.shared else total / len(x)


def require_short(rows: F32, numbers: I64) -> None:
    """Raise ValueError, naming the longest by its number (n,), where squared distances of rows (n, d) overflow."""
    norms = squared_norms(rows)
    if not norms.max(initial=0) < MAX_SQUARED_NORM:
        row = numbers[np.argmax(norms)]
        raise ValueError(f"x must have squared norms below {MAX_SQUARED_NORM:g}, or distances overflow; row {row}")


def power_of_two(spread: float) -> float:
    """What data of this root-mean-square coordinate are divided by. A power of two scales without rounding: the same
    data in other units gives the same codes."""
    return 2.0 ** round(np.log2(spread)) if spread > 0 else 1.0


def prepare(
    x: Array, dim: int, *, least: int, max_rows: int, validation: float, seed: int, progress: bool
) -> TrainingData:
    """Sample, split, centre and scale checked vectors.

    Args:
        least: rows that training cannot do without; validation then comes out of them.
        max_rows: more rows than this are sampled down.
        validation: share of the rows held out, at most 10,000 rows.

    Raises:
        ValueError: vectors so long that squared distances overflow float32.
    """
    n = int(x.shape[0])
    order = np.random.default_rng(seed).permutation(n)[:max_rows]
    rows = to_numpy(x if len(order) == n else x[np.sort(order)], dim)
    rows = rows[np.argsort(np.argsort(order))] if len(order) < n else rows[order]
    require_short(rows, order)
    held = min(MOST_VALIDATED, int(len(rows) * validation))
    far = far_out(rows)
    if far.any():  # last, where they are learned from but are no part of the validation rows
        rows = np.concatenate([rows[~far], rows[far]])
    near = len(rows) - int(far.sum())
    mean = rows[:near].mean(axis=0, dtype=np.float64)
    rows = rows - mean.astype(np.float32)
    spread = float(np.sqrt(np.mean(np.square(rows[:near], dtype=np.float64))))
    scale = power_of_two(spread)
    rows /= np.float32(scale)
    split = held if len(rows) - held >= least and held else 0
    train, valid = (rows[split:], rows[:split]) if split else (rows, rows)
    unread = Unread(x, max_rows, seed, mean.astype(np.float32), scale) if n > max_rows else None
    return TrainingData(train, valid, mean.astype(np.float32), scale, seed, progress, unread=unread)
