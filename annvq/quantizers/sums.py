"""What residual and additive quantizers share: vectors that are sums of entries, found by beam search."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from annvq.arrays import positive_int
from annvq.codebooks import Codebooks
from annvq.complexity import OperationCounts, encode_counts, norm_search
from annvq.kernels import LazyTables, squared_norms
from annvq.kernels.encode import norm_rounds
from annvq.norms import Length, NormTerm
from annvq.quantizers.tables import TableCoder
from annvq.training.learn.norms import learn_free_term
from annvq.types import F32, Array, Codes, Self

NORM_FREE_ROWS = 50_000  # vectors that are enough to learn the offsets that norms follow from


class SumCoder(TableCoder):
    """x̂ = c₀ + … + c_{M−1}, each c_m an entry of codebook m over all d dimensions.

    Squared distance to such codes needs ‖x̂‖². An index stores it beside the code, unless the quantizer is
    ``norm_free``: then codes are chosen so that ‖x̂‖² follows from them, as a sum of one learned offset per entry, which
    the tables carry. That takes no bits.

    One byte and offsets stand for ‖x̂‖² and a share of the code's own error (:class:`~annvq.norms.NormTerm`); distances
    differ from those to x̂ by that, and by what they miss of it.
    """

    sums = True

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int],
        beam: int,
        norm_free: bool,
        groups: int = 1,
    ) -> None:
        if not isinstance(norm_free, bool):
            raise TypeError(f"norm_free must be True or False, got {norm_free!r}")
        self.norm_free, self.needs_norm = norm_free, not norm_free
        super().__init__(dim, M, nbits, groups=groups)
        self.beam = positive_int(beam, "beam", high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        own = {"norm_free": True} if self.norm_free else {}
        return {**super().config, "beam": self.beam, **own}

    def energies(self) -> Sequence[float]:
        """Variance of each codebook's entries, summed over the dimensions."""
        return self.books().energies

    def costs(self) -> OperationCounts:
        counts = self._search_costs()
        if self.norm_free and self.M > 1:
            rounds = norm_rounds(self.M)
            counts += norm_search(dim=self.dim, M=self.M, nbits=self.bits_per_codebook, rounds=rounds)
        return counts

    def _search_costs(self) -> OperationCounts:
        """Operations of the search for a code, whatever becomes of its norm."""
        return encode_counts(self.kind, dim=self.dim, M=self.M, nbits=self.bits_per_codebook, beam=self.beam)

    # -- codes -----------------------------------------------------------------------------------------------------

    def require_encodes(self, what: str) -> None:
        super().require_encodes(what)
        if self.norm_free:
            self.require_norm_term(what)

    def _own_codes(self, x: F32) -> Codes:
        term = self.norm_term if self.norm_free else None
        if term is None or not term.weighed or not self._searches_natively:
            return self.plain_codes(x)
        books, moved = self._about_origin(x)

        def search(group: Codebooks, part: F32, columns: slice) -> Codes:
            found, encoder = self._native_search(group, part), group.additive_encoder
            if not encoder.has_gram:
                return found
            offsets = term.offsets[self.offsets[columns.start] : self.offsets[columns.stop]]
            return encoder.norm_free_search(part, found, offsets, term.weight, error_share=term.error_share)

        return books.search(moved, search)

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        """Of codebooks over all dimensions, pairs are coded anew, with the length in mind. Codes of groups are many
        enough to come near it by the general way, and have less error then."""
        books = self.books()
        encoder = books.additive_encoder if len(books.groups) == 1 and self._searches_natively else None
        if encoder is None or not encoder.has_gram:
            return super()._codes_of_length(x, length, centres)
        rest = np.full(len(x), -(length.value**2), np.float32)
        if centres is not None:
            rest += squared_norms(centres)
        none = np.zeros(self.offsets[-1], np.float32)
        plain = self.plain_codes(x)
        return encoder.norm_free_search(x, plain, none, length.weight, centres=centres, rest=rest)

    def plain_codes(self, x: F32) -> Codes:
        """Codes (n, M) of checked rows (n, d) as if norms did not matter."""
        if not self._on_cpu:
            return self._encode_in_torch(x)
        return self.books().search(x, lambda group, part, _: self._native_search(group, part))

    @abstractmethod
    def _native_search(self, books: Codebooks, x: F32) -> Codes:
        """Codes by native search, of codebooks that share their dimensions, or of these less their centres."""

    # -- norms that follow from codes ------------------------------------------------------------------------------

    @property
    def _term_bits(self) -> int | None:
        return 0 if self.norm_free else 8

    def lazy_tables(self, queries: F32, metric: str) -> tuple[LazyTables, F32]:
        luts, bias = super().lazy_tables(queries, metric)
        if self.norm_free and metric == "l2":
            luts = luts.plus(self.require_norm_term("tables").table_offsets())
        return luts, bias

    def offset_norms(self, codes: Array) -> F32:
        """What stands for ‖x̂ − o‖² and a share of the error in the tables of norm-free codes, (n,) float32; o is
        :attr:`origin`.

        Raises:
            NotFittedError: before ``fit``, or offsets were never learned (``fit`` or ``fit_norms``).
            ValueError: the quantizer is not ``norm_free``; codes of the wrong shape, or out of range.
            TypeError: codes of the wrong kind or dtype.
        """
        if not self.norm_free:
            raise ValueError("offset_norms is for norm_free=True; norms(codes) gives the norms of other codes")
        return self.require_norm_term("offset_norms").values(self.check_codes(codes))

    def fit_norms(self, x: Array, *, seed: int = 0, codes: Array | None = None) -> Self:
        if not self.norm_free:
            return super().fit_norms(x, seed=seed, codes=codes)
        self.require_fitted("fit_norms")
        sample, given = self._norm_sample(x, codes, NORM_FREE_ROWS, seed)
        plain, rounds = (self.plain_codes(sample), 3) if given is None else (given, 0)
        books, moved = self._about_origin(sample)
        terms = []
        for columns, dims, group in books.groups:
            part = np.ascontiguousarray(moved[:, dims])
            terms.append(learn_free_term(part, plain[:, columns], group.entries, group.sizes, rounds))
        return self.take_norm_term(NormTerm.of_groups(terms))
