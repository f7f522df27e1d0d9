"""The quantizer contract: a coder that is an ``nn.Module`` and learns."""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from annvq.arrays import check_vectors, chunks, dtype_name, positive_int, require_finite
from annvq.norms import Length, NormTerm
from annvq.quantizers.coder import Coder, Shapes
from annvq.training.estimators import NSVQ, Estimator
from annvq.training.learn.shares import ALONE, Alone
from annvq.training.recipe import Recipe
from annvq.types import F32, Array, Codes, Self


class Quantized(NamedTuple):
    """What a quantizer's ``forward`` gives: the output vectors and the codes behind them."""

    xhat: Tensor  # (..., d) float32
    codes: Tensor  # (..., M) uint8 or uint16


class Quantizer(Coder, nn.Module):
    """Vectors to codes and back. Subclasses register a name and become covered by the contract tests.

    In training mode ``forward`` is the gradient estimator's output (NSVQ unless another is given), so that the
    gradient reaches the codebooks and the input; in eval mode it is ``decode(encode(x))``.

    In eval mode ``forward``, ``encode(x)`` and ``decode(codes)`` of tensors go through ``torch.export`` and
    ``torch.compile(fullgraph=True)``, with a batch of any size: product, residual and rotated or linearly mapped codes
    give what they give outside but for near ties; additive codes are those of a beam search, further from the vectors
    than those of local search outside. Norm-free codes can be decoded, but not encoded (NotImplementedError). Nothing
    is checked there: neither that the quantizer is fitted nor that values are finite and codes in range.
    """

    fitted: Tensor

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int], estimator: Estimator | None = None) -> None:
        nn.Module.__init__(self)
        super().__init__(dim, M, nbits)
        self._take_estimator(estimator)

    def _take_estimator(self, estimator: Estimator | None) -> None:
        if estimator is not None and not callable(estimator):
            raise TypeError(f"estimator must be an estimator such as NSVQ(), got {estimator!r}")
        self.estimator: Estimator = NSVQ() if estimator is None else estimator

    # -- tensors ---------------------------------------------------------------------------------------------------

    def _declare(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.register_buffer(name, torch.zeros(shape, dtype=getattr(torch, dtype)))

    @torch.no_grad()
    def _put(self, name: str, value: Any) -> None:
        getattr(self, name).copy_(torch.as_tensor(value))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: t.detach().cpu().numpy() for name, t in self.state_dict().items()}

    def shapes(self) -> Shapes:
        return {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in self.state_dict().items()}

    def fill(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        self.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, assign=True)
        return self.eval()

    def as_module(self) -> Self:
        return self

    __repr__ = nn.Module.__repr__
    __call__ = nn.Module.__call__

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.items())

    # -- learning ------------------------------------------------------------------------------------------------

    @abstractmethod
    def default_recipe(self) -> Recipe:
        """How ``fit`` learns unless it is told otherwise."""

    def fit(  # type: ignore[override]
        self,
        x: Array,
        *,
        seed: int = 0,
        recipe: Recipe | None = None,
        progress: bool = False,
        processes: Alone = ALONE,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Learn the codebooks (and norm levels) from ``x``; a second fit forgets the first, one that fails changes
        nothing.

        Args:
            x: learn vectors, float32 of shape (n, d), n at least the entries of the largest codebook. From
                arrays beyond the recipe's ``max_rows`` a seeded sample is used, so memory maps may exceed memory.
            seed: same seed, same machine, same threads: same result.
            recipe: how to learn; default: :meth:`default_recipe`.
            progress: show progress bars.
            processes: :class:`~annvq.training.Processes` that all call this with the same arguments and learn together,
                each from its share of the rows.
            checkpoint: file to keep what is learned in after each part of the recipe, and to go on from where the same
                fit was stopped; it remains when all is done.

        Raises:
            TypeError, ValueError: x is not such an array, holds NaN or infinity, or has too few rows; the checkpoint is
                of another fit; several processes cannot learn this quantizer.
            LostProcessError: another process has ended.
        """
        x = check_vectors(x, self.dim, "x")
        least = max(self.sizes)
        if int(x.shape[0]) < least:
            raise ValueError(
                f"x must have at least {least} rows, one for each entry of a codebook, got {int(x.shape[0])}; "
                f"give more vectors or fewer nbits"
            )
        seed = positive_int(seed, "seed", low=0, high=2**63 - 1)
        before, was_training = {name: t.detach().clone() for name, t in self.state_dict().items()}, self.training
        try:
            (self.default_recipe() if recipe is None else recipe).run(
                self, x, seed=seed, progress=progress, processes=processes, checkpoint=checkpoint
            )
        except BaseException:  # half-way, codebooks are in the recipe's own units
            self.load_state_dict(before)
            self.train(was_training)
            raise
        return self

    def trained_parameters(self) -> list[nn.Parameter]:
        """What a :class:`~annvq.training.Trainer` optimises."""
        return list(self.parameters())

    @abstractmethod
    def restore(self, mean: F32, scale: float) -> None:
        """Bring what was learned on ``(x − mean) / scale`` to x's own offset (d,) and scale."""

    def learn_terms(self, x: Array, *, seed: int = 0) -> None:
        """Learn what follows from fitted codebooks and vectors (n, d): how norms are kept, a decoder with tables.
        ``fit`` ends with it."""

    def mark_fitted(self) -> None:
        """Say that the codebooks hold learned values."""
        self.fitted.fill_(True)

    # -- codes ---------------------------------------------------------------------------------------------------

    def encode(
        self,
        x: Array,
        *,
        term: NormTerm | Length | None = None,
        centres: Array | None = None,
        progress: bool = False,
    ) -> Any:
        if torch.compiler.is_compiling():
            with torch.no_grad():
                return self._traced_codes(x.float()).to(self._torch_code_dtype)
        return super().encode(x, term=term, centres=centres, progress=progress)

    @torch.no_grad()
    def _encode_in_torch(self, x: F32) -> Codes:
        """Codes by :meth:`_encode`: elsewhere than on the CPU, where subclasses have native encoders, and as the plain
        form that tests compare with."""
        codes = self._encode(torch.as_tensor(x).to(self.fitted.device)).cpu().numpy()
        return codes.astype(self.code_dtype, copy=False)

    @property
    def _on_cpu(self) -> bool:
        return self.fitted.device.type == "cpu"

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """Codes (n, M) int64 of float32 (n, d) on the module's device; no gradient, no validation."""

    def decode(self, codes: Array) -> Any:
        if torch.compiler.is_compiling():
            return self._decode(codes.long())
        return super().decode(codes)

    def decode_rows(self, codes: Codes) -> F32:
        out = np.empty((len(codes), self.dim), dtype=np.float32)
        with torch.no_grad():
            for start, stop in chunks(len(codes), self.dim * (self.M + 1)):
                part = torch.from_numpy(codes[start:stop].astype(np.int64)).to(self.fitted.device)
                out[start:stop] = self._decode(part).cpu().numpy()
        return out

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Vectors (n, d) of int64 codes (n, M), differentiable in the codebooks; no validation."""

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Quantized:  # type: ignore[override]
        """Quantize as a layer: ``x`` is (..., d) float32; see the class for training and eval mode. ``codes`` (n, M)
        int64 of its n rows are found here unless they are given.

        Training-mode use counts as learning: afterwards the codebooks may encode.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1 or x.shape[-1] != self.dim:
            found = f"{dtype_name(x)} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a float tensor of shape (..., {self.dim}), got {found}")
        if self.training:
            self.mark_fitted()
        elif not torch.compiler.is_compiling():
            self.require_fitted("forward in eval mode")
        rows = x.reshape(-1, self.dim)
        codes = self._layer_codes(rows.detach().float()) if codes is None else codes
        xhat = self._decode(codes).to(x.dtype)
        if self.training:
            xhat = self.estimator(rows, xhat)
        return Quantized(xhat.reshape(x.shape), codes.to(self._torch_code_dtype).reshape(*x.shape[:-1], self.M))

    @property
    def _torch_code_dtype(self) -> torch.dtype:
        return torch.uint8 if max(self.bits_per_codebook) <= 8 else torch.uint16

    @torch.no_grad()
    def _layer_codes(self, rows: Tensor) -> Tensor:
        """Codes (n, M) int64 of a layer's input."""
        if torch.compiler.is_compiling():
            return self._traced_codes(rows)
        if not self._on_cpu:
            return self._encode(rows)
        x = rows.contiguous().numpy()
        require_finite(x, "x")
        return torch.from_numpy(self.encode_rows(x).astype(np.int64))

    def _traced_codes(self, rows: Tensor) -> Tensor:
        """Codes (n, M) int64 in PyTorch's operations alone, whatever the rows hold.

        Raises:
            NotImplementedError: these codes are found in a way that cannot be traced.
        """
        return self._encode(rows)


class Kept:
    """Holds what is made of a quantizer's parameters from one call to the next; a copy (or unpickling) of one starts
    empty."""

    value: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()
