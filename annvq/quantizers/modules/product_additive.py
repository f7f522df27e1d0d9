"""Product-additive quantization, learned: groups of dimensions, each quantized by an additive code of its own."""

from collections.abc import Sequence

from annvq.quantizers.modules.additive import AdditiveVQ
from annvq.quantizers.modules.registry import register
from annvq.quantizers.product_additive import ProductAdditiveCoder
from annvq.training.estimators import Estimator
from annvq.training.groups import EachGroup
from annvq.training.recipe import Recipe


@register("product-additive")
class ProductAdditiveVQ(ProductAdditiveCoder, AdditiveVQ):
    """x̂ = [x̂₀, …, x̂_{G−1}], each x̂_g a sum of M/G entries over d/G dimensions (or one more or less).

    Product codes are the case of one codebook a group, additive codes that of one group. In between, codebooks of many
    bits stay quick to learn and to encode by: costs grow with the square of a group's codebooks, not of all. Behind a
    map that deals variance out to the groups (:class:`~annvq.PrincipalAdditiveVQ`) little is lost by them.

    FAISS has such products as ``ProductResidualQuantizer`` and ``ProductLocalSearchQuantizer``.

    Args:
        dim: d.
        M: codebooks in all, divisible by ``groups``.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        groups: G, at most d; default: the fewest that divide d and M and have at most 8 codebooks each.
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
        ProductAdditiveCoder.__init__(self, dim, M, nbits, groups=groups, beam=beam, rounds=rounds, norm_free=norm_free)
        self._take_estimator(estimator)

    def group_models(self) -> list[AdditiveVQ]:
        """An unfitted additive quantizer for each group, of its dimensions and codebooks."""
        return [AdditiveVQ(**config, estimator=self.estimator) for config in self.group_configs()]

    def default_recipe(self) -> Recipe:
        """Each group as an additive quantizer of its own."""
        return Recipe((EachGroup(),))
