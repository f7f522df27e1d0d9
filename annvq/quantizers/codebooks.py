"""Quantizers whose vectors are sums of codebook entries: the codebooks, and codes by them."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from annvq.arrays import to_numpy
from annvq.codebooks import Codebooks, KeptCodebooks
from annvq.kernels.encode import MAX_NATIVE_M
from annvq.quantizers.contract import Quantizer
from annvq.training.estimators import Estimator
from annvq.types import F32, Array, Codes


class CodebookQuantizer(Quantizer):
    """A quantizer whose vectors are sums (or concatenations) of codebook entries.

    The codebooks lie in one parameter ``weight`` of shape (ΣK, width), codebook after codebook. ``width`` is d for
    codebooks over the whole vector, d/M for product codebooks, d/G for those of products of G sums; ``starts[m]`` is
    the first dimension of codebook m.
    """

    sums: ClassVar[bool] = False
    """Whether entries are added up to x̂; else each codebook has dimensions of its own."""

    def __init__(
        self, dim: int, M: int, nbits: int | Sequence[int], estimator: Estimator | None, *, width: int
    ) -> None:
        super().__init__(dim, M, nbits, estimator)
        self.width = width
        together = max(1, self.M * width // self.dim)  # codebooks that share their dimensions
        self.starts = tuple(m // together * width for m in range(self.M))
        """First dimension of the vector that each codebook covers."""
        self.offsets = (0, *itertools.accumulate(self.sizes))
        self._kept = KeptCodebooks()
        self.weight = nn.Parameter(torch.empty(self.offsets[-1], width))
        self._register_term()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random normal codebooks, whose sums have about unit variance; for training from scratch."""
        if self.weight.is_meta:  # random numbers there would import a second of PyTorch's internals for nothing
            return
        self.weight.normal_(0.0, self.M**-0.5 if self.sums else 1.0)
        self.fitted.fill_(False)

    # -- codebooks -------------------------------------------------------------------------------------------------

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """M views (K_m, width) into ``weight``."""
        return tuple(self.weight[a:b] for a, b in itertools.pairwise(self.offsets))

    @torch.no_grad()
    def set_codebooks(self, codebooks: Sequence[Array]) -> Self:
        """Take codebooks trained elsewhere: M arrays (K_m, width), or one of shape (M, K, width).

        How norms are kept is forgotten: call :meth:`fit_norms` where a uint8 norm is wanted.

        Raises:
            TypeError, ValueError: wrong kind, count, shape, or NaN or infinity; nothing has changed then.
        """
        if len(codebooks) != self.M:
            raise ValueError(f"codebooks must be M={self.M} arrays, got {len(codebooks)}")
        arrays = [to_numpy(c, self.width, f"codebooks[{m}]", rows="K") for m, c in enumerate(codebooks)]
        for m, (array, size) in enumerate(zip(arrays, self.sizes, strict=True)):
            if len(array) != size:
                raise ValueError(f"codebooks[{m}] must have {size} rows (2**nbits), got {len(array)}")
        self.weight.copy_(torch.from_numpy(np.concatenate(arrays)))
        self.forget_norms()
        self.mark_fitted()
        return self

    def trained_parameters(self) -> list[nn.Parameter]:
        return [self.weight]

    def restore(self, mean: F32, scale: float) -> None:
        books = [b.detach().cpu().numpy() * np.float32(scale) for b in self.codebooks]
        for columns, dims, _ in self.books().groups:
            books[columns.start] = books[columns.start] + mean[dims]
        self.set_codebooks(books)

    def in_own_coordinates(self, x: F32) -> "tuple[CodebookQuantizer, F32]":
        """What holds the codebooks, and rows (n, d) as it sees them: behind a transform, the inner quantizer and
        transformed rows."""
        return self, x

    def codebooks_copy(self) -> F32:
        """A copy of all codebooks, (ΣK, width) float32."""
        return np.array(self.weight.detach().cpu().numpy(), dtype=np.float32, order="C")

    def books(self) -> Codebooks:
        """The codebooks as arrays, in the vectors' own coordinates."""
        return self._kept.of(self.weight, self.sizes, self.starts, self.dim)

    def _now(self) -> Any:
        """Codebooks as they are now, for an operation that looks at them more than once: what has ``centre``,
        ``about(origin)`` and ``decode(codes)`` of :class:`~annvq.codebooks.Codebooks`."""
        return self.books()

    # -- codes -----------------------------------------------------------------------------------------------------

    def decode_rows(self, codes: Codes) -> F32:
        return self.books().decode(codes)

    def _own_codes(self, x: F32) -> Codes:
        """Codes of rows whatever an index keeps beside them."""
        return self._encode_in_torch(x)

    @property
    def _searches_natively(self) -> bool:
        """Whether native search over several codebooks takes these."""
        return self._on_cpu and 1 < self.M <= MAX_NATIVE_M

    # -- what subclasses keep beside codes -------------------------------------------------------------------------

    def _register_term(self) -> None:
        """Buffers for what is learned of norms."""

    def forget_norms(self) -> None:
        """Forget how norms are kept, as codebooks have changed."""
