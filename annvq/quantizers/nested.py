"""Coders of parts that have arrays of their own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from annvq.quantizers.coder import Coder, Shapes
from annvq.types import Self


class Nested(Coder):
    """A coder some of whose attributes are coders, or maps, whose arrays files know by the attribute's name, a dot and
    their own."""

    part_names: ClassVar[tuple[str, ...]]

    def _parts_by_prefix(self) -> list[tuple[str, Any]]:
        return [(f"{name}.", getattr(self, name)) for name in self.part_names]

    def shapes(self) -> Shapes:
        inside = {p + name: shape for p, part in self._parts_by_prefix() for name, shape in part.shapes().items()}
        return super().shapes() | inside

    def fill(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        super().fill(arrays)
        for prefix, part in self._parts_by_prefix():
            part.fill({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
        return self

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        inside = {p + name: array for p, part in self._parts_by_prefix() for name, array in part._arrays().items()}
        return super()._arrays() | inside
