"""Stochastic optimisation of codebooks: the open form behind ``fit``."""

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from tqdm import tqdm

from annvq.arrays import positive_int, sample_crc, to_numpy
from annvq.paths import check_path
from annvq.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from annvq.training.data import TrainingData, mean_error
from annvq.training.devices import torch_device
from annvq.training.estimators import Estimator
from annvq.training.history import History
from annvq.training.learn.shares import ALONE, Alone, check_processes
from annvq.training.model import CodebookModel, Model
from annvq.training.progress import follow_first
from annvq.training.replacement import Replacement
from annvq.training.sources import Batches, SharedBatches, Source, batches
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
        if self.checkpoint is not None:
            check_path(self.checkpoint, "checkpoint")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    def run(
        self,
        quantizer: Model,
        source: Source,
        *,
        validation: Array | None = None,
        seed: int = 0,
        progress: bool = False,
        processes: Alone = ALONE,
    ) -> History:
        """Train ``quantizer`` from the codebooks it has.

        Args:
            source: an array (n, d), of any size; a function of a ``torch.Generator`` that returns a batch; or an
                iterator of batches. The last two may be unbounded streams.
            validation: (nv, d); the codebooks with the lowest error on them are kept.
            seed: same seed, same machine, same threads: same result.
            processes: those that train together, each with its share of the source and of the validation vectors,
                arrays both. A step's batch is drawn from all rows; each process finds the codes of its share of it, and
                takes the first one's codebooks.

        Returns:
            The history; the quantizer is fitted and in the mode it was in.
        """
        if not hasattr(quantizer, "trained_parameters"):
            raise TypeError(f"quantizer must be an annvq Quantizer, got {type(quantizer).__name__}")
        if self.replacement is not None and not hasattr(quantizer, "weight"):
            raise TypeError(f"replacement needs a quantizer with codebooks, got {type(quantizer).__name__}")
        positive_int(seed, "seed", low=0, high=2**63 - 1)
        if check_processes(processes).shared and self.checkpoint is not None:
            raise ValueError("checkpoint must be None over several processes; give fit one")
        valid = None if validation is None else to_numpy(validation, quantizer.dim, "validation", rows="nv")
        if valid is not None and not processes.span(len(valid))[1]:
            raise ValueError("validation must have at least one row, got none")
        if processes.shared:
            own = to_numpy(cast(Array, source), quantizer.dim, "source")
            stream: Batches = SharedBatches(own, self.batch_size, processes)
        else:
            stream = batches(source, quantizer.dim, self.batch_size)
        device = torch_device(self.device)
        home, was_training, own_estimator = quantizer.fitted.device, quantizer.training, quantizer.estimator
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            quantizer.to(device).train()
            quantizer.estimator = self.estimator or own_estimator
            try:
                return _Run(self, quantizer, stream, valid, seed, progress, processes).go()
            finally:
                quantizer.estimator = own_estimator
                quantizer.to(home).train(was_training)


@dataclass(frozen=True)
class TrainerPart:
    """A trainer as a part of a recipe: trains on the recipe's data, early stopping on its validation rows."""

    over_processes: ClassVar[bool] = True

    trainer: Trainer

    def __call__(self, quantizer: Model, data: TrainingData) -> None:
        self.trainer.run(
            quantizer,
            data.train,
            validation=data.validation,
            seed=data.seed(1 << 16),
            progress=data.progress,
            processes=data.processes,
        )


class _Run:
    """The state of one run of a trainer."""

    def __init__(
        self,
        trainer: Trainer,
        quantizer: Model,
        stream: Batches,
        validation: F32 | None,
        seed: int,
        progress: bool,
        processes: Alone,
    ) -> None:
        self.trainer, self.quantizer, self.stream, self.processes = trainer, quantizer, stream, processes
        self.validation, self.seed, self.progress = validation, seed, progress
        self.generator = torch.Generator().manual_seed(seed)
        self.history = History()
        self.step = 0
        self.scale = 0.0
        self.parameters = quantizer.trained_parameters()
        self.first = [0, *itertools.accumulate(quantizer.sizes)]  # entries are counted codebook after codebook
        self.used = torch.zeros(self.first[-1], dtype=torch.int64)
        self.chosen = torch.zeros(self.first[-1], dtype=torch.int64)
        self.best = self._values()
        self.best_error = math.inf
        self.stale = 0
        self.optimizer = trainer.optimizer(self.parameters, trainer.learning_rate)

    def _values(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

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
        x = x.to(self.quantizer.fitted.device)
        lr = self.trainer.learning_rate * self.scale * self.trainer.schedule(self.step / self.trainer.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        out = self.quantizer(x, self._codes_together(x))
        error = (out.xhat - x).square().sum(1).mean()
        self.optimizer.zero_grad()
        (error / self.scale).backward()
        self.optimizer.step()
        self.step += 1
        self.history.loss.append(error.item())
        self._count(out.codes.long().cpu())
        if self.processes.shared:
            follow_first(self.parameters, self.processes)

    def _codes_together(self, x: Tensor) -> Tensor | None:
        """Codes (b, M) of a batch, each process having found those of its share; None: the quantizer finds them."""
        if not self.processes.shared:
            return None
        own = self.quantizer.encode_rows(x[self.processes.share(len(x))].cpu().numpy())
        return torch.from_numpy(self.processes.joined(own, len(x)).astype(np.int64)).to(x.device)

    def _count(self, codes: Tensor) -> None:
        flat = codes + torch.as_tensor(self.first[:-1])
        counts = torch.bincount(flat.reshape(-1), minlength=len(self.used))
        self.used += counts > 0
        self.chosen += counts
        self.history.usage_steps += 1
        replacement = self.trainer.replacement
        if replacement is None or not replacement.due(self.step, self.trainer.steps):
            return
        model = cast(CodebookModel, self.quantizer)
        moments = self.optimizer.state[model.weight].values()
        state = [t for t in moments if isinstance(t, Tensor) and t.shape == model.weight.shape]
        replaced = replacement(model, self.used, self.generator, state)
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
        error = mean_error(self.quantizer, self.validation, self.processes)
        self.history.validation.append((self.step, error))
        if error < self.best_error:
            self.best_error, self.stale, self.history.best_step = error, 0, self.step
            self.best = self._values()
            return
        self.stale += 1
        if self.trainer.patience is not None and self.stale >= self.trainer.patience:
            self.history.stopped_early = True

    @torch.no_grad()
    def _finish(self) -> History:
        if self.validation is not None:
            self._take(self.best)
        else:
            self.history.best_step = self.step
        self.quantizer.mark_fitted()
        self.history.usage = [self.chosen[a:b].tolist() for a, b in itertools.pairwise(self.first)]
        return self.history

    def _take(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def _bar(self) -> Any:
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
                **_named_tensors("weight", self.parameters),
                **_named_tensors("best", self.best),
                "used": self.used,
                "chosen": self.chosen,
                "generator": self.generator.get_state(),
                "torch_rng": torch.get_rng_state(),
                **({"cuda_rng": torch.cuda.get_rng_state()} if self.best[0].is_cuda else {}),
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
        self._take([saved.tensors[name] for name in _named_tensors("weight", self.parameters)])
        self.best = [saved.tensors[name].to(b.device) for name, b in _named_tensors("best", self.best).items()]
        self.used, self.chosen = saved.tensors["used"], saved.tensors["chosen"]
        self.optimizer.load_state_dict(saved.optimizer)
        self.generator.set_state(saved.tensors["generator"])
        torch.set_rng_state(saved.tensors["torch_rng"])
        if "cuda_rng" in saved.tensors and self.best[0].is_cuda:
            torch.cuda.set_rng_state(saved.tensors["cuda_rng"])
        self.stream.skip(self.step)


def _named_tensors(name: str, values: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that checkpoints have: ``name``, ``name.1``, ``name.2``, …"""
    return {f"{name}.{i}" if i else name: value.detach() for i, value in enumerate(values)}


def nsvq_part(steps: int, patience: int = 3) -> TrainerPart:
    """Stochastic optimisation after a warm start: small steps, replacement of entries that fall out of use."""
    every = max(5, steps // 4)
    return TrainerPart(
        Trainer(steps=steps, batch_size=1024, replacement=Replacement(), validate_every=every, patience=patience)
    )


def _named(value: Any) -> str:
    """An estimator, function or the like by its name and, where it has any, its settings."""
    return repr(value) if is_dataclass(value) else getattr(value, "__qualname__", type(value).__qualname__)
