"""Product-additive quantization: groups of dimensions, each quantized by an additive code of its own."""

from collections.abc import Sequence
from typing import Any

from annvq.arrays import positive_int
from annvq.complexity import OperationCounts
from annvq.quantizers.additive import AdditiveVQ
from annvq.quantizers.registry import register
from annvq.quantizers.sums import SumQuantizer
from annvq.training.estimators import Estimator
from annvq.training.groups import EachGroup
from annvq.training.recipe import Recipe

TOGETHER = 8
"""Codebooks of a group unless the caller says otherwise."""


@register("product-additive")
class ProductAdditiveVQ(AdditiveVQ):
    """x̂ = [x̂₀, …, x̂_{G−1}], each x̂_g a sum of M/G entries over d/G dimensions.

    Product codes are the case of one codebook a group, additive codes that of one group. In between, codebooks of many
    bits stay quick to learn and to encode by: costs grow with the square of a group's codebooks, not of all. Behind a
    rotation that spreads the variance (:class:`~annvq.RotatedProductAdditiveVQ`) little is lost by the groups.

    Martinez, Zakhmi, Hoos and Little, "LSQ++", ECCV 2018, are the additive codes; the product of such codes is FAISS'
    ``ProductLocalSearchQuantizer``.

    Args:
        dim: d, divisible by ``groups``.
        M: codebooks in all, divisible by ``groups``.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        groups: G; default: as many as give groups of 8 codebooks, or fewer where d or M cannot be divided so.
        beam, rounds, norm_free: as for :class:`AdditiveVQ`, within each group.
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
        rounds: int = 64,
        norm_free: bool = False,
        estimator: Estimator | None = None,
    ) -> None:
        dim, M = positive_int(dim, "dim", high=1 << 20), positive_int(M, "M", high=1024)
        self.groups = default_groups(dim, M) if groups is None else positive_int(groups, "groups")
        if dim % self.groups or M % self.groups:
            fit = [g for g in range(1, min(dim, M) + 1) if dim % g == 0 and M % g == 0]
            raise ValueError(f"groups must divide dim={dim} and M={M}, got {self.groups}; groups that fit: {fit}")
        SumQuantizer.__init__(self, dim, M, nbits, beam, norm_free, estimator, groups=self.groups)
        self.rounds = positive_int(rounds, "rounds", low=0, high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "groups": self.groups}

    def group_models(self) -> list[AdditiveVQ]:
        """An unfitted additive quantizer for each group, of its dimensions and codebooks."""
        together, bits = self.M // self.groups, self.bits_per_codebook
        return [
            AdditiveVQ(
                self.width,
                together,
                bits[m : m + together],
                beam=self.beam,
                rounds=self.rounds,
                norm_free=self.norm_free,
                estimator=self.estimator,
            )
            for m in range(0, self.M, together)
        ]

    def costs(self) -> OperationCounts:
        total = OperationCounts()
        for model in self.group_models():
            total += model.costs()
        return total

    def default_recipe(self) -> Recipe:
        """Each group as an additive quantizer of its own."""
        return Recipe((EachGroup(),))


def default_groups(dim: int, M: int) -> int:
    """The fewest groups that divide ``dim`` and ``M`` with at most :data:`TOGETHER` codebooks in each."""
    return next(g for g in range(1, M + 1) if (dim % g == 0 and M % g == 0 and M // g <= TOGETHER) or g == M)
