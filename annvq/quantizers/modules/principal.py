"""Codes of sub-spaces of principal axes, learned: in seconds, and the better the more dimensions there are."""

from collections.abc import Mapping, Sequence
from typing import Any

from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.maps import TRANSFORMS
from annvq.quantizers.modules.product import ProductVQ
from annvq.quantizers.modules.product_additive import ProductAdditiveVQ
from annvq.quantizers.modules.registry import register
from annvq.quantizers.modules.transformed import AXES_KMEANS, Transformed, principal_recipe
from annvq.quantizers.principal import (
    EMPHASIS,
    PrincipalAdditiveCoder,
    PrincipalProductCoder,
    check_emphasis,
    map_of,
)
from annvq.quantizers.product_additive import MANY_GROUPS
from annvq.training.estimators import Estimator
from annvq.training.groups import EachGroup
from annvq.training.learn.alternating import Alternation
from annvq.training.parts import Alternate, KMeans
from annvq.training.recipe import Part, Recipe
from annvq.types import Self

GENTLE = Alternation(iterations=6, rounds=4, temperature=0.3)
"""From residual codebooks: axes of a group differ much in variance, so that these are near the best already."""

ROUNDS, ROUNDS_OF_MANY = 32, 8
"""Of local search, unless the caller says so: few where there are many groups, whose codes then take as long as those
of half as many, with .3 % more error."""


class _Principal(Transformed):
    """What both have in common."""

    inner_part: Part

    def _set_up(self, quantizer: TableQuantizer, emphasis: float, estimator: Estimator | None) -> None:
        checked = check_emphasis(emphasis)
        Transformed.__init__(self, TRANSFORMS[map_of(checked)](quantizer.dim), quantizer, estimator=estimator)
        self.emphasis = checked

    def default_recipe(self) -> Recipe:
        return principal_recipe(self.inner_part, self.emphasis)


@register("principal-product")
class PrincipalProductVQ(PrincipalProductCoder, _Principal):
    """Product quantization of principal axes: the parametric solution of optimized product quantization (Ge, He, Ke and
    Sun, TPAMI 2014, section 3.2). Learned in seconds.

    With ``emphasis`` above zero distances under l2 need a norm byte, as for additive codes; under ip and cosine nothing
    is stored beside the code.

    Args:
        dim: d.
        M: codebooks, at most d.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        emphasis: in [0, 1]: how much more errors count along axes of much variance, where inner products of queries
            like the data vary most. 0: a rotation, and the least ‖x − x̂‖².
        estimator: how gradients pass in training mode; default NSVQ.
    """

    inner_part = AXES_KMEANS

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        emphasis: float = EMPHASIS,
        estimator: Estimator | None = None,
    ) -> None:
        self._set_up(ProductVQ(dim, M, nbits), emphasis, estimator)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)


@register("principal-additive")
class PrincipalAdditiveVQ(PrincipalAdditiveCoder, _Principal):
    """Additive codes in groups of principal axes: more recall at equal bits than product codes, for slower encoding.

    Args:
        dim: d.
        M: codebooks in all, divisible by ``groups``.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        groups: of dimensions and codebooks; default: see :class:`~annvq.ProductAdditiveVQ`.
        beam, rounds: as for :class:`~annvq.AdditiveVQ`, within each group; default rounds: 32, of more than 8 groups 8.
        emphasis: as for :class:`PrincipalProductVQ`.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    inner_part = EachGroup((KMeans(8), Alternate(GENTLE, warm=True)))

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        groups: int | None = None,
        beam: int = 8,
        rounds: int | None = None,
        emphasis: float = EMPHASIS,
        estimator: Estimator | None = None,
        norm_free: bool = False,
    ) -> None:
        inner = ProductAdditiveVQ(dim, M, nbits, groups=groups, beam=beam, rounds=rounds or 0, norm_free=norm_free)
        if rounds is None:
            inner.rounds = ROUNDS if inner.groups <= MANY_GROUPS else ROUNDS_OF_MANY
        self._set_up(inner, emphasis, estimator)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)
