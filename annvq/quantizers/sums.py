"""What residual and additive quantizers share: vectors that are sums of entries, found by beam search."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding
from typing_extensions import Self

from annvq.arrays import positive_int
from annvq.codebooks import Codebooks
from annvq.complexity import OperationCounts, encode_counts, norm_search
from annvq.kernels import LazyTables, squared_norms
from annvq.kernels.encode import MAX_NATIVE_M, norm_rounds
from annvq.norms import Length, NormTerm
from annvq.quantizers.tables import TableQuantizer
from annvq.training.estimators import Estimator
from annvq.training.learn.alternating import Alternation
from annvq.training.learn.norms import learn_free_term
from annvq.training.parts import BestOf, ByGrading, KMeans, LearnNormFree
from annvq.training.recipe import Part, Recipe
from annvq.types import F32, Array, Codes

WORKSPACE_BYTES = 1 << 27

NORM_FREE_ROWS = 50_000  # vectors that are enough to learn the offsets that norms follow from

FLAT = 3.0
"""Where residual codebooks of a sample are graded less than this from coarse to fine, as on SIFT descriptors (2.3 at
8x8 bits; patches have 82), no direction stands out."""

WARM = Alternation(iterations=12, rounds=2, temperature=0.4)
"""From residual codebooks, which it must not undo: few steps, little noise."""


def residual_start(sizes: Sequence[int]) -> Part:
    """Residual k-means: on ever more principal components where no directions stand out. Where some do (image patches,
    flat or not), that has 1 % less error and a tenth less recall, as entries go to the few vectors that are far out.
    Small codebooks, which learn from few residuals of each vector, may miss those altogether: more are tried."""
    usual = ByGrading(flat=(KMeans(10, progressive=True),), graded=(KMeans(10),), limit=FLAT)
    return usual if min(sizes) >= 256 else BestOf((usual, KMeans(10, kept=5, progressive=True)), lead=0.1)


class SumQuantizer(TableQuantizer):
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
        estimator: Estimator | None,
        groups: int = 1,
    ) -> None:
        if not isinstance(norm_free, bool):
            raise TypeError(f"norm_free must be True or False, got {norm_free!r}")
        self.norm_free, self.needs_norm = norm_free, not norm_free
        super().__init__(dim, M, nbits, estimator, width=dim // groups)
        self.beam = positive_int(beam, "beam", high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        own = {"norm_free": True} if self.norm_free else {}
        return {**super().config, "beam": self.beam, **own}

    def with_norm(self) -> Self:
        """A twin whose codes need their norm stored: unfitted, it does not get these codebooks."""
        config = {name: value for name, value in self.config.items() if name != "norm_free"}
        return type(self)(**config, estimator=self.estimator)

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

    # -- learning --------------------------------------------------------------------------------------------------

    def default_recipe(self) -> Recipe:
        """:meth:`norm_recipe`; codebooks of norm-free codes are learned so first, then together with their offsets."""
        if self.norm_free:
            return Recipe((LearnNormFree(self.with_norm().norm_recipe().parts),))
        return self.norm_recipe()

    @abstractmethod
    def norm_recipe(self) -> Recipe:
        """How codebooks of codes whose norm is stored are learned."""

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
        """Of codebooks over all dimensions, pairs are coded anew, with the length in mind; codes of groups are many
        enough to come near it by the general way."""
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
        if not self._on_cpu or self.M > MAX_NATIVE_M:
            return self._encode_in_torch(x)
        return self.books().search(x, lambda group, part, _: self._native_search(group, part))

    @abstractmethod
    def _native_search(self, books: Codebooks, x: F32) -> Codes:
        """The native form of :meth:`_search`, by codebooks that share their dimensions, or these less their centres."""

    def _encode(self, x: Tensor) -> Tensor:
        # Codebooks are centred first: a partial sum then stands for what it will become with average entries from
        # the codebooks still to come, and cancellation stays small for data far from the origin.
        centres = torch.from_numpy(self.books().centres).to(x.device)
        step = max(1, WORKSPACE_BYTES // self._workspace_per_row())
        if not len(x):
            return torch.empty(0, self.M, dtype=torch.int64, device=x.device)
        return torch.cat([self._searched(part, centres) for part in torch.split(x, step)])

    def _searched(self, x: Tensor, centres: Tensor) -> Tensor:
        """Codes (n, M) int64 of a chunk of rows (n, d), codebooks taken less their centres (M, width)."""
        codes = []
        for group in self._groups:
            books = [self.codebooks[m].detach() - centres[m] for m in group]
            first, last = self.starts[group[0]], self.starts[group[0]] + self.width
            offsets = tuple(self.offsets[m] - self.offsets[group[0]] for m in (*group, group[-1] + 1))
            rows = x[:, first:last] - centres[group[0] : group[-1] + 1].sum(0)
            codes.append(self._search(rows, torch.cat(books), offsets))
        return torch.cat(codes, 1)

    @property
    def _groups(self) -> list[range]:
        """Numbers of the codebooks that share their dimensions, group after group."""
        together = max(1, self.M * self.width // self.dim)
        return [range(m, m + together) for m in range(0, self.M, together)]

    def _traced_codes(self, rows: Tensor) -> Tensor:
        if self.norm_free:
            raise NotImplementedError("norm-free codes are chosen by a search that cannot be exported or compiled")
        return self._searched(rows, torch.stack([book.detach().mean(0) for book in self.codebooks]))

    @abstractmethod
    def _search(self, x: Tensor, weight: Tensor, offsets: tuple[int, ...]) -> Tensor:
        """Codes (n, m) int64 of a chunk of rows, by m codebooks that share their dimensions and begin at ``offsets``
        (m + 1,) of ``weight``."""

    @abstractmethod
    def _workspace_per_row(self) -> int:
        """Bytes of temporary memory that ``_search`` takes per row."""

    def _decode(self, codes: Tensor) -> Tensor:
        books, parts = self.codebooks, []
        for group in self._groups:
            total = embedding(codes[:, group[0]], books[group[0]])
            for m in group[1:]:
                total = total + embedding(codes[:, m], books[m])
            parts.append(total)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

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
        plain = self.plain_codes(sample) if given is None else given
        books, moved = self._about_origin(sample)
        terms = [
            learn_free_term(
                np.ascontiguousarray(moved[:, group.dims]),
                plain[:, group.columns],
                group.books.entries,
                group.books.sizes,
            )
            for group in books.groups
        ]
        return self.take_norm_term(NormTerm.of_groups(terms))
