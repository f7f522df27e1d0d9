"""Quantizers with codebooks: the codebooks as parameters, which training changes in place."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from annvq.arrays import to_numpy
from annvq.codebooks import Codebooks, KeptCodebooks
from annvq.quantizers.coder import CodebookCoder
from annvq.quantizers.modules.contract import Quantizer
from annvq.quantizers.tables import TableCoder
from annvq.training.estimators import Estimator
from annvq.types import F32, Array, Self


class CodebookQuantizer(CodebookCoder, Quantizer):
    """A quantizer whose vectors are sums (or concatenations) of codebook entries: see
    :class:`~annvq.quantizers.coder.CodebookCoder`."""

    weight: nn.Parameter

    def __init__(
        self, dim: int, M: int, nbits: int | Sequence[int], estimator: Estimator | None = None, *, groups: int
    ) -> None:
        super().__init__(dim, M, nbits, groups=groups)
        self._take_estimator(estimator)
        self._kept = KeptCodebooks()
        self.forget_norms()
        self.reset_parameters()

    def _declare(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        if name == "weight":
            self.weight = nn.Parameter(torch.empty(shape))
        else:
            super()._declare(name, dtype, shape)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random normal codebooks, whose sums have about unit variance; for training from scratch."""
        if self.weight.is_meta:  # random numbers there would import a second of PyTorch's internals for nothing
            return
        self.weight.normal_(0.0, self.M**-0.5 if self.sums else 1.0)
        for width, (a, b) in zip(self.widths, itertools.pairwise(self.offsets), strict=True):
            self.weight[a:b, width:] = 0
        self.fitted.fill_(False)

    # -- codebooks -------------------------------------------------------------------------------------------------

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """M views (K_m, w_m) into ``weight``, w_m being the codebook's own dimensions."""
        places = zip(self.widths, itertools.pairwise(self.offsets), strict=True)
        return tuple(self.weight[a:b] if w == self.width else self.weight[a:b, :w] for w, (a, b) in places)

    @torch.no_grad()
    def set_codebooks(self, codebooks: Sequence[Array]) -> Self:
        """Take codebooks trained elsewhere: M arrays (K_m, w_m), or one of shape (M, K, width). Those of fewer
        dimensions than the widest may end in zeros.

        How norms are kept is forgotten: call :meth:`fit_norms` where a uint8 norm is wanted.

        Raises:
            TypeError, ValueError: wrong kind, count, shape, or NaN or infinity; nothing has changed then.
        """
        if len(codebooks) != self.M:
            raise ValueError(f"codebooks must be M={self.M} arrays, got {len(codebooks)}")
        arrays = [self._filled(c, m) for m, c in enumerate(codebooks)]
        for m, (array, size) in enumerate(zip(arrays, self.sizes, strict=True)):
            if len(array) != size:
                raise ValueError(f"codebooks[{m}] must have {size} rows (2**nbits), got {len(array)}")
        self.weight.copy_(torch.from_numpy(np.concatenate(arrays)))
        self.forget_norms()
        self.mark_fitted()
        return self

    def _filled(self, codebook: Array, m: int) -> F32:
        """Codebook ``m`` of as many columns as the widest."""
        own, name = self.widths[m], f"codebooks[{m}]"
        if own == self.width or getattr(codebook, "shape", (0, own))[-1] != self.width:
            given = to_numpy(codebook, own, name, rows="K")
            return given if own == self.width else np.pad(given, ((0, 0), (0, self.width - own)))
        given = to_numpy(codebook, self.width, name, rows="K")
        if given[:, own:].any():
            raise ValueError(f"{name} must have {own} dimensions, or zeros beyond them, got {self.width}")
        return given

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

    def books(self) -> Codebooks:
        # (PyTorch looks for attributes that are parameters in all other places first.)
        weight = self._parameters.get("weight")
        return self._kept.of(self.weight if weight is None else weight, self.sizes, self.starts, self.dim)


class TableQuantizer(TableCoder, CodebookQuantizer):
    """A quantizer with codebooks, so that distances are sums of table entries."""

    centred: Tensor

    def learn_terms(self, x: Array, *, seed: int = 0) -> None:
        self.fit_norms(x, seed=seed)
