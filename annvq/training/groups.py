"""A recipe part for quantizers of groups of dimensions: each group learned as a quantizer of its own."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from annvq.training.data import TrainingData
from annvq.training.model import GroupedModel
from annvq.training.recipe import Inner, Part


@dataclass(frozen=True)
class EachGroup:
    """Learn every group of codebooks on its own dimensions.

    Args:
        parts: done for each group; None: those of the group's own default recipe.
    """

    over_processes: ClassVar[bool] = True

    parts: Sequence[Part] | None = None

    def inner(self, quantizer: GroupedModel) -> Inner:
        """The parts that this one does."""
        return [(part, model) for model in quantizer.group_models() for part in self._parts_of(model)]

    def _parts_of(self, model: Any) -> Sequence[Part]:
        parts: Sequence[Part] = model.default_recipe().parts if self.parts is None else self.parts
        return parts

    def __call__(self, quantizer: GroupedModel, data: TrainingData) -> None:
        books = []
        models = quantizer.group_models()
        ends = itertools.accumulate(model.dim for model in models)
        for g, (model, end) in enumerate(zip(models, ends, strict=True)):
            dims = slice(end - model.dim, end)
            own = replace(
                data,
                train=np.ascontiguousarray(data.train[:, dims]),
                validation=np.ascontiguousarray(data.validation[:, dims]),
                base_seed=data.seed(1 << 22, g),
            )
            for part in self._parts_of(model):
                part(model, own)
            books += np.split(model.codebooks_copy(), model.offsets[1:-1])
        quantizer.set_codebooks(books)
