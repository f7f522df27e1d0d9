"""Recipe parts for quantizers behind a learned map of vectors."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from annvq.arrays import positive_int
from annvq.training.data import TrainingData
from annvq.training.learn.axes import principal_axes
from annvq.training.learn.rotation import RotationRun, dealt, starts
from annvq.training.model import MappedModel
from annvq.training.recipe import Inner, Part
from annvq.types import Self

#: A start whose error is higher than the best one's by more than this factor does not race.
_CHANCE = 1.2
#: Small data are gone through at most so often.
_MOST_PASSES = 100
LEAST_VARIANCE = 1e-4  # of the largest: less is taken for so much
#: Up to so many dimensions a rotation is descended to by as many steps; each takes time as the cube of them.
_WHOLE_DIMS = 512


@dataclass(frozen=True)
class Inside:
    """A recipe part done on the quantizer behind a transform, on transformed data."""

    over_processes: ClassVar[bool] = True

    part: Part

    def inner(self, quantizer: MappedModel) -> Inner:
        """The part that this one does."""
        none = np.empty((0, quantizer.dim), np.float32)
        return [(self.part, quantizer.in_own_coordinates(none)[0])]

    def __call__(self, quantizer: MappedModel, data: TrainingData) -> None:
        self.part(*data.inside(quantizer))
        quantizer.mark_fitted()


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

    over_processes: ClassVar[bool] = True

    steps: int = 1500
    race: int = 150
    batch_size: int = 1024
    turn: float = 2e-2
    learning_rate: float = 1e-2
    alternations: int = 5
    polish: int = 10

    @classmethod
    def of_dim(cls, dim: int) -> Self:
        """The usual one for d dimensions: of many, fewer steps and rounds, so that all of them take as long as those of
        512."""
        share = min(1.0, (_WHOLE_DIMS / dim) ** 3)
        counts = ((name, getattr(cls, name)) for name in ("steps", "race", "alternations"))
        return cls(**{name: max(1, round(share * count)) for name, count in counts})

    def __post_init__(self) -> None:
        for name in ("steps", "race", "batch_size"):
            positive_int(getattr(self, name), name)
        for name in ("alternations", "polish"):
            positive_int(getattr(self, name), name, low=0)

    def __call__(self, quantizer: MappedModel, data: TrainingData) -> None:
        _require_parts(quantizer, "rotation", f"LearnRotation learns a Rotation before a ProductVQ, got {quantizer!r}")
        inner = quantizer.quantizer
        data = data.near(max(inner.sizes))  # the rotation would be theirs
        runs = [
            RotationRun(
                self,
                data.train,
                data.validation,
                inner.books(),
                inner.estimator,
                start,
                seed=data.seed,
                progress=data.progress,
                processes=data.processes,
            )
            for start in starts(data.train, inner.widths, data.processes)
        ]
        leader = min(run.lowest for run in runs)
        runs = [run for run in runs if run.lowest <= _CHANCE * leader]
        if len(runs) > 1:
            for run in runs:
                run.descend(self.race, "race")
        best = min(runs, key=lambda run: run.lowest)
        passes = max(100, _MOST_PASSES * data.rows // self.batch_size)
        best.descend(min(self.steps, passes), "rotate")
        best.settle(self.polish)
        quantizer.transform.set_matrix(best.best[0])
        inner.set_codebooks(np.split(best.best[1], inner.offsets[1:-1]))
        quantizer.mark_fitted()


@dataclass(frozen=True)
class LearnLinearMap:
    """A recipe part for product codebooks behind a :class:`~annvq.LinearMap`: first a rotation, as
    :class:`LearnRotation` finds it, then any map, by NSVQ over the whole quantizer (the gradient reaches the map
    through decoding).

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

    def __call__(self, quantizer: MappedModel, data: TrainingData) -> None:
        _require_parts(quantizer, "linear", f"LearnLinearMap learns a LinearMap before a ProductVQ, got {quantizer!r}")
        inner, mapping = quantizer.quantizer, quantizer.transform
        rotated = quantizer.rotated()
        self.rotation(rotated, data)
        mapping.set_matrix(rotated.transform.matrix().detach().numpy())
        quantizer.mark_fitted()
        self._descend(quantizer, [mapping.weight, inner.weight], data)

    def _descend(self, quantizer: MappedModel, parameters: list[nn.Parameter], data: TrainingData) -> None:
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


@dataclass(frozen=True)
class PrincipalAxes:
    """A recipe part for codes of sub-spaces behind a map: principal axes, dealt out so that errors of sub-spaces are
    about alike (Ge, He, Ke and Sun, TPAMI 2014, section 3.2: the parametric solution). Nothing is iterated.

    Args:
        emphasis: axes are stretched by their variance to the power of half of this. Codes then spend more of their bits
            on directions in which the data, and queries that are like them, differ much: errors there cost more of an
            inner product. 0 keeps the map a rotation.
    """

    over_processes: ClassVar[bool] = True

    emphasis: float = 0.0

    def __call__(self, quantizer: MappedModel, data: TrainingData) -> None:
        rows = data.near(max(quantizer.sizes)).train
        variance, axes = principal_axes(rows, data.processes)
        # Axes along which hardly anything varies are not to be blown up on the way back.
        floor = max(float(variance[-1]) * LEAST_VARIANCE, 1e-30)
        stretch = np.maximum(variance, floor) ** (self.emphasis / 2)
        order = dealt(variance * stretch**2, quantizer.quantizer.books().space_widths)
        matrix = (axes * stretch)[:, order].T / np.exp(np.log(stretch).mean())
        quantizer.transform.set_matrix(np.ascontiguousarray(matrix, dtype=np.float32))
        quantizer.mark_fitted()


def _require_parts(quantizer: MappedModel, transform: str, message: str) -> None:
    kinds = (getattr(getattr(quantizer, part, None), "kind", None) for part in ("transform", "quantizer"))
    if tuple(kinds) != (transform, "product"):
        raise TypeError(message)
