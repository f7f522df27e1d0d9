"""annvq's own quantizers in a flat index."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.benchmarks.baselines.base import F32, Budget, check_options, split_bits
from annvq.complexity import NORM_BITS
from annvq.indexes import FlatIndex
from annvq.quantizers import Quantizer, TableQuantizer
from annvq.quantizers import make as make_quantizer
from annvq.training.recipe import Recipe, default_recipe
from annvq.training.trainer import TrainerPart

NAMES = ("product", "residual", "additive")
_CHUNK = 1 << 16


def with_steps(quantizer: Quantizer, steps: int | None) -> Recipe:
    """The default recipe, its stochastic optimisation bounded to ``steps`` batches unless that is None."""
    recipe = default_recipe(quantizer)
    if steps is None:
        return recipe
    parts = [
        replace(part, trainer=replace(part.trainer, steps=steps)) if isinstance(part, TrainerPart) else part
        for part in recipe.parts
    ]
    return replace(recipe, parts=parts)


class Code:
    """A quantizer of annvq, searched by FlatIndex.

    ``steps`` bounds the stochastic optimisation of the default recipe; None leaves it as it is.
    """

    def __init__(self, quantizer: TableQuantizer, metric: str, norm: Any, seed: int, steps: int | None) -> None:
        self.quantizer = quantizer
        self.steps = steps
        self.index = FlatIndex(quantizer, metric=metric, norm=norm)
        self.seed = seed
        self.config: dict[str, Any] = {
            "quantizer": quantizer.kind,
            **quantizer.config,
            "norm": self.index.norm,
            "recipe": "default" if steps is None else f"default, {steps} steps",
        }

    def fit(self, learn: F32) -> None:
        self.quantizer.fit(learn, seed=self.seed, recipe=with_steps(self.quantizer, self.steps))

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
        return self.quantizer.costs().wmops()


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> Code:
    """An untrained quantizer; options: ``nbits`` (at most, per codebook), ``norm``, ``beam``, ``steps``."""
    check_options(f"annvq.{name}", options, ("nbits", "norm", "beam", "steps"))
    needs_norm = name != "product" and budget.metric == "l2"
    norm = options.get("norm", "auto")
    charged = NORM_BITS["uint8" if needs_norm else None] if norm == "auto" else NORM_BITS[norm]
    nbits = split_bits(budget.bits - charged, options.get("nbits", 8))
    extra = {"beam": options["beam"]} if "beam" in options else {}
    quantizer = make_quantizer(
        name, dim=budget.dim, M=len(nbits), nbits=nbits[0] if len(set(nbits)) == 1 else nbits, **extra
    )
    assert isinstance(quantizer, TableQuantizer)
    return Code(quantizer, budget.metric, norm, seed, options.get("steps"))
