"""Codes of sub-spaces of principal axes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from annvq.quantizers.product import ProductCoder
from annvq.quantizers.product_additive import ProductAdditiveCoder
from annvq.quantizers.tables import TableCoder
from annvq.quantizers.transformed import StoredMap, TransformedCoder
from annvq.types import Self

EMPHASIS = 0.0
"""See :class:`~annvq.training.PrincipalAxes`; docs/log/performance.md has what it brought. 0 needs no norm under l2."""


def check_emphasis(value: Any) -> float:
    """``value`` as a number in [0, 1]; TypeError or ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"emphasis must be a number, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"emphasis must be between 0 and 1, got {value!r}")
    return float(value)


def map_of(emphasis: float) -> str:
    """The kind of map: axes that are stretched are behind no rotation."""
    return "linear" if emphasis else "rotation"


class PrincipalProductCoder(TransformedCoder):
    """Product codes of principal axes: see :class:`~annvq.PrincipalProductVQ`."""

    kind: ClassVar[str] = "principal-product"
    inner: ClassVar[type[TableCoder]] = ProductCoder

    needs_norm = False
    emphasis: float = EMPHASIS

    @property
    def config(self) -> dict[str, Any]:
        return {**self.quantizer.config, "emphasis": self.emphasis}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        rest = dict(config)
        emphasis = check_emphasis(rest.pop("emphasis", EMPHASIS))
        inner = cls.inner.from_config(rest)
        coder = cls(StoredMap(map_of(emphasis), inner.dim), inner)
        coder.emphasis = emphasis
        return coder


class PrincipalAdditiveCoder(PrincipalProductCoder):
    """Additive codes of groups of principal axes: see :class:`~annvq.PrincipalAdditiveVQ`."""

    kind = "principal-additive"
    needs_norm = True
    inner = ProductAdditiveCoder
