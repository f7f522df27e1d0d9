"""Recipes: how a quantizer learns, as a sequence of parts that can be recombined."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch

from annvq.arrays import positive_int
from annvq.threads import one_torch_thread
from annvq.training.data import TrainingData, prepare
from annvq.training.learn.shares import ALONE, Alone, check_processes
from annvq.training.model import Model
from annvq.training.progress import Progress, follow_first
from annvq.training.sharing import prepare_shares
from annvq.types import Array

SMALL_DIM = 512
"""Up to so many dimensions PyTorch works on one thread while a recipe runs: its operations on a batch are so short that
threads spend more time waiting for one another, ten times as much where other processes want the cores too. What takes
long, k-means, encoding and least squares, has its own threads."""


class Part(Protocol):
    """One step of a recipe: changes the codebooks in place.

    A part that can do so where several processes hold a share of the rows each has ``over_processes = True``; one that
    does other parts says by ``inner(quantizer)`` which, and on what quantizers.
    """

    def __call__(self, quantizer: Any, data: TrainingData) -> None: ...


Inner: TypeAlias = Sequence[tuple[Part, Any]]
"""Parts, and the quantizer that each is done on."""


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

    def run(
        self,
        quantizer: Model,
        x: Array,
        *,
        seed: int = 0,
        progress: bool = False,
        processes: Alone = ALONE,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        """Learn ``quantizer``'s codebooks from ``x`` (n, d); then what follows from them, such as norm levels.

        Args:
            processes: those that run this together, each with the same arguments; each reads its share of the rows.
            checkpoint: file to keep what is learned in after each part, and to go on from.

        Raises:
            ValueError: a part cannot be done over several processes; the checkpoint is of another run.
        """
        if check_processes(processes).shared:
            require_over_processes([(part, quantizer) for part in self.parts])
        data = (partial(prepare_shares, processes=processes) if processes.shared else prepare)(
            x,
            quantizer.dim,
            least=max(quantizer.sizes),
            max_rows=positive_int(self.max_rows, "max_rows", low=max(quantizer.sizes)),
            validation=self.validation,
            seed=seed,
            progress=progress,
        )
        kept = None if checkpoint is None else Progress(checkpoint, quantizer, x, seed, self, processes)
        was_training = quantizer.training
        # Estimators and parts may draw from torch's own generator: from the seed here, and no caller's stream moves.
        device = quantizer.fitted.device
        generators = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        with generators, one_torch_thread() if quantizer.dim <= SMALL_DIM else nullcontext():
            torch.manual_seed(seed)
            done = 0 if kept is None else kept.resume()
            for number, part in enumerate(self.parts):
                if number < done:
                    continue
                part(quantizer, data)
                if kept is not None:
                    kept.keep(number + 1)
        data.restore(quantizer)
        if processes.rank == 0:
            quantizer.learn_terms(x, seed=seed)
        if processes.shared:
            follow_first(quantizer.state_dict().values(), processes)
        quantizer.train(was_training)


def require_over_processes(parts: Inner) -> None:
    """Raise ValueError, naming quantizer and part, unless several processes can do all of ``parts`` together."""
    for part, quantizer in parts:
        if not getattr(part, "over_processes", False):
            raise ValueError(
                f"quantizer must be one that several processes can learn, and {type(quantizer).__name__} is learned by "
                f"{type(part).__name__}, which one process does by itself"
            )
        if hasattr(part, "inner"):
            require_over_processes(part.inner(quantizer))
