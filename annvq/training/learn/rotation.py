"""A rotation learned together with the product codebooks behind it, from arrays."""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from scipy import linalg
from torch import Tensor
from torch.nn.functional import embedding
from tqdm import trange

from annvq.codebooks import Codebooks, row_products
from annvq.training.estimators import Estimator
from annvq.training.learn.axes import principal_axes
from annvq.training.learn.kmeans import Seeds, product_kmeans
from annvq.training.learn.least_squares import entry_sums
from annvq.training.learn.shares import ALONE, Alone
from annvq.training.progress import follow_first
from annvq.types import F32, F64, Codes


class RotationPlan(Protocol):
    """Rounds and step sizes; see :class:`~annvq.training.LearnRotation`."""

    @property
    def batch_size(self) -> int: ...
    @property
    def turn(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def alternations(self) -> int: ...


def starts(x: F32, widths: Sequence[int], processes: Alone = ALONE) -> list[F32]:
    """Rotations (d, d) to start from: the identity, and principal axes dealt out to sub-spaces of ``widths``
    dimensions so that their variances multiply to about the same (Ge et al., section 3.2)."""
    variance, axes = principal_axes(x, processes)
    order = dealt(variance, widths)
    return [np.eye(x.shape[1], dtype=np.float32), np.ascontiguousarray(axes[:, order].T, dtype=np.float32)]


def dealt(variance: F64, widths: Sequence[int]) -> list[int]:
    """Axes in an order in which runs of ``widths`` of them have variances (d,) that multiply to about the same, so that
    sub-spaces of as many bits have errors about alike (Ge et al., section 3.2)."""
    logs = np.log(np.maximum(variance, 1e-6 * max(float(variance[-1]), 1e-30)))
    logs -= logs.min()  # dealing to the lowest total is even only where no term is negative
    groups: list[list[int]] = [[] for _ in widths]
    totals = np.zeros(len(groups))
    for axis in np.argsort(-variance):
        free = [m for m, group in enumerate(groups) if len(group) < widths[m]]
        m = min(free, key=lambda m: (totals[m], m))
        groups[m].append(int(axis))
        totals[m] += logs[axis]
    return list(itertools.chain.from_iterable(groups))


def nearest_rotation(matrix: F32) -> F32:
    """The orthogonal matrix nearest to ``matrix`` (d, d)."""
    u, _, vt = linalg.svd(matrix.astype(np.float64), check_finite=False)
    return np.asarray(u @ vt, dtype=np.float32)


class RotationRun:
    """A rotation and product codebooks on their way from one start.

    Args:
        plan: step sizes and rounds.
        train, validation: (n, d), (nv, d).
        books: product codebooks, kept where nothing better is found.
        estimator: how gradients pass the codes.
        rotation: (d, d), the start.
        seed: see :data:`~annvq.training.learn.kmeans.Seeds`.
        progress: show progress bars.
        processes: those that hold train and validation, each a share.
    """

    def __init__(
        self,
        plan: RotationPlan,
        train: F32,
        validation: F32,
        books: Codebooks,
        estimator: Estimator,
        rotation: F32,
        *,
        seed: Seeds,
        progress: bool,
        processes: Alone = ALONE,
    ) -> None:
        self.plan, self.train, self.validation, self.processes = plan, train, validation, processes
        self.first, self.rows = processes.span(len(train))
        self.estimator, self.progress = estimator, progress
        self.dim, self.widths, self.spread = books.dim, books.widths, books.spread
        self.sizes, self.starts, self.offsets = books.sizes, books.starts, books.offsets
        self.rng = np.random.default_rng(seed(1 << 19))
        self.rotation = rotation
        self.lowest, self.best = math.inf, (rotation, books.entries)
        few = self._sample(min(self.rows, 32 * max(self.sizes)))
        # Drawn by earlier versions, and still, so that the same seed gives the same rotation.
        torch.empty(books.entries.shape).normal_()
        turned = row_products(few, rotation)
        start = product_kmeans(turned, self.sizes, self.starts, self.widths, iterations=5, seed=seed)
        self.entries = np.concatenate([np.pad(b, ((0, 0), (0, books.width - b.shape[1]))) for b in start])
        for _ in range(plan.alternations):
            self._alternate(few)
        self._follow_first()
        self._validate()

    def _sample(self, count: int) -> F32:
        rows = self.rng.choice(self.rows, count, replace=False)
        return self.processes.picked(self.train, np.sort(rows), self.first)

    def _follow_first(self) -> None:
        """Take what the first process has found."""
        if self.processes.shared:
            follow_first([torch.from_numpy(self.rotation), torch.from_numpy(self.entries)], self.processes)

    def _encoded(self, y: F32) -> tuple[np.ndarray, F32]:
        """Codes and decoded vectors of rotated rows."""
        codes = self._codes(y)
        places = zip(self.offsets, self.widths, strict=False)
        parts = [self.entries[a + codes[:, m].astype(np.int64), :width] for m, (a, width) in enumerate(places)]
        return codes, np.concatenate(parts, axis=1)

    def _codes(self, y: F32) -> Codes:
        return Codebooks(self.entries, self.sizes, self.starts, self.dim).nearest(y)

    def _alternate(self, x: F32) -> None:
        self._lloyd(x @ self.rotation.T)
        self.rotation = nearest_rotation(self._encoded(x @ self.rotation.T)[1].T @ x)

    def _lloyd(self, y: F32, processes: Alone = ALONE) -> None:
        """One round of k-means on rotated rows, of which each process may hold a share; entries that none uses stay."""
        codes = self._codes(y)
        places = zip(self.offsets, self.sizes, self.starts, self.widths, strict=False)
        for m, (a, size, s, width) in enumerate(places):
            count = processes.total(np.bincount(codes[:, m], minlength=size))
            used = count > 0
            part = processes.summable(y[:, s : s + width])
            total = entry_sums(part, codes[:, m : m + 1], [size], processes)
            self.entries[a : a + size, :width][used] = total[used] / count[used, None]

    def _validate(self) -> None:
        y = row_products(self.validation, self.rotation)
        errors = np.square(y - self._encoded(y)[1], dtype=np.float64).sum(1)
        error = float(self.processes.joined(errors).mean())
        if error < self.lowest:
            self.lowest, self.best = error, (self.rotation.copy(), self.entries.copy())

    def descend(self, steps: int, what: str) -> None:
        """Stochastic optimisation of rotation and codebooks."""
        plan, batch = self.plan, min(self.plan.batch_size, self.rows)
        entries = torch.from_numpy(self.entries).requires_grad_()
        books = torch.optim.Adam([entries], lr=plan.learning_rate, betas=(0.9, 0.99))
        turn = torch.zeros(self.dim, self.dim, requires_grad=True)
        turns = torch.optim.Adam([turn], lr=plan.turn, betas=(0.9, 0.99))
        identity = torch.eye(self.dim)
        every = max(1, steps // 8)
        for step in trange(1, steps + 1, desc=what, disable=not self.progress, leave=False):
            factor = min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
            books.param_groups[0]["lr"] = plan.learning_rate * factor
            turns.param_groups[0]["lr"] = plan.turn * factor
            x = self.processes.picked(self.train, self.rng.integers(0, self.rows, batch), self.first)
            entries.grad, turn.grad = self._gradients(torch.from_numpy(x), entries)
            books.step()
            turns.step()
            with torch.no_grad():
                half = (turn - turn.T) / 4
                rotation = torch.linalg.solve(identity - half, (identity + half) @ torch.from_numpy(self.rotation))
                turn.zero_()
            self.rotation = rotation.numpy()
            self._follow_first()
            if step % every == 0:
                self.rotation = nearest_rotation(self.rotation)
                self._validate()

    def _gradients(self, x: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Of the mean of ‖output − x‖² to the entries, and to the turn D of a rotation exp(D) R at D = 0 (its skew
        part)."""
        rotation = torch.from_numpy(self.rotation).requires_grad_()
        y = x @ rotation.T
        own = y.detach().numpy()[self.processes.share(len(x))]
        codes = self.processes.joined(self._codes(own), len(x)).astype(np.int64)
        rows = torch.from_numpy(codes + np.asarray(self.offsets[:-1]))
        xhat = embedding(rows, entries).reshape(len(x), -1)
        xhat = xhat if self.spread is None else xhat[:, torch.from_numpy(self.spread)]
        loss = (self.estimator(y, xhat) - y).square().sum(1).mean()
        to_entries, to_rotation = torch.autograd.grad(loss, [entries, rotation])
        skew = to_rotation @ rotation.detach().T
        return to_entries, skew - skew.T

    def settle(self, rounds: int) -> None:
        """K-means from the best so far, the rotation at rest."""
        self.rotation, self.entries = (a.copy() for a in self.best)
        y = row_products(self.train, self.rotation)
        for _ in range(rounds):
            self._lloyd(y, self.processes)
        self._validate()
