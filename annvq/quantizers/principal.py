"""Codes of sub-spaces of principal axes: learned in seconds, and the better the more dimensions there are."""

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Self

from annvq.quantizers.maps import LinearMap, Rotation
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.product_additive import ProductAdditiveVQ
from annvq.quantizers.registry import register
from annvq.quantizers.tables import TableQuantizer
from annvq.quantizers.transformed import Transformed
from annvq.training.estimators import Estimator
from annvq.training.groups import EachGroup
from annvq.training.learn.alternating import Alternation
from annvq.training.maps import Inside, PrincipalAxes
from annvq.training.parts import Alternate, KMeans
from annvq.training.recipe import Part, Recipe

EMPHASIS = 0.5
"""See PrincipalAxes: the best of 0, 0.25, 0.5 on sentence embeddings at 48 bytes."""

MAX_ROWS = 1 << 16
"""Learn vectors that are used; more bring little and cost minutes."""


class _Principal(Transformed):
    """What both have in common."""

    needs_norm = True

    def __init__(self, quantizer: TableQuantizer, emphasis: float, estimator: Estimator | None) -> None:
        if isinstance(emphasis, bool) or not isinstance(emphasis, int | float):
            raise TypeError(f"emphasis must be a number, got {emphasis!r}")
        if not 0 <= emphasis <= 1:
            raise ValueError(f"emphasis must be between 0 and 1, got {emphasis!r}")
        self_map = LinearMap(quantizer.dim) if emphasis else Rotation(quantizer.dim)
        super().__init__(self_map, quantizer, estimator=estimator)
        self.emphasis = float(emphasis)

    @property
    def config(self) -> dict[str, Any]:
        return {**self.quantizer.config, "emphasis": self.emphasis}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)

    def default_recipe(self) -> Recipe:
        return Recipe((PrincipalAxes(self.emphasis), Inside(self._inner_part())), max_rows=MAX_ROWS)

    def _inner_part(self) -> Part:
        raise NotImplementedError


@register("principal-product")
class PrincipalProductVQ(_Principal):
    """Product quantization of principal axes: the parametric solution of optimized product quantization (Ge, He, Ke and
    Sun, TPAMI 2014, section 3.2), with axes of much variance emphasised. Learned in seconds.

    With ``emphasis`` above zero distances under l2 need a norm byte, as for additive codes; under ip and cosine nothing
    is stored beside the code.

    Args:
        dim: d, divisible by M.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        emphasis: in [0, 1]: how much more errors count along axes of much variance, where inner products of queries
            like the data vary most. 0: a rotation, and the least ‖x − x̂‖².
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        emphasis: float = EMPHASIS,
        estimator: Estimator | None = None,
    ) -> None:
        super().__init__(ProductVQ(dim, M, nbits), emphasis, estimator)

    def _inner_part(self) -> Part:
        return KMeans(15)


@register("principal-additive")
class PrincipalAdditiveVQ(_Principal):
    """Additive codes in groups of principal axes: more recall at equal bits than product codes, for slower encoding.

    Args:
        dim: d, divisible by ``groups``.
        M: codebooks in all, divisible by ``groups``.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        groups: of dimensions and codebooks; default: see :class:`~annvq.ProductAdditiveVQ`.
        beam, rounds: as for :class:`~annvq.AdditiveVQ`, within each group.
        emphasis: as for :class:`PrincipalProductVQ`.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        groups: int | None = None,
        beam: int = 8,
        rounds: int = 32,
        emphasis: float = EMPHASIS,
        estimator: Estimator | None = None,
    ) -> None:
        inner = ProductAdditiveVQ(dim, M, nbits, groups=groups, beam=beam, rounds=rounds)
        super().__init__(inner, emphasis, estimator)

    def _inner_part(self) -> Part:
        return EachGroup((KMeans(8), Alternate(GENTLE, warm=True)))


GENTLE = Alternation(iterations=6, rounds=4, temperature=0.3)
"""From residual codebooks: axes of a group differ much in variance, so that these are near the best already."""
