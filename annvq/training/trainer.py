"""Stochastic optimisation of codebooks: the open form behind ``fit``."""

import logging
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from annvq.arrays import positive_int, sample_crc, to_numpy
from annvq.quantizers.base import TableQuantizer
from annvq.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from annvq.training.data import TrainingData, mean_error
from annvq.training.estimators import Estimator
from annvq.training.history import History
from annvq.training.replacement import Replacement
from annvq.training.sources import Batches, Source, batches
from annvq.types import F32, Array

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable[Tensor], float], Optimizer]
Schedule = Callable[[float], float]


def adam(parameters: Iterable[Tensor], learning_rate: float) -> Optimizer:
    """Adam with its usual moments."""
    return Adam(parameters, lr=learning_rate)


def warm_cosine(progress: float) -> float:
    """A twentieth of the time rising from zero, then a cosine down to zero."""
    return min(1.0, progress * 20) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Trainer:
    """Mini-batch training of a quantizer by the gradient of ‖x − output‖².

    Learning rate and loss are taken relative to the scale of the data, so that units do not matter.

    Args:
        steps: batches to train on.
        batch_size: rows of a batch, where the source is an array.
        estimator: gradient estimator for this run; default: the quantizer's own.
        optimizer: ``optimizer(parameters, learning_rate)``; default Adam.
        learning_rate: step size relative to the data's root-mean-square coordinate.
        schedule: factor on the learning rate as a function of progress 0..1; default a warm-up and a cosine.
        replacement: codebook replacement, or None.
        validate_every: steps between validations, where ``run`` gets validation vectors.
        patience: stop after this many validations without improvement, or None for never.
        device: ``"auto"`` (a GPU when there is one), ``"cpu"``, ``"cuda"``, ….
        checkpoint: file to save the state to every ``checkpoint_every`` steps and to resume from, bit-identically. One
            of another run (other settings, seed or vectors) is refused.
    """

    steps: int = 2000
    batch_size: int = 1024
    estimator: Estimator | None = None
    optimizer: OptimizerFactory = adam
    learning_rate: float = 2e-3
    schedule: Schedule = warm_cosine
    replacement: Replacement | None = None
    validate_every: int = 100
    patience: int | None = None
    device: str = "auto"
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
            positive_int(getattr(self, name), name)
        if self.patience is not None:
            positive_int(self.patience, "patience")
        for name in ("estimator", "replacement"):
            if (value := getattr(self, name)) is not None and not callable(value):
                raise TypeError(f"{name} must be callable or None, got {value!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    def run(
        self,
        quantizer: TableQuantizer,
        source: Source,
        *,
        validation: Array | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> History:
        """Train ``quantizer`` from the codebooks it has.

        Args:
            source: an array (n, d), of any size; a function of a ``torch.Generator`` that returns a batch; or an
                iterator of batches. The last two may be unbounded streams.
            validation: (nv, d); the codebooks with the lowest error on them are kept.
            seed: same seed, same machine, same threads: same result.

        Returns:
            The history; the quantizer is fitted and in the mode it was in.
        """
        if not isinstance(quantizer, TableQuantizer):
            raise TypeError(f"quantizer must be one with codebooks, got {type(quantizer).__name__}")
        positive_int(seed, "seed", low=0, high=2**63 - 1)
        valid = None if validation is None else to_numpy(validation, quantizer.dim, "validation", rows="nv")
        if valid is not None and not len(valid):
            raise ValueError("validation must have at least one row, got none")
        stream = batches(source, quantizer.dim, self.batch_size)
        device = self._device()
        home, was_training, own_estimator = quantizer.weight.device, quantizer.training, quantizer.estimator
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            quantizer.to(device).train()
            quantizer.estimator = self.estimator or own_estimator
            try:
                return _Run(self, quantizer, stream, valid, seed, progress).go()
            finally:
                quantizer.estimator = own_estimator
                quantizer.to(home).train(was_training)

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"device must be one that PyTorch can use here, got {self.device!r}: {error}") from error


@dataclass(frozen=True)
class TrainerPart:
    """A trainer as a part of a recipe: trains on the recipe's data, early stopping on its validation rows."""

    trainer: Trainer

    def __call__(self, quantizer: TableQuantizer, data: TrainingData) -> None:
        self.trainer.run(
            quantizer, data.train, validation=data.validation, seed=data.seed(1 << 16), progress=data.progress
        )


class _Run:
    """The state of one run of a trainer."""

    def __init__(
        self,
        trainer: Trainer,
        quantizer: TableQuantizer,
        stream: Batches,
        validation: F32 | None,
        seed: int,
        progress: bool,
    ) -> None:
        self.trainer, self.quantizer, self.stream = trainer, quantizer, stream
        self.validation, self.seed, self.progress = validation, seed, progress
        self.generator = torch.Generator().manual_seed(seed)
        self.history = History()
        self.step = 0
        self.scale = 0.0
        self.used = torch.zeros(len(quantizer.weight), dtype=torch.int64)
        self.chosen = torch.zeros(len(quantizer.weight), dtype=torch.int64)
        self.best = quantizer.weight.detach().clone()
        self.best_error = math.inf
        self.stale = 0
        self.optimizer = trainer.optimizer([quantizer.weight], trainer.learning_rate)

    def go(self) -> History:
        path = self.trainer.checkpoint
        if path is not None and Path(path).exists():
            self._resume(load_checkpoint(path))
        elif self.validation is not None:
            self._validate()
        steps = self.trainer.steps
        bar = self._bar()
        while self.step < steps and not self.history.stopped_early:
            self._one_step()
            bar.update()
            if self.validation is not None and (self.step % self.trainer.validate_every == 0 or self.step == steps):
                self._validate()
                bar.set_postfix(validation=f"{self.best_error:.4g}")
            if path is not None and (self.step % self.trainer.checkpoint_every == 0 or self.step == steps):
                save_checkpoint(path, self._checkpoint())
        bar.close()
        return self._finish()

    def _one_step(self) -> None:
        x = self.stream.next_batch(self.generator)
        if self.scale == 0.0:
            self.scale = float(x.square().mean().sqrt()) or 1.0
        x = x.to(self.quantizer.weight.device)
        lr = self.trainer.learning_rate * self.scale * self.trainer.schedule(self.step / self.trainer.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        out = self.quantizer(x)
        error = (out.xhat - x).square().sum(1).mean()
        self.optimizer.zero_grad()
        (error / self.scale).backward()
        self.optimizer.step()
        self.step += 1
        self.history.loss.append(error.item())
        self._count(out.codes.long().cpu())

    def _count(self, codes: Tensor) -> None:
        flat = codes + torch.as_tensor(self.quantizer.offsets[:-1])
        counts = torch.bincount(flat.reshape(-1), minlength=len(self.used))
        self.used += counts > 0
        self.chosen += counts
        self.history.usage_steps += 1
        replacement = self.trainer.replacement
        if replacement is None or not replacement.due(self.step, self.trainer.steps):
            return
        state = [
            t
            for t in self.optimizer.state[self.quantizer.weight].values()
            if isinstance(t, Tensor) and t.shape == self.quantizer.weight.shape
        ]
        replaced = replacement(self.quantizer, self.used, self.generator, state)
        self.used.zero_()
        self.chosen.zero_()
        self.history.usage_steps = 0
        self.history.replaced.append((self.step, replaced))
        if sum(replaced):
            log.info("step %d: replaced %s entries", self.step, replaced)

    @torch.no_grad()
    def _validate(self) -> None:
        assert self.validation is not None
        self.quantizer.mark_fitted()
        error = mean_error(self.quantizer, self.validation)
        self.history.validation.append((self.step, error))
        if error < self.best_error:
            self.best_error, self.stale, self.history.best_step = error, 0, self.step
            self.best = self.quantizer.weight.detach().clone()
            return
        self.stale += 1
        if self.trainer.patience is not None and self.stale >= self.trainer.patience:
            self.history.stopped_early = True

    @torch.no_grad()
    def _finish(self) -> History:
        if self.validation is not None:
            self.quantizer.weight.copy_(self.best)
        else:
            self.history.best_step = self.step
        self.quantizer.mark_fitted()
        self.history.usage = [
            self.chosen[a:b].tolist() for a, b in zip(self.quantizer.offsets, self.quantizer.offsets[1:], strict=False)
        ]
        return self.history

    def _bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self.trainer.steps,
            initial=self.step,
            desc="train",
            unit="step",
            disable=not self.progress,
            leave=False,
        )

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            scale=self.scale,
            best_error=self.best_error,
            stale=self.stale,
            history=replace(self.history),
            settings=self._settings(),
            tensors={
                "weight": self.quantizer.weight.detach(),
                "best": self.best,
                "used": self.used,
                "chosen": self.chosen,
                "generator": self.generator.get_state(),
                "torch_rng": torch.get_rng_state(),
                **({"cuda_rng": torch.cuda.get_rng_state()} if self.best.is_cuda else {}),
            },
            optimizer=self.optimizer.state_dict(),
        )

    def _settings(self) -> dict[str, object]:
        """What makes a run this one: a checkpoint of another is not gone on with."""
        trainer, validation = self.trainer, self.validation
        numbers = ("steps", "batch_size", "learning_rate", "validate_every", "patience")
        objects = {
            "estimator": self.quantizer.estimator,
            "optimizer": trainer.optimizer,
            "schedule": trainer.schedule,
            "replacement": trainer.replacement,
        }
        return {
            "quantizer": self.quantizer.config,
            "seed": self.seed,
            **{name: getattr(trainer, name) for name in numbers},
            **{name: _named(value) for name, value in objects.items()},
            "source": self.stream.fingerprint(),
            "validation": None if validation is None else [*validation.shape, sample_crc(validation)],
        }

    @torch.no_grad()
    def _resume(self, saved: Checkpoint) -> None:
        own = self._settings()
        if saved.settings != own:
            differ = sorted(name for name in {*own, *saved.settings} if own.get(name) != saved.settings.get(name))
            its, mine = ({name: settings.get(name) for name in differ} for settings in (saved.settings, own))
            raise ValueError(
                f"checkpoint is of another run: it has {its}, this run {mine}; delete it or name another file"
            )
        self.step, self.scale = saved.step, saved.scale
        self.best_error, self.stale, self.history = saved.best_error, saved.stale, saved.history
        self.quantizer.weight.copy_(saved.tensors["weight"])
        self.best = saved.tensors["best"].to(self.best.device)
        self.used, self.chosen = saved.tensors["used"], saved.tensors["chosen"]
        self.optimizer.load_state_dict(saved.optimizer)
        self.generator.set_state(saved.tensors["generator"])
        torch.set_rng_state(saved.tensors["torch_rng"])
        if "cuda_rng" in saved.tensors and self.best.is_cuda:
            torch.cuda.set_rng_state(saved.tensors["cuda_rng"])
        self.stream.skip(self.step)


def _named(value: Any) -> str:
    """An estimator, function or the like by its name and, where it has any, its settings."""
    return repr(value) if is_dataclass(value) else getattr(value, "__qualname__", type(value).__qualname__)
