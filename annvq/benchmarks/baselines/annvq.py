"""annvq's own quantizers in a flat index."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.benchmarks.baselines.base import Budget, check_options
from annvq.bits import NORM_BITS, codebook_bits
from annvq.complexity import norm_search
from annvq.indexes import FlatIndex
from annvq.kernels.encode import norm_rounds
from annvq.quantizers import Quantizer, TableQuantizer
from annvq.quantizers import make as make_quantizer
from annvq.quantizers.registry import pays_norm
from annvq.training.kmeans import KMeans, SubspaceKMeans
from annvq.training.parts import Alternate, LearnNormFree, Refit
from annvq.training.recipe import Part, Recipe, default_recipe
from annvq.training.rotation import LearnRotation
from annvq.training.trainer import TrainerPart
from annvq.types import F32

NAMES = ("product", "rotated-product", "residual", "additive")
_BOUNDS = ("steps", "effort")
_PASSED = ("norm_free", "beam", "rounds")  # to the quantizer


def bounded(quantizer: Quantizer, *, steps: int | None = None, effort: float | None = None) -> Recipe:
    """The default recipe, shortened.

    Args:
        steps: of its stochastic optimisation; None leaves them as they are.
        effort: share of the iterations of every part, or None for all of them.
    """
    recipe = default_recipe(quantizer)
    parts = [part if effort is None else _changed(part, partial(_shortened, effort=effort)) for part in recipe.parts]
    return replace(
        recipe, parts=[part if steps is None else _changed(part, partial(_stepped, steps=steps)) for part in parts]
    )


def _changed(part: Any, change: Callable[[Any], Any]) -> Part:
    """``part`` after ``change``, and likewise all parts within it."""
    if not _is_part(part):  # a plain function
        return part
    within: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if _is_part(value):
            within[field.name] = _changed(value, change)
        elif isinstance(value, tuple | list) and any(map(_is_part, value)):
            within[field.name] = [_changed(one, change) for one in value]
    changed: Part = change(replace(part, **within))
    return changed


def _is_part(value: Any) -> bool:
    return is_dataclass(value) and callable(value) and not isinstance(value, type)


def _stepped(part: Any, steps: int) -> Any:
    if isinstance(part, TrainerPart):
        return replace(part, trainer=replace(part.trainer, steps=steps))
    if isinstance(part, LearnRotation):
        return replace(part, steps=steps, race=min(part.race, steps))
    return part


def _shortened(part: Any, effort: float) -> Any:
    def less(count: int) -> int:
        return max(1, round(effort * count))

    if isinstance(part, TrainerPart):
        return _stepped(part, less(part.trainer.steps))
    if isinstance(part, LearnRotation):
        return replace(part, steps=less(part.steps), race=less(part.race), polish=less(part.polish))
    if isinstance(part, Alternate):
        return replace(part, plan=replace(part.plan, iterations=less(part.plan.iterations)))
    if isinstance(part, KMeans | SubspaceKMeans):
        return replace(part, iterations=less(part.iterations))
    if isinstance(part, Refit | LearnNormFree):
        return replace(part, rounds=less(part.rounds))
    return part


class Code:
    """A quantizer of annvq, searched by FlatIndex; ``bounds`` are those of :func:`bounded`."""

    def __init__(self, quantizer: TableQuantizer, metric: str, norm: Any, seed: int, bounds: dict[str, Any]) -> None:
        self.quantizer = quantizer
        self.bounds = bounds
        self.index = FlatIndex(quantizer, metric=metric, norm=norm)
        self.seed = seed
        self.config: dict[str, Any] = {
            "quantizer": quantizer.kind,
            **quantizer.config,
            "norm": self.index.norm,
            "recipe": ", ".join(["default", *(f"{n} {what}" for what, n in bounds.items() if n is not None)]),
        }

    def fit(self, learn: F32) -> None:
        self.quantizer.fit(learn, seed=self.seed, recipe=bounded(self.quantizer, **self.bounds))

    def add(self, x: F32) -> None:
        self.index.add(x)

    def decode(self, start: int, stop: int) -> F32:
        rows: F32 = self.index.reconstruct(np.arange(start, stop))
        return rows

    def search(self, queries: F32, k: int) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = self.index.search(queries, k)[1]
        return ids

    def bits_per_vector(self) -> float:
        return self.index.bits_per_vector

    def wmops(self) -> float | None:
        q, counts = self.quantizer, self.quantizer.costs()
        if self.index.norm == "uint8" and q.M > 1 and bool(q.weighs_norm):
            counts += norm_search(dim=q.dim, M=q.M, nbits=q.bits_per_codebook, rounds=norm_rounds(q.M))
        return counts.wmops()


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> Code:
    """An untrained quantizer.

    Options: ``nbits`` (at most, per codebook), ``norm``, ``norm_free``, ``beam``, ``rounds``, and of training
    ``steps`` and ``effort`` (see :func:`bounded`).
    """
    check_options(f"annvq.{name}", options, ("nbits", "norm", *_PASSED, *_BOUNDS))
    pays = pays_norm(name, budget.metric)
    needs_norm = pays and not options.get("norm_free", False)
    norm = options.get("norm", "auto")
    charged = NORM_BITS["uint8" if needs_norm else None] if norm == "auto" else NORM_BITS[norm]
    nbits = codebook_bits(name, budget.dim, budget.bits - charged, options.get("nbits", 8))
    # Where no code needs a norm there is none to be free of.
    extra = {option: options[option] for option in _PASSED if option in options and (pays or option != "norm_free")}
    quantizer = make_quantizer(
        name, dim=budget.dim, M=len(nbits), nbits=nbits[0] if len(set(nbits)) == 1 else nbits, **extra
    )
    assert isinstance(quantizer, TableQuantizer)
    return Code(quantizer, budget.metric, norm, seed, {name: options.get(name) for name in _BOUNDS})
