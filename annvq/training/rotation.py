"""Learning the transform before a quantizer, together with its codebooks."""

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import linalg
from torch import Tensor, nn
from torch.nn.functional import embedding

from annvq.arrays import positive_int
from annvq.kernels.encode import ProductEncoder
from annvq.quantizers.base import TableQuantizer
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.transform import LinearMap, Rotation, Transformed, row_products
from annvq.training.data import TrainingData
from annvq.training.kmeans import product_kmeans
from annvq.training.least_squares import indicator
from annvq.types import F32

if TYPE_CHECKING:
    from annvq.training.recipe import Part


#: A start whose error is higher than the best one's by more than this factor does not race.
_CHANCE = 1.2
#: Small data are gone through at most so often.
_MOST_PASSES = 100


def in_own_coordinates(quantizer: TableQuantizer, data: TrainingData) -> tuple[TableQuantizer, TrainingData]:
    """What learns codebooks, and the data as it sees them: the inner quantizer behind a transform as it is now."""
    if not isinstance(quantizer, Transformed):
        return quantizer, data
    with torch.no_grad():
        train, validation = (quantizer.transform(torch.from_numpy(x)).numpy() for x in (data.train, data.validation))
    quantizer.mark_fitted()
    return quantizer.quantizer, replace(data, train=train, validation=validation)


@dataclass(frozen=True)
class Inside:
    """A recipe part done on the quantizer behind a transform, on transformed data."""

    part: "Part"

    def __call__(self, quantizer: Transformed, data: TrainingData) -> None:
        self.part(*in_own_coordinates(quantizer, data))


@dataclass(frozen=True)
class LearnRotation:
    """A recipe part for product codebooks behind a rotation: learn both end to end.

    From each of several starts (the coordinates as they are, and principal axes dealt out evenly) a few rounds of
    alternation (Ge, He, Ke and Sun, "Optimized Product Quantization", TPAMI 2014, section 3.1) and a short run of
    stochastic optimisation by NSVQ; from the start that is best on the validation rows, a long one. Codebooks move by
    Adam; the rotation moves on the orthogonal group, by Adam on the gradient's skew part and a Cayley step.

    Args:
        steps: batches of the long run, fewer on small data.
        race: batches of the short run from each start.
        batch_size: rows of a batch.
        turn: step size of the rotation, in radians per coordinate pair.
        learning_rate: step size of the codebooks, relative to the data's root-mean-square coordinate.
        alternations: rounds of alternation that warm each start up.
        polish: rounds of k-means at the end, the rotation at rest.
    """

    steps: int = 1500
    race: int = 150
    batch_size: int = 1024
    turn: float = 2e-2
    learning_rate: float = 1e-2
    alternations: int = 5
    polish: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "race", "batch_size"):
            positive_int(getattr(self, name), name)
        for name in ("alternations", "polish"):
            positive_int(getattr(self, name), name, low=0)

    def __call__(self, quantizer: Transformed, data: TrainingData) -> None:
        inner = quantizer.quantizer
        if not isinstance(quantizer.transform, Rotation) or not isinstance(inner, ProductVQ):
            raise TypeError(f"LearnRotation learns a Rotation before a ProductVQ, got {quantizer!r}")
        data = data.near(max(inner.sizes))  # the rotation would be theirs
        runs = [_Run(self, inner, data, start) for start in starts(data.train, inner.width)]
        leader = min(run.lowest for run in runs)
        runs = [run for run in runs if run.lowest <= _CHANCE * leader]
        if len(runs) > 1:
            for run in runs:
                run.descend(self.race, "race")
        best = min(runs, key=lambda run: run.lowest)
        passes = max(100, _MOST_PASSES * len(data.train) // self.batch_size)
        best.descend(min(self.steps, passes), "rotate")
        best.settle(self.polish)
        quantizer.transform.set_matrix(best.best[0])
        inner.set_codebooks(np.split(best.best[1], inner.offsets[1:-1]))
        quantizer.mark_fitted()


@dataclass(frozen=True)
class LearnLinearMap:
    """A recipe part for product codebooks behind a :class:`LinearMap`: first a rotation, as :class:`LearnRotation`
    finds it, then any map, by NSVQ over the whole quantizer (the gradient reaches the map through decoding).

    The rotation stays where the freedom brings nothing on the validation rows.

    Args:
        rotation: how the rotation is learned.
        steps: batches of the second stage.
        batch_size: rows of a batch.
        learning_rate: step size of map and codebooks, relative to the data's root-mean-square coordinate.
    """

    rotation: LearnRotation = field(default_factory=LearnRotation)
    steps: int = 200
    batch_size: int = 1024
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            positive_int(getattr(self, name), name)

    def __call__(self, quantizer: Transformed, data: TrainingData) -> None:
        inner, mapping = quantizer.quantizer, quantizer.transform
        if not isinstance(mapping, LinearMap) or not isinstance(inner, ProductVQ):
            raise TypeError(f"LearnLinearMap learns a LinearMap before a ProductVQ, got {quantizer!r}")
        rotated = Transformed(Rotation(quantizer.dim), inner)
        self.rotation(rotated, data)
        mapping.set_matrix(rotated.transform.matrix().detach().numpy())
        quantizer.mark_fitted()
        self._descend(quantizer, [mapping.weight, inner.weight], data)

    def _descend(self, quantizer: Transformed, parameters: list[nn.Parameter], data: TrainingData) -> None:
        rng = np.random.default_rng(data.seed(1 << 20))
        batch = min(self.batch_size, len(data.train))
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.9, 0.99))
        best, lowest = [p.detach().clone() for p in parameters], data.validation_error(quantizer)
        for step in range(1, self.steps + 1):
            optimizer.param_groups[0]["lr"] = self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            x = torch.from_numpy(data.train[rng.integers(0, len(data.train), batch)])
            quantizer.train()
            loss = (quantizer(x).xhat - x).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % max(1, self.steps // 4) == 0 and (error := data.validation_error(quantizer)) < lowest:
                best, lowest = [p.detach().clone() for p in parameters], error
        with torch.no_grad():
            for parameter, value in zip(parameters, best, strict=True):
                parameter.copy_(value)


def starts(x: F32, width: int) -> list[F32]:
    """Rotations (d, d) to start from: the identity, and principal axes dealt out to sub-spaces of ``width``
    dimensions so that their variances multiply to about the same (Ge et al., section 3.2)."""
    d = x.shape[1]
    variance, axes = np.linalg.eigh(np.cov(x, rowvar=False, bias=True).reshape(d, d).astype(np.float64))
    logs = np.log(np.maximum(variance, 1e-6 * max(float(variance[-1]), 1e-30)))
    logs -= logs.min()  # dealing to the lowest total is even only where no term is negative
    groups: list[list[int]] = [[] for _ in range(d // width)]
    totals = np.zeros(len(groups))
    for axis in np.argsort(-variance):
        free = [m for m, group in enumerate(groups) if len(group) < width]
        m = min(free, key=lambda m: (totals[m], m))
        groups[m].append(int(axis))
        totals[m] += logs[axis]
    order = list(itertools.chain.from_iterable(groups))
    return [np.eye(d, dtype=np.float32), np.ascontiguousarray(axes[:, order].T, dtype=np.float32)]


def nearest_rotation(matrix: F32) -> F32:
    """The orthogonal matrix nearest to ``matrix`` (d, d)."""
    u, _, vt = linalg.svd(matrix.astype(np.float64), check_finite=False)
    return np.asarray(u @ vt, dtype=np.float32)


class _Run:
    """A rotation and codebooks on their way from one start."""

    def __init__(self, plan: LearnRotation, inner: ProductVQ, data: TrainingData, rotation: F32) -> None:
        self.plan, self.inner, self.data = plan, inner, data
        self.sizes, self.starts, self.offsets = inner.sizes, inner.starts, inner.offsets
        self.rng = np.random.default_rng(data.seed(1 << 19))
        self.rotation = rotation
        self.lowest, self.best = math.inf, (rotation, inner.codebooks_copy())
        few = self._sample(min(len(data.train), 32 * max(self.sizes)))
        start = ProductVQ(inner.dim, inner.M, list(inner.bits_per_codebook))
        product_kmeans(start, replace(data, train=row_products(few, rotation)), 5)
        self.entries = start.codebooks_copy()
        for _ in range(plan.alternations):
            self._alternate(few)
        self._validate()

    def _sample(self, count: int) -> F32:
        rows = self.rng.choice(len(self.data.train), count, replace=False)
        return self.data.train[np.sort(rows)]

    def _encoded(self, y: F32) -> tuple[np.ndarray, F32]:
        """Codes and decoded vectors of rotated rows."""
        codes = ProductEncoder(self.entries, self.sizes, self.starts).encode(y)
        parts = [self.entries[a + codes[:, m].astype(np.int64)] for m, a in enumerate(self.offsets[:-1])]
        return codes, np.concatenate(parts, axis=1)

    def _alternate(self, x: F32) -> None:
        self._lloyd(x @ self.rotation.T)
        self.rotation = nearest_rotation(self._encoded(x @ self.rotation.T)[1].T @ x)

    def _lloyd(self, y: F32) -> None:
        """One round of k-means on rotated rows; entries that none uses stay."""
        codes, _ = self._encoded(y)
        members = indicator(codes, self.sizes)
        count = np.asarray(members.sum(axis=0)).ravel()
        for a, b, s in zip(self.offsets, self.offsets[1:], self.starts, strict=False):
            used = count[a:b] > 0
            total = members[:, a:b].T @ y[:, s : s + self.inner.width]
            self.entries[a:b][used] = total[used] / count[a:b][used, None]

    def _validate(self) -> None:
        y = row_products(self.data.validation, self.rotation)
        error = float(np.square(y - self._encoded(y)[1], dtype=np.float64).sum(1).mean())
        if error < self.lowest:
            self.lowest, self.best = error, (self.rotation.copy(), self.entries.copy())

    def descend(self, steps: int, what: str) -> None:
        """Stochastic optimisation of rotation and codebooks."""
        from tqdm import trange

        plan, batch = self.plan, min(self.plan.batch_size, len(self.data.train))
        entries = torch.from_numpy(self.entries).requires_grad_()
        books = torch.optim.Adam([entries], lr=plan.learning_rate, betas=(0.9, 0.99))
        turn = torch.zeros(self.inner.dim, self.inner.dim, requires_grad=True)
        turns = torch.optim.Adam([turn], lr=plan.turn, betas=(0.9, 0.99))
        identity = torch.eye(self.inner.dim)
        every = max(1, steps // 8)
        for step in trange(1, steps + 1, desc=what, disable=not self.data.progress, leave=False):
            factor = min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
            books.param_groups[0]["lr"] = plan.learning_rate * factor
            turns.param_groups[0]["lr"] = plan.turn * factor
            x = self.data.train[self.rng.integers(0, len(self.data.train), batch)]
            entries.grad, turn.grad = self._gradients(torch.from_numpy(x), entries)
            books.step()
            turns.step()
            with torch.no_grad():
                half = (turn - turn.T) / 4
                rotation = torch.linalg.solve(identity - half, (identity + half) @ torch.from_numpy(self.rotation))
                turn.zero_()
            self.rotation = rotation.numpy()
            if step % every == 0:
                self.rotation = nearest_rotation(self.rotation)
                self._validate()

    def _gradients(self, x: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Of the mean of ‖output − x‖² to the entries, and to the turn D of a rotation exp(D) R at D = 0 (its skew
        part)."""
        rotation = torch.from_numpy(self.rotation).requires_grad_()
        y = x @ rotation.T
        codes = ProductEncoder(self.entries, self.sizes, self.starts).encode(y.detach().numpy()).astype(np.int64)
        rows = torch.from_numpy(codes + np.asarray(self.offsets[:-1]))
        xhat = embedding(rows, entries).reshape(len(x), -1)
        loss = (self.inner.estimator(y, xhat) - y).square().sum(1).mean()
        to_entries, to_rotation = torch.autograd.grad(loss, [entries, rotation])
        skew = to_rotation @ rotation.detach().T
        return to_entries, skew - skew.T

    def settle(self, rounds: int) -> None:
        """K-means from the best so far, the rotation at rest."""
        self.rotation, self.entries = (a.copy() for a in self.best)
        y = row_products(self.data.train, self.rotation)
        for _ in range(rounds):
            self._lloyd(y)
        self._validate()
