"""Learning a network behind given codes, and codes for the network, in turn."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from annvq.arrays import positive_int
from annvq.training.data import TrainingData
from annvq.training.model import NetworkModel
from annvq.training.neighbours import between_neighbours
from annvq.training.trainer import warm_cosine
from annvq.types import F32, Codes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LearnNetwork:
    """A recipe part: a network and the entries before it, for the codes that vectors have; then better codes for it.

    It starts from codes without a network, and keeps what has the least error on the validation rows, so that it never
    ends behind those.

    Args:
        steps: batches of the first round; each has its own warm-up and descent of the learning rate.
        rounds: after the first, in each of which codes are chosen anew first.
        round_steps: batches of each of these.
        batch_size: rows of a batch.
        learning_rate: of AdamW at its highest, for the network; a half in later rounds.
        added: vectors made of neighbours for each learn vector (:mod:`annvq.training.neighbours`).
    """

    steps: int = 3000
    rounds: int = 1
    round_steps: int = 2000
    batch_size: int = 1024
    learning_rate: float = 4e-3
    added: float = 2.0

    def __post_init__(self) -> None:
        for name in ("steps", "round_steps", "batch_size"):
            positive_int(getattr(self, name), name)
        positive_int(self.rounds, "rounds", low=0)
        for name in ("learning_rate", "added"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be a number ≥ 0, got {getattr(self, name)}")

    def __call__(self, quantizer: NetworkModel, data: TrainingData) -> None:
        x = data.near(max(quantizer.sizes)).train
        extra = int(self.added * len(x))
        if extra:
            x = np.concatenate([x, between_neighbours(x, extra, data.seed(1))])
        quantizer.begin()
        codes = quantizer.plain_codes(x)
        best, least = _values(quantizer), data.validation_error(quantizer)
        generator = torch.Generator().manual_seed(data.seed(2))
        for number in range(self.rounds + 1):
            if number:
                codes = quantizer.improved(x, codes)
            self._descend(quantizer, x, codes, generator, first=number == 0, progress=data.progress)
            quantizer.refit_view(x, codes)
            error = data.validation_error(quantizer)
            log.info("round %d: error %.4g on held-out rows, before %.4g", number, error, least)
            if not error < least:
                break
            best, least = _values(quantizer), error
        quantizer.load_state_dict(best)

    def _descend(
        self, quantizer: NetworkModel, x: F32, codes: Codes, generator: torch.Generator, *, first: bool, progress: bool
    ) -> None:
        """Gradient descent on ‖x − x̂‖² of given codes."""
        most = self.steps if first else self.round_steps
        # Of few vectors, so many batches as go over them thirty times.
        steps = min(most, max(20, 30 * len(x) // self.batch_size))
        rate = self.learning_rate if first else self.learning_rate / 2
        groups = [{**group, "lr": rate * group.pop("factor")} for group in quantizer.parameter_groups()]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step / steps))
        rows, chosen = torch.from_numpy(x), torch.from_numpy(codes.astype(np.int64))
        order = torch.empty(0, dtype=torch.int64)
        for _ in trange(steps, desc="network", unit="step", disable=not progress, leave=False):
            if len(order) < min(self.batch_size, len(x)):
                order = torch.randperm(len(x), generator=generator)
            batch, order = order[: self.batch_size], order[self.batch_size :]
            error = (quantizer.decoded(chosen[batch]) - rows[batch]).square().sum(1).mean()
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def _values(quantizer: NetworkModel) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in quantizer.state_dict().items()}
