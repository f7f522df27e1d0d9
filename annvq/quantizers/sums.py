"""What residual and additive quantizers share: vectors that are sums of entries, found by beam search."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding

from annvq.arrays import F32, positive_int
from annvq.kernels.encode import MAX_NATIVE_M, AdditiveEncoder
from annvq.quantizers.base import TableQuantizer

if TYPE_CHECKING:
    from annvq.complexity import OperationCounts
    from annvq.training.estimators import Estimator

WORKSPACE_BYTES = 1 << 27


class SumQuantizer(TableQuantizer):
    """x̂ = c₀ + … + c_{M−1}, each c_m an entry of codebook m over all d dimensions."""

    needs_norm = True

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int], beam: int, estimator: "Estimator | None") -> None:
        super().__init__(dim, M, nbits, estimator, width=dim)
        self.beam = positive_int(beam, "beam", high=1 << 12)

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "beam": self.beam}

    def costs(self) -> "OperationCounts":
        from annvq.complexity import encode_counts

        return encode_counts(self.kind, dim=self.dim, M=self.M, nbits=self.bits_per_codebook, beam=self.beam)

    def _row_encoder(self) -> Callable[[F32], npt.NDArray[Any]]:
        if not self._on_cpu or self.M > MAX_NATIVE_M:
            return self._encode_in_torch
        return self._native_search(AdditiveEncoder(self._entries(), self.sizes))

    @abstractmethod
    def _native_search(self, encoder: AdditiveEncoder) -> Callable[[F32], npt.NDArray[Any]]:
        """The native form of :meth:`_search`."""

    def _encode(self, x: Tensor) -> Tensor:
        # Codebooks are centred first: a partial sum then stands for what it will become with average entries from
        # the codebooks still to come, and cancellation stays small for data far from the origin.
        means = torch.stack([book.detach().mean(0) for book in self.codebooks])
        sizes = torch.as_tensor(self.sizes, device=x.device)
        weight = self.weight.detach() - means.repeat_interleave(sizes, 0)
        x = x - means.sum(0)
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
