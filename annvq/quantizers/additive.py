"""Additive codes: sums of entries, one of each codebook, chosen in any order."""

from collections.abc import Sequence
from typing import Any

from annvq.arrays import positive_int
from annvq.codebooks import Codebooks
from annvq.complexity import OperationCounts, local_search
from annvq.quantizers.sums import SumCoder
from annvq.types import F32, Codes

GRADED = 3.0  # ratio of the codebooks' energies from which they count as graded
SWEEPS = 4  # of ICM, at most, in a round of local search


class AdditiveCoder(SumCoder):
    """x̂ = c₀ + … + c_{M−1}, the codebooks on equal terms: see :class:`~annvq.AdditiveVQ`."""

    kind = "additive"

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int] = 8,
        *,
        beam: int = 8,
        rounds: int = 64,
        norm_free: bool = False,
    ) -> None:
        super().__init__(dim, M, nbits, beam, norm_free)
        self.rounds = positive_int(rounds, "rounds", low=0, high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "rounds": self.rounds}

    def _search_costs(self) -> OperationCounts:
        beam = super()._search_costs()
        if self.rounds == 0 or self.M == 1:
            return beam
        return beam + local_search(
            dim=self.dim, M=self.M, nbits=self.bits_per_codebook, rounds=self.rounds, sweeps=SWEEPS
        )

    def _native_search(self, books: Codebooks, x: F32) -> Codes:
        encoder = books.additive_encoder
        if self.rounds == 0 or len(books.sizes) == 1:
            return encoder.additive(x, self.beam)
        graded = graded_codebooks(books)
        width = self._width(graded)
        start = encoder.residual(x, width) if graded else encoder.additive(x, width)
        return self.searched_from(books, x, start)

    def searched_from(self, books: Codebooks, x: F32, codes: Codes, seed: int = 0) -> Codes:
        """Codes (n, M) that local search among the entries of ``books`` finds for rows (n, d) from those given; another
        ``seed`` tries other changes."""
        if self.rounds == 0 or len(books.sizes) == 1:
            return codes
        return books.additive_encoder.iterated_search(x, codes, iterations=self.rounds, sweeps=SWEEPS, seed=seed)

    def _width(self, graded: bool) -> int:
        """Partial codes kept: twice ``beam`` in codebook order, which takes the time of an any-order beam."""
        return min(2 * self.beam, 1 << 12) if graded else self.beam


def graded_codebooks(books: Codebooks) -> bool:
    """Whether the codebooks are coarse and fine ones, as a residual quantizer's are. An any-order beam search fills its
    beam with fine entries then, and misses the coarse ones; one in codebook order does not."""
    return max(books.energies) > GRADED * min(books.energies)
