"""Codebook replacement: entries that are hardly used start again near ones that are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from annvq.arrays import positive_int
from annvq.training.model import CodebookModel


@dataclass(frozen=True)
class Replacement:
    """Every ``period`` steps, entries that were in use in less than ``discard_threshold`` of those steps' batches
    are replaced by used entries of the same codebook plus a small perturbation. Vali and Bäckström, "NSVQ", IEEE Access
    2022 (codebook replacement).

    Args:
        discard_threshold: share of batches, 0..1.
        period: steps between replacements.
        stop: share of the training after which nothing is replaced any more, so that it can settle.
        perturbation: standard deviation of the change, relative to the codebook's own.
    """

    discard_threshold: float = 0.01
    period: int = 100
    stop: float = 0.8
    perturbation: float = 0.02

    def __post_init__(self) -> None:
        for name, low, high in (("discard_threshold", 0, 1), ("stop", 0, 1), ("perturbation", 0, float("inf"))):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in {low}..{high}, got {getattr(self, name)}")
        positive_int(self.period, "period")

    def due(self, step: int, steps: int) -> bool:
        """Whether to replace after ``step`` (counted from 1) of ``steps``."""
        return step % self.period == 0 and step <= self.stop * steps

    @torch.no_grad()
    def __call__(
        self, quantizer: CodebookModel, used: Tensor, generator: torch.Generator, state: list[Tensor]
    ) -> list[int]:
        """Replace entries.

        Args:
            used: (ΣK,) in how many of the last ``period`` batches each entry was in use.
            generator: draws the copies and their perturbation.
            state: optimizer tensors of weight's shape; their rows of replaced entries are zeroed.

        Returns:
            Replaced entries of each codebook.
        """
        counts = []
        for a, b, width in zip(quantizer.offsets, quantizer.offsets[1:], quantizer.widths, strict=False):
            dead = used[a:b] < self.discard_threshold * self.period
            alive = torch.nonzero(~dead)[:, 0] + a
            replaced = torch.nonzero(dead)[:, 0] + a
            counts.append(len(replaced))
            if not len(replaced):
                continue
            if not len(alive):  # nothing to copy: keep the most used one
                alive = used[a:b].argmax()[None] + a
            chosen = alive[torch.randint(len(alive), (len(replaced),), generator=generator)]
            book = quantizer.weight[chosen, :width].cpu()
            spread = self.perturbation * (book.std() if book.numel() > 1 else book.abs().mean())
            noise = torch.randn(book.shape, generator=generator)
            rows = replaced.to(quantizer.weight.device)
            quantizer.weight[rows, :width] = (book + spread * noise).to(quantizer.weight.device)
            for tensor in state:
                tensor[rows] = 0
        return counts
