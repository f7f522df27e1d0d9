"""Recipes: how a quantizer learns, as a sequence of parts that can be recombined."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from annvq.arrays import positive_int
from annvq.threads import one_torch_thread
from annvq.training.data import TrainingData, prepare
from annvq.training.model import Model
from annvq.types import Array

SMALL_DIM = 512
"""Up to so many dimensions PyTorch works on one thread while a recipe runs: its operations on a batch are so short that
threads spend more time waiting for one another, ten times as much where other processes want the cores too. What takes
long, k-means, encoding and least squares, has its own threads."""


class Part(Protocol):
    """One step of a recipe: changes the codebooks in place."""

    def __call__(self, quantizer: Any, data: TrainingData) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """Parts, in order, on one preparation of the data.

    Args:
        parts: each is called with the quantizer and the prepared data.
        max_rows: larger data is sampled down to this many rows.
        validation: share of the rows held out for early stopping.
    """

    parts: Sequence[Part]
    max_rows: int = 1 << 18
    validation: float = 0.05

    def run(self, quantizer: Model, x: Array, *, seed: int = 0, progress: bool = False) -> None:
        """Learn ``quantizer``'s codebooks from ``x`` (n, d); then what follows from them, such as norm levels."""
        data = prepare(
            x,
            quantizer.dim,
            least=max(quantizer.sizes),
            max_rows=positive_int(self.max_rows, "max_rows", low=max(quantizer.sizes)),
            validation=self.validation,
            seed=seed,
            progress=progress,
        )
        was_training = quantizer.training
        # Estimators and parts may draw from torch's own generator: from the seed here, and no caller's stream moves.
        device = quantizer.fitted.device
        generators = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        with generators, one_torch_thread() if quantizer.dim <= SMALL_DIM else nullcontext():
            torch.manual_seed(seed)
            for part in self.parts:
                part(quantizer, data)
        data.restore(quantizer)
        quantizer.learn_terms(x, seed=seed)
        quantizer.train(was_training)
