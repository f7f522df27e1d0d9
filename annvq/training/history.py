"""What happened in training, as data: to save, plot and compare."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from annvq import storage
from annvq.errors import FormatError
from annvq.paths import check_path
from annvq.training.plots import plot_training


@dataclass
class History:
    """The course of one training run. Errors are mean ‖x − x̂‖² per vector, in the data's own units.

    Attributes:
        loss: training loss of every step.
        validation: (step, error on the validation vectors).
        replaced: (step, replaced entries of each codebook).
        usage: for each codebook, how often each entry was chosen in the last ``usage_steps`` steps.
        best_step: the step whose codebooks were kept.
        stopped_early: training ended before its last step because validation no longer improved.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    replaced: list[tuple[int, list[int]]] = field(default_factory=list)
    usage: list[list[int]] = field(default_factory=list)
    usage_steps: int = 0
    best_step: int = 0
    stopped_early: bool = False

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically."""
        storage.write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "History":
        """The inverse of :meth:`save`; FormatError where the file is something else."""
        name = check_path(path, "path")
        try:
            return cls.from_dict(json.loads(Path(name).read_text()))
        except (ValueError, TypeError, KeyError) as e:
            raise FormatError(f"{name} is not a training history: {e}") from None

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> "History":
        """From what ``dataclasses.asdict`` gave, after JSON has turned tuples into lists."""
        history = cls(**data)  # type: ignore[arg-type]
        history.validation = [(int(s), float(v)) for s, v in history.validation]
        history.replaced = [(int(s), [int(c) for c in counts]) for s, counts in history.replaced]
        return history

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Loss, validation, usage per codebook and replaced entries over time, as one PNG or PDF."""
        plot_training(
            check_path(path, "path"),
            loss=self.loss,
            validation=self.validation,
            replaced=self.replaced,
            usage=self.usage,
            usage_steps=self.usage_steps,
            best_step=self.best_step,
        )
