"""The quantizer contract: vectors to codes and back."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm
from typing_extensions import Self

from annvq import storage
from annvq.arrays import check_vectors, chunks, dtype_name, like, positive_int, require_finite, rows_to_numpy
from annvq.complexity import OperationCounts
from annvq.errors import NotFittedError
from annvq.norms import Length, NormTerm
from annvq.training.estimators import NSVQ, Estimator
from annvq.training.recipe import Recipe
from annvq.types import F32, Array, Codes

FORMAT, VERSIONS = "annvq.quantizer", (1, 2, 3, 4)
MAX_M = 1024
LENGTH_TRIES, LENGTH_TOLERANCE = 3, 0.005
_CHUNK_BYTES = 1 << 24  # of vectors that are encoded at a time


class Quantized(NamedTuple):
    """What a quantizer's ``forward`` gives: the output vectors and the codes behind them."""

    xhat: Tensor  # (..., d) float32
    codes: Tensor  # (..., M) uint8 or uint16


def check_nbits(nbits: Any, M: int) -> tuple[int, ...]:
    """Bits of every codebook, from one int or a sequence of M of them, each in 1..16."""
    if isinstance(nbits, np.ndarray) and nbits.ndim == 1:
        nbits = nbits.tolist()
    if isinstance(nbits, Sequence) and not isinstance(nbits, str | bytes):
        if len(nbits) != M:
            raise ValueError(f"nbits must be one int or M={M} of them, got {len(nbits)}: {tuple(nbits)}")
        return tuple(positive_int(b, "nbits", high=16) for b in nbits)
    return (positive_int(nbits, "nbits", high=16),) * M


def check_codes(codes: Array, sizes: Sequence[int], dtype: np.dtype[Any]) -> Codes:
    """``codes`` as a NumPy array once it is known to hold (n, M) integers, each below its codebook's size.

    Raises:
        TypeError, ValueError: wrong kind, dtype or shape; a code out of range.
    """
    wanted = f"{dtype} of shape (n, {len(sizes)})"
    if not (hasattr(codes, "dtype") and hasattr(codes, "shape")):
        raise TypeError(f"codes must be {wanted}, got {type(codes).__name__}")
    array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"codes must be {wanted}, got {dtype_name(codes)}")
    if array.ndim != 2 or array.shape[1] != len(sizes):
        raise ValueError(f"codes must be {wanted}, got {dtype_name(codes)} {tuple(array.shape)}")
    if len(array):
        low, high = int(array.min()), array.max(axis=0)
        over = high.astype(np.int64) >= np.asarray(sizes)
        if low < 0 or over.any():
            raise ValueError(f"codes must lie in 0..K−1 with K = {sizes}; got {low}..{int(high.max())}")
    return array


class Quantizer(nn.Module, ABC):
    """Vectors to codes and back. Subclasses register a name and become covered by the contract tests.

    In training mode ``forward`` is the gradient estimator's output (NSVQ unless another is given), so that the
    gradient reaches the codebooks and the input; in eval mode it is ``decode(encode(x))``.

    In eval mode ``forward``, ``encode(x)`` and ``decode(codes)`` of tensors go through ``torch.export`` and
    ``torch.compile(fullgraph=True)``, with a batch of any size: product, residual and rotated or linearly mapped codes
    give what they give outside but for near ties; additive codes are those of a beam search, further from the vectors
    than those of local search outside. Norm-free codes can be decoded, but not encoded (NotImplementedError). Nothing
    is checked there: neither that the quantizer is fitted nor that values are finite and codes in range.
    """

    kind: ClassVar[str] = ""
    fitted: Tensor

    needs_norm: bool = True
    """Whether squared distance to these codes needs a number per vector beside the tables of :meth:`scan_view`."""

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int], estimator: Estimator | None) -> None:
        super().__init__()
        self.dim = positive_int(dim, "dim", high=1 << 20)
        self.M = positive_int(M, "M", high=MAX_M)
        self.bits_per_codebook = check_nbits(nbits, self.M)
        self.sizes = tuple(1 << b for b in self.bits_per_codebook)
        if estimator is not None and not callable(estimator):
            raise TypeError(f"estimator must be an estimator such as NSVQ(), got {estimator!r}")
        self.estimator: Estimator = NSVQ() if estimator is None else estimator
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def nbits(self) -> int | tuple[int, ...]:
        """Bits per codebook: one int where all are equal, else a tuple of M."""
        bits = self.bits_per_codebook
        return bits[0] if len(set(bits)) == 1 else bits

    @property
    def bits(self) -> int:
        """Bits of one code: the sum of nbits over the codebooks, without any norm."""
        return sum(self.bits_per_codebook)

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """uint8 if every nbits is at most 8, else uint16."""
        return np.dtype(np.uint8 if max(self.bits_per_codebook) <= 8 else np.uint16)

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON holds them: ``make(q.kind, **q.config)`` gives an unfitted twin."""
        nbits = self.nbits
        return {"dim": self.dim, "M": self.M, "nbits": nbits if isinstance(nbits, int) else list(nbits)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of :attr:`config`.

        Raises:
            ValueError, TypeError: an unknown or missing argument, or one the constructor refuses.
        """
        return cls(**config)

    @abstractmethod
    def costs(self) -> OperationCounts:
        """Operations to encode one vector, as this quantizer does it (see :mod:`annvq.complexity`)."""

    def scan_view(self) -> Any:
        """A :class:`~annvq.quantizers.TableQuantizer` over the same codes, for indexes to scan: codes without additive
        tables of their own bring a decoder fitted to them that has some.

        Raises:
            TypeError: this quantizer has none.
        """
        raise TypeError(f"{type(self).__name__} has no additive tables and no fitted decoder that has")

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.items())

    # -- learning ------------------------------------------------------------------------------------------------

    @abstractmethod
    def default_recipe(self) -> Recipe:
        """How ``fit`` learns unless it is told otherwise."""

    def fit(self, x: Array, *, seed: int = 0, recipe: Recipe | None = None, progress: bool = False) -> Self:
        """Learn the codebooks (and norm levels) from ``x``; a second fit forgets the first, one that fails changes
        nothing.

        Args:
            x: learn vectors, float32 of shape (n, d), n at least the entries of the largest codebook. From
                arrays beyond the recipe's ``max_rows`` a seeded sample is used, so memory maps may exceed memory.
            seed: same seed, same machine, same threads: same result.
            recipe: how to learn; default: :meth:`default_recipe`.
            progress: show progress bars.

        Raises:
            TypeError, ValueError: x is not such an array, holds NaN or infinity, or has too few rows.
        """
        check_vectors(x, self.dim, "x")
        least = max(self.sizes)
        if int(x.shape[0]) < least:
            raise ValueError(
                f"x must have at least {least} rows, one for each entry of a codebook, got {int(x.shape[0])}; "
                f"give more vectors or fewer nbits"
            )
        seed = positive_int(seed, "seed", low=0, high=2**63 - 1)
        before, was_training = {name: t.detach().clone() for name, t in self.state_dict().items()}, self.training
        try:
            (self.default_recipe() if recipe is None else recipe).run(self, x, seed=seed, progress=progress)
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

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError, naming ``what`` was asked, unless the codebooks hold learned values."""
        if not bool(self.fitted):
            raise NotFittedError(f"{what} needs a fitted quantizer: call {type(self).__name__}.fit(x) first")

    def require_encodes(self, what: str) -> None:
        """Raise NotFittedError, naming ``what`` was asked, unless all is learned that encoding takes."""
        self.require_fitted(what)

    # -- codes ---------------------------------------------------------------------------------------------------

    def encode(
        self, x: Array, *, term: NormTerm | Length | None = None, centres: Array | None = None, progress: bool = False
    ) -> Any:
        """Codes of vectors.

        Args:
            x: (n, d) vectors; read and converted in chunks.
            term: what an index keeps beside these codes. Where it is ``weighed``, other codes are chosen than without:
                a little further from the vectors, with norms that it holds better. A :class:`~annvq.norms.Length` asks
                for codes whose x̂ has about that length.
            centres: (n, d), where ``term`` is of C + x̂ and x is what vectors are beyond these centres C.
            progress: show a progress bar.

        Returns:
            (n, M) codes of ``code_dtype``, NumPy or torch as ``x`` came.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: wrong kind, dtype, shape, or NaN or infinity.
        """
        if torch.compiler.is_compiling():
            with torch.no_grad():
                return self._traced_codes(x.float()).to(self._torch_code_dtype)
        self.require_encodes("encode")
        check_vectors(x, self.dim, "x")
        if isinstance(term, NormTerm) and term.sizes != self.sizes:
            raise ValueError(f"term must be of codebooks of {self.sizes} entries, got {term.sizes}")
        if centres is not None:
            check_vectors(centres, self.dim, "centres")
        codes = np.empty((int(x.shape[0]), self.M), dtype=self.code_dtype)
        ranges: Iterable[tuple[int, int]] = chunks(len(codes), self.dim, chunk_bytes=_CHUNK_BYTES)
        if progress:
            ranges = tqdm(list(ranges), desc="encode", unit="chunk")
        for a, b in ranges:
            about = None if centres is None else rows_to_numpy(centres, a, b, "centres")
            codes[a:b] = self.encode_rows(rows_to_numpy(x, a, b), term, about)
        return like(codes, x)

    def encode_rows(self, x: F32, term: NormTerm | Length | None = None, centres: F32 | None = None) -> Codes:
        """:meth:`encode` of checked rows (n, d): nothing is looked at again."""
        if len(x) * self.dim * 4 <= _CHUNK_BYTES:
            return self._encode_chunk(x, term, centres)
        codes = np.empty((len(x), self.M), self.code_dtype)
        for a, b in chunks(len(x), self.dim, chunk_bytes=_CHUNK_BYTES):
            codes[a:b] = self._encode_chunk(x[a:b], term, None if centres is None else centres[a:b])
        return codes

    def _encode_chunk(self, x: F32, term: NormTerm | Length | None, centres: F32 | None) -> Codes:
        if isinstance(term, Length):
            return self._codes_of_length(x, term, centres)
        return self._encode_rows(x, term, centres)

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        """Codes of a chunk of rows whose x̂ has about this length.

        A longer vector has a longer x̂, and under cosine a vector's length says nothing: so it is the code of the
        vector made longer or shorter until x̂ is right, to :data:`LENGTH_TOLERANCE` or as near as few tries come.
        """
        codes, decoder = self._encode_rows(x, None, centres), self.scan_view()
        near = length.miss(decoder.decode_rows(codes), centres)
        factor, left = np.ones(len(x)), np.arange(len(x))
        tried = near.copy()
        for _ in range(LENGTH_TRIES):
            off = np.abs(tried - 1) > LENGTH_TOLERANCE
            left, tried = left[off], tried[off]
            if not len(left):
                break
            factor[left] /= np.maximum(tried, 0.1)
            about = None if centres is None else centres[left]
            whole = x[left] if about is None else x[left] + about
            stretched = (whole * factor[left, None]).astype(np.float32)
            found = self._encode_rows(stretched if about is None else stretched - about, None, about)
            tried = length.miss(decoder.decode_rows(found), about)
            better = np.abs(tried - 1) < np.abs(near[left] - 1)
            codes[left[better]], near[left[better]] = found[better], tried[better]
        return codes

    def _encode_rows(self, x: F32, term: NormTerm | None, centres: F32 | None) -> Codes:
        """Codes of a chunk of rows. On the CPU subclasses have native encoders; elsewhere, and as the plain form that
        tests compare with, codes come from :meth:`_encode`."""
        return self._encode_in_torch(x)

    @torch.no_grad()
    def _encode_in_torch(self, x: F32) -> Codes:
        codes = self._encode(torch.as_tensor(x).to(self.fitted.device)).cpu().numpy()
        return codes.astype(self.code_dtype, copy=False)

    @property
    def _on_cpu(self) -> bool:
        return self.fitted.device.type == "cpu"

    @abstractmethod
    def _encode(self, x: Tensor) -> Tensor:
        """Codes (n, M) int64 of float32 (n, d) on the module's device; no gradient, no validation."""

    def decode(self, codes: Array) -> Any:
        """Vectors of codes.

        Args:
            codes: (n, M) integers, each below its codebook's size.

        Returns:
            (n, d) float32, NumPy or torch as ``codes`` came.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: wrong kind, dtype, shape, or a code out of range.
        """
        if torch.compiler.is_compiling():
            return self._decode(codes.long())
        self.require_fitted("decode")
        return like(self.decode_rows(self.check_codes(codes)), codes)

    def decode_rows(self, codes: Codes) -> F32:
        """:meth:`decode` of checked codes (n, M)."""
        out = np.empty((len(codes), self.dim), dtype=np.float32)
        with torch.no_grad():
            for start, stop in chunks(len(codes), self.dim * (self.M + 1)):
                part = torch.from_numpy(codes[start:stop].astype(np.int64)).to(self.fitted.device)
                out[start:stop] = self._decode(part).cpu().numpy()
        return out

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Vectors (n, d) of int64 codes (n, M), differentiable in the codebooks; no validation."""

    def check_codes(self, codes: Array) -> Codes:
        """``codes`` as a NumPy array once it is known to hold (n, M) codes in range; TypeError or ValueError if not."""
        return check_codes(codes, self.sizes, self.code_dtype)

    def forward(self, x: Tensor) -> Quantized:
        """Quantize as a layer: ``x`` is (..., d) float32; see the class for training and eval mode.

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
        codes = self._layer_codes(rows.detach().float())
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

    # -- files ---------------------------------------------------------------------------------------------------

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors, for a file that holds this quantizer among other things."""
        tensors = {name: t.detach().cpu().numpy() for name, t in self.state_dict().items()}
        return {"kind": self.kind, **self.config}, tensors

    def save(self, target: storage.Target) -> None:
        """Write the quantizer to one file, atomically, or into a file object opened in binary mode.

        Raises:
            NotFittedError: before ``fit``.
            OSError, ValueError, TypeError: it cannot be written there, see :func:`annvq.storage.write`.
        """
        self.require_fitted("save")
        config, tensors = self.to_stored()
        storage.write(target, FORMAT, VERSIONS[-1], config, tensors)

    def to_bytes(self) -> bytes:
        """What :meth:`save` writes; :func:`annvq.load_quantizer` takes it. Raises NotFittedError before ``fit``."""
        file = io.BytesIO()
        self.save(file)
        return file.getvalue()
