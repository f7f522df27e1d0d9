"""How far a recipe has come: what is learned so far in a file, to go on from."""

import math
import os
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annvq import storage
from annvq.arrays import dtype_name, sample_crc
from annvq.replacing import destination
from annvq.training.learn.shares import Alone
from annvq.training.model import Model
from annvq.types import Array

FORMAT, VERSIONS = "annvq.learning", (1,)


class Progress:
    """A file that has a quantizer as it is after so many parts of its recipe.

    Of several processes the first one reads and writes it. As many may go on as like: what is learned does not depend
    on their number.

    Args:
        path: of the file; there is none before the first part is done.
        quantizer: what is learned.
        x, seed, recipe: what it is learned from and by; a file of another run is refused.
        processes: those that learn it.
    """

    def __init__(
        self, path: str | os.PathLike[str], quantizer: Model, x: Array, seed: int, recipe: Any, processes: Alone
    ) -> None:
        self.path, self.quantizer, self.processes = Path(path), quantizer, processes
        destination(self.path)  # refused now and not after the first part
        self.run = {
            "quantizer": {"kind": type(quantizer).__name__, **quantizer.config},
            "recipe": described(recipe),
            "seed": seed,
            "vectors": [*map(int, x.shape), dtype_name(x), sample_crc(x)],
            "over_processes": processes.shared,
        }

    def resume(self) -> int:
        """Bring the quantizer to where the file says it was, and give the number of parts that are done.

        Raises:
            ValueError: the file is of another run.
            FormatError: it is something else.
        """
        stored = storage.read(self.path, FORMAT, VERSIONS) if self.processes.rank == 0 and self.path.exists() else None
        if stored is not None and stored.config["run"] != self.run:
            its = stored.config["run"]
            differ = [name for name in self.run if its.get(name) != self.run[name]]
            raise ValueError(
                f"checkpoint {self.path} is of another run, with another {', '.join(differ)}: delete it, or name "
                "another file"
            )
        done = np.array([0 if stored is None else stored.config["done"]], np.int64)
        parts = int(self.processes.led(lambda: done, (1,), np.int64)[0])
        if not parts:
            return 0
        arrays: dict[str, npt.NDArray[Any]] = (
            {} if stored is None else {n: np.array(a) for n, a in stored.tensors.items()}
        )
        states = {name: t.detach().cpu().numpy() for name, t in self.quantizer.state_dict().items()}
        states["torch_rng"] = torch.get_rng_state().numpy()
        told = {
            name: torch.from_numpy(self.processes.led(partial(arrays.__getitem__, name), own.shape, own.dtype))
            for name, own in states.items()
        }
        torch.set_rng_state(told.pop("torch_rng"))
        self.quantizer.load_state_dict(told)
        return parts

    def keep(self, done: int) -> None:
        """Write the quantizer as it is after ``done`` parts, atomically."""
        if self.processes.rank:
            return
        arrays = {name: t.detach().cpu().numpy() for name, t in self.quantizer.state_dict().items()}
        arrays["torch_rng"] = torch.get_rng_state().numpy()
        storage.write(self.path, FORMAT, VERSIONS[-1], {"run": self.run, "done": done}, arrays)


def described(value: Any) -> Any:
    """A recipe, a part or a setting of one as JSON holds it, the same in every process."""
    if is_dataclass(value):
        settings = {field.name: described(getattr(value, field.name)) for field in fields(value) if field.repr}
        return {"is": type(value).__qualname__, **settings}
    if isinstance(value, list | tuple):
        return [described(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def follow_first(tensors: Iterable[Tensor], processes: Alone) -> None:
    """Give tensors, parameters or others, the values that they have in the first process."""
    for tensor in tensors:
        own = tensor.detach().cpu().numpy()
        told = processes.led(partial(_same, own), own.shape, own.dtype)
        if processes.rank:
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(told))


def _same(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array
