"""Recipes: how a quantizer learns, as a sequence of parts that can be recombined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from annvq.arrays import Array, positive_int
from annvq.quantizers.base import Quantizer
from annvq.training.data import TrainingData, prepare
from annvq.training.kmeans import KMeans
from annvq.training.replacement import Replacement
from annvq.training.trainer import Trainer, TrainerPart


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
    validation: float = 0.1

    def run(self, quantizer: Quantizer, x: Array, *, seed: int = 0, progress: bool = False) -> None:
        """Learn ``quantizer``'s codebooks from ``x`` (n, d); then its norm levels."""
        table = quantizer.scan_view()
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
        for part in self.parts:
            part(quantizer, data)
        data.restore(table)
        table.fit_norms(x, seed=seed)
        quantizer.train(was_training)


def default_recipe(quantizer: Quantizer) -> Recipe:
    """The recipe of ``fit``: k-means, then stochastic optimisation by NSVQ with early stopping."""
    trainer = Trainer(steps=800, batch_size=2048, learning_rate=2e-3, replacement=Replacement(), patience=4)
    return Recipe((KMeans(), TrainerPart(trainer)))
