"""Learning a network behind given codes, and codes for the network, in turn."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from annvq.arrays import positive_int
from annvq.training.data import TrainingData
from annvq.training.devices import fast_products, torch_device
from annvq.training.model import NetworkModel
from annvq.training.neighbours import between_neighbours
from annvq.types import F32, Codes

log = logging.getLogger(__name__)

LATER = 0.25  # of the learning rate, in rounds after the first: more of it, and codes are learned by heart


@dataclass(frozen=True)
class LearnNetwork:
    """A recipe part: a network and the entries before it, for the codes that vectors have; then better codes for it.

    It starts from codes without a network, and keeps what has the least error on the validation rows, so that it never
    ends behind those. Of an array that holds more rows than a recipe reads each round takes others, as long as there
    are some: memory is that of one sample and what is added to it.

    Args:
        steps: batches of the first round; in each the learning rate rises, stays for its first half, and falls to zero.
        rounds: after the first, in each of which codes are chosen anew first.
        round_steps: batches of each of these.
        batch_size: rows of a batch.
        learning_rate: of AdamW at its highest, for the network; a quarter in later rounds.
        added: vectors made of neighbours for each learn vector (:mod:`annvq.training.neighbours`).
        bfloat16: multiply in bfloat16 in descent, where the device has instructions for it.
        device: of descent; ``"auto"`` (a GPU when there is one), ``"cpu"``, ``"cuda"``, ….
    """

    steps: int = 3000
    rounds: int = 1
    round_steps: int = 2000
    batch_size: int = 1024
    learning_rate: float = 4e-3
    added: float = 2.0
    bfloat16: bool = True
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "round_steps", "batch_size"):
            positive_int(getattr(self, name), name)
        positive_int(self.rounds, "rounds", low=0)
        for name in ("learning_rate", "added"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be a number ≥ 0, got {getattr(self, name)}")

    def __call__(self, quantizer: NetworkModel, data: TrainingData) -> None:
        device, home = torch_device(self.device), quantizer.fitted.device
        x = self._with_neighbours(data.near(max(quantizer.sizes)).train, data.seed(1))
        quantizer.begin()
        codes = quantizer.plain_codes(x)
        best, least = _values(quantizer), data.validation_error(quantizer)
        generator = torch.Generator().manual_seed(data.seed(2))
        for number in range(self.rounds + 1):
            if number:
                if (others := data.another(number)) is not None:
                    x = self._with_neighbours(others, data.seed(1, number))
                    codes = quantizer.plain_codes(x)
                codes = quantizer.improved(x, codes)
            quantizer.to(device)
            try:
                self._descend(quantizer, x, codes, generator, first=number == 0, progress=data.progress)
            finally:
                quantizer.to(home)
            quantizer.refit_view(x, codes)
            error = data.validation_error(quantizer)
            log.info("round %d: error %.4g on held-out rows, before %.4g", number, error, least)
            if not error < least:
                break
            best, least = _values(quantizer), error
        quantizer.load_state_dict(best)

    def _with_neighbours(self, x: F32, seed: int) -> F32:
        extra = int(self.added * len(x))
        return np.concatenate([x, between_neighbours(x, extra, seed)]) if extra else x

    def _descend(
        self, quantizer: NetworkModel, x: F32, codes: Codes, generator: torch.Generator, *, first: bool, progress: bool
    ) -> None:
        """Gradient descent on ‖x − x̂‖² of given codes."""
        most = self.steps if first else self.round_steps
        # Of few vectors, so many batches as go over them thirty times.
        steps = min(most, max(20, 30 * len(x) // self.batch_size))
        rate = self.learning_rate if first else LATER * self.learning_rate
        groups = [{**group, "lr": rate * group.pop("factor")} for group in quantizer.parameter_groups()]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
        rows, chosen, device = torch.from_numpy(x), torch.from_numpy(codes.astype(np.int32)), quantizer.fitted.device
        order = torch.empty(0, dtype=torch.int64)
        for _ in trange(steps, desc="network", unit="step", disable=not progress, leave=False):
            if len(order) < min(self.batch_size, len(x)):
                order = torch.randperm(len(x), generator=generator)
            batch, order = order[: self.batch_size], order[self.batch_size :]
            named, wanted = chosen[batch].to(device, torch.int64), rows[batch].to(device)
            with fast_products(device) if self.bfloat16 else nullcontext():
                error = (quantizer.decoded(named) - wanted).square().sum(1).mean()
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def _rate(progress: float) -> float:
    """Share of the highest learning rate: rises for a twentieth of the time, stays up to the half, falls to zero."""
    return min(1.0, progress * 20, 2 - 2 * progress)


def _values(quantizer: NetworkModel) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in quantizer.state_dict().items()}
