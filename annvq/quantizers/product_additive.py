"""Product-additive codes: groups of dimensions, each with an additive code of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from annvq.arrays import positive_int
from annvq.complexity import OperationCounts
from annvq.norms import Length
from annvq.quantizers.additive import AdditiveCoder
from annvq.quantizers.codes import MAX_M
from annvq.quantizers.lengths import codes_of_length
from annvq.quantizers.sums import SumCoder
from annvq.types import F32, Codes

TOGETHER = 8
"""Codebooks of a group unless the caller says otherwise."""
MANY = 64
"""More codebooks than this are not one group unless the caller says so: learning them would take long."""
MANY_GROUPS = 8
"""Of more groups than this codes of a length are searched for from those found before, in less time and with a little
more error (docs/log/performance.md)."""


class ProductAdditiveCoder(AdditiveCoder):
    """x̂ = [x̂₀, …, x̂_{G−1}], each x̂_g a sum of M/G entries over d/G dimensions: see
    :class:`~annvq.ProductAdditiveVQ`."""

    kind = "product-additive"

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
    ) -> None:
        dim, M = positive_int(dim, "dim", high=1 << 20), positive_int(M, "M", high=MAX_M)
        self.groups = default_groups(dim, M) if groups is None else positive_int(groups, "groups")
        if M % self.groups or self.groups > dim:
            fit = [g for g in range(1, min(dim, M) + 1) if M % g == 0]
            raise ValueError(f"groups must divide M={M} and be at most dim={dim}, got {self.groups}; those are {fit}")
        SumCoder.__init__(self, dim, M, nbits, beam, norm_free, groups=self.groups)
        self.rounds = positive_int(rounds, "rounds", low=0, high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "groups": self.groups}

    def costs(self) -> OperationCounts:
        total = OperationCounts()
        for config in self.group_configs():
            total += AdditiveCoder(**config).costs()
        return total

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        books = self.books()
        alone = len(books.groups) == self.M or not self.rounds  # nothing is searched for from other codes
        if len(books.groups) <= MANY_GROUPS or alone or not self._on_cpu:
            return super()._codes_of_length(x, length, centres)

        def again(rows: F32, codes: Codes) -> Codes:
            return books.search(
                rows, lambda group, part, own: self.searched_from(group, part, np.ascontiguousarray(codes[:, own]))
            )

        def encode(rows: F32, about: F32 | None) -> Codes:
            return self._encode_rows(rows, None, about)

        return codes_of_length(x, length, centres, encode, self.decode_rows, again)

    def group_configs(self) -> list[dict[str, Any]]:
        """Of each group, the arguments of an additive coder of its dimensions and codebooks."""
        together, bits = self.M // self.groups, self.bits_per_codebook
        own = {"beam": self.beam, "rounds": self.rounds, "norm_free": self.norm_free}
        return [
            {"dim": self.widths[m], "M": together, "nbits": bits[m : m + together], **own}
            for m in range(0, self.M, together)
        ]


def default_groups(dim: int, M: int) -> int:
    """The fewest groups that divide ``dim`` and ``M`` with at most :data:`TOGETHER` codebooks in each. Where none do:
    one, or, of more than :data:`MANY` codebooks, the fewest that divide ``M`` so."""
    fit = [g for g in range(1, min(dim, M) + 1) if M % g == 0 and M // g <= TOGETHER]
    even = next((g for g in fit if dim % g == 0), None)
    return even or (fit[0] if fit and M > MANY else 1)
