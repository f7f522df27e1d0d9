"""Training checkpoints: everything a run needs to go on bit for bit, without pickle."""

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annvq import storage
from annvq.training.history import History

FORMAT, VERSIONS = "annvq.checkpoint", (1,)


@dataclass
class Checkpoint:
    """The state of a run after ``step`` steps."""

    step: int
    scale: float
    best_error: float
    stale: int
    history: History
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]


def _flatten(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON holds it; its tensors go to ``tensors``, replaced by their names."""
    if isinstance(value, Tensor):
        tensors[at] = value
        return {"tensor": at}
    if isinstance(value, dict):
        return {"items": [[k, _flatten(v, f"{at}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_flatten(v, f"{at}.{i}", tensors) for i, v in enumerate(value)]}
    return {"value": value}


def _unflatten(node: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "items" in node:
        return {k: _unflatten(v, tensors) for k, v in node["items"]}
    if "list" in node:
        return [_unflatten(v, tensors) for v in node["list"]]
    return node["value"]


def save_checkpoint(path: str | os.PathLike[str], state: Checkpoint) -> None:
    """Write atomically."""
    tensors = dict(state.tensors)
    optimizer = _flatten(state.optimizer, "optimizer", tensors)
    config = {
        "step": state.step,
        "scale": state.scale,
        "best_error": None if np.isinf(state.best_error) else state.best_error,
        "stale": state.stale,
        "history": asdict(state.history),
        "settings": state.settings,
        "optimizer": optimizer,
    }
    storage.write(path, FORMAT, VERSIONS[-1], config, {k: v.detach().cpu().numpy() for k, v in tensors.items()})


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote; FormatError where the file is something else."""
    stored = storage.read(path, FORMAT, VERSIONS)
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in stored.tensors.items()}
    config = stored.config
    return Checkpoint(
        step=config["step"],
        scale=config["scale"],
        best_error=np.inf if config["best_error"] is None else config["best_error"],
        stale=config["stale"],
        history=History.from_dict(config["history"]),
        settings=config["settings"],
        tensors={k: v for k, v in tensors.items() if not k.startswith("optimizer")},
        optimizer=_unflatten(config["optimizer"], tensors),
    )
