"""What residual and additive quantizers share: vectors that are sums of entries, found by beam search."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding
from typing_extensions import Self

from annvq.arrays import positive_int
from annvq.errors import NotFittedError
from annvq.kernels import LazyTables, book_centres
from annvq.kernels.encode import MAX_NATIVE_M, AdditiveEncoder
from annvq.quantizers.base import TableQuantizer
from annvq.quantizers.norms import NormByte
from annvq.types import F32, Array

if TYPE_CHECKING:
    from annvq.complexity import OperationCounts
    from annvq.training.estimators import Estimator

WORKSPACE_BYTES = 1 << 27

NORM_FREE_ROWS = 50_000  # vectors that are enough to learn the offsets that norms follow from


class SumQuantizer(TableQuantizer):
    """x̂ = c₀ + … + c_{M−1}, each c_m an entry of codebook m over all d dimensions.

    Squared distance to such codes needs ‖x̂‖². An index stores it beside the code, unless the quantizer is
    ``norm_free``: then codes are chosen so that ‖x̂‖² follows from them, as a sum of one learned offset per entry, which
    the tables carry. That takes no bits.

    One byte and offsets stand for ‖x̂‖² and a share of the code's own error
    (:func:`~annvq.quantizers.norms.with_error`); distances differ from those to x̂ by that, and by what they miss of it.
    """

    sums = True
    needs_norm = True
    norm_offsets: Tensor
    norm_weight: Tensor
    """What the offsets' squared error costs beside ‖x − x̂‖² when codes are chosen; 0 until ``fit_norms``."""

    def __init__(
        self,
        dim: int,
        M: int,
        nbits: int | Sequence[int],
        beam: int,
        norm_free: bool,
        estimator: "Estimator | None",
    ) -> None:
        if not isinstance(norm_free, bool):
            raise TypeError(f"norm_free must be True or False, got {norm_free!r}")
        self.norm_free, self.needs_norm = norm_free, not norm_free
        super().__init__(dim, M, nbits, estimator, width=dim)
        self.beam = positive_int(beam, "beam", high=1 << 12)
        if norm_free:
            self.register_buffer("norm_offsets", torch.zeros(self.offsets[-1]))
            self.register_buffer("norm_weight", torch.zeros(()))
            self.register_buffer("error_share", torch.zeros(()))
            self.register_buffer("centred", torch.ones((), dtype=torch.bool))

    @property
    def config(self) -> dict[str, Any]:
        own = {"norm_free": True} if self.norm_free else {}
        return {**super().config, "beam": self.beam, **own}

    def with_norm(self) -> Self:
        """A twin whose codes need their norm stored: unfitted, it does not get these codebooks."""
        config = {name: value for name, value in self.config.items() if name != "norm_free"}
        return type(self)(**config, estimator=self.estimator)

    def energies(self) -> list[float]:
        """Variance of each codebook's entries, summed over the dimensions."""
        return [float(book.detach().var(0, unbiased=False).sum()) for book in self.codebooks]

    def costs(self) -> "OperationCounts":
        from annvq.complexity import norm_search
        from annvq.kernels.encode import norm_rounds

        counts = self._search_costs()
        if self.norm_free and self.M > 1:
            rounds = norm_rounds(self.M)
            counts += norm_search(dim=self.dim, M=self.M, nbits=self.bits_per_codebook, rounds=rounds)
        return counts

    def _search_costs(self) -> "OperationCounts":
        """Operations of the search for a code, whatever becomes of its norm."""
        from annvq.complexity import encode_counts

        return encode_counts(self.kind, dim=self.dim, M=self.M, nbits=self.bits_per_codebook, beam=self.beam)

    # -- codes ---------------------------------------------------------------------------------------------------

    def encode(self, x: Array, *, progress: bool = False) -> Any:
        self._require_offsets("encode")
        return super().encode(x, progress=progress)

    def plain_row_encoder(self) -> Callable[[F32], npt.NDArray[Any]]:
        """A function that encodes checked rows as if norms did not matter."""
        if not self._on_cpu or self.M > MAX_NATIVE_M:
            return self._encode_in_torch
        return self._native_search(AdditiveEncoder(self._entries(), self.sizes))

    def _row_encoder(self) -> Callable[[F32], npt.NDArray[Any]]:
        plain = self.plain_row_encoder()
        if not self.norm_free or not float(self.norm_weight) > 0 or not self._on_cpu or not 1 < self.M <= MAX_NATIVE_M:
            return plain
        encoder, origin = AdditiveEncoder(self._norm_entries(), self.sizes), self.origin
        if not encoder.has_gram:
            return plain
        search, offsets, weight = self._native_search(encoder), self.norm_offsets.numpy(), float(self.norm_weight)
        share = float(self.error_share)

        def encode(x: F32) -> npt.NDArray[Any]:
            moved = x - origin
            return encoder.norm_free_search(moved, search(moved), offsets, weight, error_share=share)

        return encode

    @abstractmethod
    def _native_search(self, encoder: AdditiveEncoder) -> Callable[[F32], npt.NDArray[Any]]:
        """The native form of :meth:`_search`."""

    def _encode(self, x: Tensor) -> Tensor:
        # Codebooks are centred first: a partial sum then stands for what it will become with average entries from
        # the codebooks still to come, and cancellation stays small for data far from the origin.
        centres = torch.from_numpy(book_centres(self._entries(), self.sizes)).to(x.device)
        sizes = torch.as_tensor(self.sizes, device=x.device)
        weight = self.weight.detach() - centres.repeat_interleave(sizes, 0)
        x = x - centres.sum(0)
        step = max(1, WORKSPACE_BYTES // self._workspace_per_row())
        parts = [self._search(part, weight) for part in torch.split(x, step)] if len(x) else []
        return torch.cat(parts) if parts else torch.empty(0, self.M, dtype=torch.int64, device=x.device)

    @abstractmethod
    def _search(self, x: Tensor, weight: Tensor) -> Tensor:
        """Codes (n, M) int64 of a chunk of rows."""

    @abstractmethod
    def _workspace_per_row(self) -> int:
        """Bytes of temporary memory that ``_search`` takes per row."""

    def _decode(self, codes: Tensor) -> Tensor:
        books = self.codebooks
        total = embedding(codes[:, 0], books[0])
        for m in range(1, self.M):
            total = total + embedding(codes[:, m], books[m])
        return total

    # -- norms that follow from codes ----------------------------------------------------------------------------

    def lazy_tables(self, queries: Array, metric: str = "l2") -> tuple[LazyTables, F32]:
        luts, bias = super().lazy_tables(queries, metric)
        if self.norm_free and metric == "l2":
            self._require_offsets("tables")
            luts = luts.plus(self._offset_sums.table_offsets(max(self.sizes)))
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
        self._require_offsets("offset_norms")
        return self._offset_sums.explained(self.check_codes(codes)).astype(np.float32)

    @property
    def _offset_sums(self) -> NormByte:
        return NormByte(self.sizes, self.norm_offsets.cpu().numpy(), np.zeros(1, np.float32))

    def forget_norms(self) -> None:
        super().forget_norms()
        if self.norm_free:
            self.norm_offsets.zero_()
            self.norm_weight.zero_()
            self.error_share.zero_()
            self.centred.fill_(True)

    def fit_norms(self, x: Array, *, seed: int = 0) -> Self:
        if not self.norm_free:
            return super().fit_norms(x, seed=seed)
        from annvq.training.norms import ERROR_SHARE, NormFree

        self.require_fitted("fit_norms")
        sample = self._norm_sample(x, NORM_FREE_ROWS, seed)
        codes = self.plain_row_encoder()(sample)
        learned = NormFree.of(sample - self.origin, codes, self._norm_entries(), self.sizes)
        learned.settle(rounds=3)
        self.norm_offsets.copy_(torch.from_numpy(learned.offsets))
        self.norm_weight.fill_(learned.weight)
        self.error_share.fill_(ERROR_SHARE)
        return self

    def _require_offsets(self, what: str) -> None:
        self.require_fitted(what)
        if self.norm_free and not float(self.norm_weight) > 0:
            raise NotFittedError(f"{what} of norm-free codes needs learned offsets: call fit(x) or fit_norms(x) first")
