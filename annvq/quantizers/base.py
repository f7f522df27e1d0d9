"""The quantizer contract: vectors to codes and back, and tables to scan codes with."""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import Self

from annvq import kernels, storage
from annvq.arrays import (
    check_vectors,
    chunks,
    dtype_name,
    like,
    normalized,
    positive_int,
    require_finite,
    rows_to_numpy,
    to_numpy,
)
from annvq.errors import FormatError, NotFittedError
from annvq.kernels.encode import MAX_NATIVE_M, AdditiveEncoder, decode_additive
from annvq.quantizers.norms import NORM_LEVELS, NormByte
from annvq.quantizers.registry import quantizer_class
from annvq.types import F32, Array

if TYPE_CHECKING:
    from annvq.complexity import OperationCounts
    from annvq.kernels import _native
    from annvq.training.estimators import Estimator
    from annvq.training.recipe import Recipe

METRICS = ("l2", "ip", "cosine")
ByteRowEncoder: TypeAlias = Callable[..., npt.NDArray[Any]]
"""Checked rows, and their centres where they have some, to codes."""

FORMAT, VERSIONS = "annvq.quantizer", (1, 2, 3, 4)
MAX_M = 1024
NORM_ROWS = 1 << 15  # vectors that are enough to learn how a norm is kept


class Quantized(NamedTuple):
    """What a quantizer's ``forward`` gives: the output vectors and the codes behind them."""

    xhat: Tensor  # (..., d) float32
    codes: Tensor  # (..., M) uint8 or uint16


class Tables(NamedTuple):
    """Distance tables of a batch of queries; lower scores are nearer.

    ``score(q, i) = ((luts[q, 0, c[0]] + luts[q, 1, c[1]]) + … + luts[q, M−1, c[M−1]]) + norm[i] + bias[q]``
    with ``c = codes[i]``, in float32 and in that order.
    """

    luts: F32  # (nq, M, K), padded with +inf where a codebook has fewer than K entries
    bias: F32  # (nq,)


def check_metric(metric: str) -> str:
    """``metric`` if it is one of :data:`METRICS`, else ValueError."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return metric


def check_nbits(nbits: Any, M: int) -> tuple[int, ...]:
    """Bits of every codebook, from one int or a sequence of M of them, each in 1..16."""
    if isinstance(nbits, np.ndarray) and nbits.ndim == 1:
        nbits = nbits.tolist()
    if isinstance(nbits, Sequence) and not isinstance(nbits, str | bytes):
        if len(nbits) != M:
            raise ValueError(f"nbits must be one int or M={M} of them, got {len(nbits)}: {tuple(nbits)}")
        return tuple(positive_int(b, "nbits", high=16) for b in nbits)
    return (positive_int(nbits, "nbits", high=16),) * M


class Quantizer(nn.Module, ABC):
    """Vectors to codes and back. Subclasses register a name and become covered by the contract tests.

    In training mode ``forward`` is the gradient estimator's output (NSVQ unless another is given), so that the
    gradient reaches the codebooks and the input; in eval mode it is ``decode(encode(x))``.
    """

    kind: ClassVar[str] = ""
    fitted: Tensor

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int], estimator: "Estimator | None") -> None:
        super().__init__()
        self.dim = positive_int(dim, "dim", high=1 << 20)
        self.M = positive_int(M, "M", high=MAX_M)
        self.bits_per_codebook = check_nbits(nbits, self.M)
        self.sizes = tuple(1 << b for b in self.bits_per_codebook)
        from annvq.training.estimators import NSVQ

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
    def costs(self) -> "OperationCounts":
        """Operations to encode one vector, as this quantizer does it (see :mod:`annvq.complexity`)."""

    def scan_view(self) -> "TableQuantizer":
        """A table quantizer over the same codes, for indexes to scan.

        Raises:
            TypeError: this quantizer has none.
        """
        raise TypeError(f"{type(self).__name__} has no additive tables and no fitted decoder that has")

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.items())

    # -- learning ------------------------------------------------------------------------------------------------

    def fit(self, x: Array, *, seed: int = 0, recipe: "Recipe | None" = None, progress: bool = False) -> Self:
        """Learn the codebooks (and norm levels) from ``x``; a second fit forgets the first, one that fails changes
        nothing.

        Args:
            x: learn vectors, float32 of shape (n, d), n at least the entries of the largest codebook. From
                arrays beyond the recipe's ``max_rows`` a seeded sample is used, so memory maps may exceed memory.
            seed: same seed, same machine, same threads: same result.
            recipe: how to learn; default: the recipe for this kind of quantizer.
            progress: show progress bars.

        Raises:
            TypeError, ValueError: x is not such an array, holds NaN or infinity, or has too few rows.
        """
        from annvq.training.recipe import default_recipe

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
            (default_recipe(self) if recipe is None else recipe).run(self, x, seed=seed, progress=progress)
        except BaseException:  # half-way, codebooks are in the recipe's own units
            self.load_state_dict(before)
            self.train(was_training)
            raise
        return self

    def mark_fitted(self) -> None:
        """Say that the codebooks hold learned values."""
        self.fitted.fill_(True)

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError, naming ``what`` was asked, unless the codebooks hold learned values."""
        if not bool(self.fitted):
            raise NotFittedError(f"{what} needs a fitted quantizer: call {type(self).__name__}.fit(x) first")

    # -- codes ---------------------------------------------------------------------------------------------------

    def encode(self, x: Array, *, progress: bool = False) -> Any:
        """Codes of vectors.

        Args:
            x: (n, d) vectors; read and converted in chunks.
            progress: show a progress bar.

        Returns:
            (n, M) codes of ``code_dtype``, NumPy or torch as ``x`` came.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: wrong kind, dtype, shape, or NaN or infinity.
        """
        self.require_fitted("encode")
        check_vectors(x, self.dim, "x")
        return like(self._encode_chunks(x, self._row_encoder(), progress), x)

    def encode_with_norm(self, x: Array, *, progress: bool = False) -> tuple[Any, Any]:
        """Codes of vectors and their norm bytes, for scoring with a one-byte norm.

        Where the byte's error would matter (see :meth:`TableQuantizer.fit_norms`) these are other codes than
        :meth:`encode` gives: a little further from the vectors, with norms that the byte holds better.

        Returns:
            codes (n, M) of ``code_dtype`` and bytes (n,) uint8, NumPy or torch as ``x`` came.

        Raises:
            NotFittedError: before ``fit``, or where no norm byte was learned.
            TypeError, ValueError: as :meth:`encode`; or these codes have no norm byte (product codes, norm-free codes).
        """
        self.require_fitted("encode_with_norm")
        check_vectors(x, self.dim, "x")
        view = self.scan_view()
        byte = view.norm_byte
        codes = self._encode_chunks(x, self._byte_row_encoder(byte, about_centres=False), progress)
        return like(codes, x), like(byte.encode_vectors(codes, view.norms(codes), view.squared_errors(x, codes)), x)

    def squared_errors(self, x: Array, codes: npt.NDArray[Any]) -> F32:
        """‖x − x̂‖² of checked vectors (n, d) and their codes (n, M), (n,)."""
        errors = np.empty(len(codes), np.float32)
        for start, stop in chunks(len(codes), self.dim):
            rest = rows_to_numpy(x, start, stop) - self.decode(codes[start:stop])
            errors[start:stop] = kernels.squared_norms(rest)
        return errors

    def encode_for_byte(self, x: F32, byte: NormByte, centres: F32) -> npt.NDArray[Any]:
        """Codes (n, M) of what vectors are beyond ``centres``, for scoring with ``byte`` as ‖C + x̂‖² − ‖C‖².

        Args:
            x: checked rows (n, d), relative to their centres.
            byte: learned on such values; where it is ``weighed`` codes are chosen with its error in mind.
            centres: (n, d).
        """
        encode, codes = self._byte_row_encoder(byte, about_centres=True), np.empty((len(x), self.M), self.code_dtype)
        for start, stop in chunks(len(x), self.dim, chunk_bytes=1 << 24):
            codes[start:stop] = encode(x[start:stop], centres[start:stop])
        return codes

    def _encode_chunks(self, x: Array, encode: Callable[[F32], npt.NDArray[Any]], progress: bool) -> npt.NDArray[Any]:
        n = int(x.shape[0])
        codes = np.empty((n, self.M), dtype=self.code_dtype)
        ranges: Iterable[tuple[int, int]] = chunks(n, self.dim, chunk_bytes=1 << 24)
        if progress:
            from tqdm import tqdm

            ranges = tqdm(list(ranges), desc="encode", unit="chunk")
        for start, stop in ranges:
            codes[start:stop] = encode(rows_to_numpy(x, start, stop))
        return codes

    def _row_encoder(self) -> Callable[[F32], npt.NDArray[Any]]:
        """A function that encodes checked rows with the codebooks as they are now; guts of :meth:`encode`.

        On the CPU subclasses give a native encoder, made ready once for many calls; elsewhere, and as the plain form
        that tests compare with, codes come from :meth:`_encode`.
        """
        return self._encode_in_torch

    def _byte_row_encoder(self, byte: NormByte, *, about_centres: bool) -> ByteRowEncoder:
        """As :meth:`_row_encoder`, for codes that a norm byte goes with; with ``about_centres`` the norm is about
        centres of the rows' own, which the function takes too."""
        encode = self._row_encoder()
        return lambda x, centres=None: encode(x)

    @torch.no_grad()
    def _encode_in_torch(self, x: F32) -> npt.NDArray[Any]:
        return self._encode(torch.as_tensor(x).to(self.fitted.device)).cpu().numpy()

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
        self.require_fitted("decode")
        checked = self.check_codes(codes)
        out = np.empty((len(checked), self.dim), dtype=np.float32)
        with torch.no_grad():
            for start, stop in chunks(len(checked), self.dim * (self.M + 1)):
                part = torch.from_numpy(checked[start:stop].astype(np.int64)).to(self.fitted.device)
                out[start:stop] = self._decode(part).cpu().numpy()
        return like(out, codes)

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Vectors (n, d) of int64 codes (n, M), differentiable in the codebooks; no validation."""

    def check_codes(self, codes: Array) -> npt.NDArray[Any]:
        """``codes`` as a NumPy array once it is known to hold (n, M) codes in range."""
        wanted = f"{self.code_dtype} of shape (n, {self.M})"
        if not (hasattr(codes, "dtype") and hasattr(codes, "shape")):
            raise TypeError(f"codes must be {wanted}, got {type(codes).__name__}")
        array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        if array.dtype.kind not in "iu":
            raise TypeError(f"codes must be {wanted}, got {dtype_name(codes)}")
        if array.ndim != 2 or array.shape[1] != self.M:
            raise ValueError(f"codes must be {wanted}, got {dtype_name(codes)} {tuple(array.shape)}")
        if len(array):
            low, high = int(array.min()), array.max(axis=0)
            over = high.astype(np.int64) >= np.asarray(self.sizes)
            if low < 0 or over.any():
                raise ValueError(f"codes must lie in 0..K−1 with K = {self.sizes}; got {low}..{int(high.max())}")
        return array

    def forward(self, x: Tensor) -> Quantized:
        """Quantize as a layer: ``x`` is (..., d) float32; see the class for training and eval mode.

        Training-mode use counts as learning: afterwards the codebooks may encode.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1 or x.shape[-1] != self.dim:
            found = f"{dtype_name(x)} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a float tensor of shape (..., {self.dim}), got {found}")
        if self.training:
            self.mark_fitted()
        else:
            self.require_fitted("forward in eval mode")
        rows = x.reshape(-1, self.dim)
        codes = self._layer_codes(rows.detach().float())
        xhat = self._decode(codes).to(x.dtype)
        if self.training:
            xhat = self.estimator(rows, xhat)
        dtype = torch.uint8 if self.code_dtype == np.uint8 else torch.uint16
        return Quantized(xhat.reshape(x.shape), codes.to(dtype).reshape(*x.shape[:-1], self.M))

    @torch.no_grad()
    def _layer_codes(self, rows: Tensor) -> Tensor:
        """Codes (n, M) int64 of a layer's input."""
        if not self._on_cpu:
            return self._encode(rows)
        x = rows.contiguous().numpy()
        require_finite(x, "x")
        return torch.from_numpy(self._row_encoder()(x).astype(np.int64))

    # -- files ---------------------------------------------------------------------------------------------------

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors, for a file that holds this quantizer among other things."""
        tensors = {name: t.detach().cpu().numpy() for name, t in self.state_dict().items()}
        return {"kind": self.kind, **self.config}, tensors

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the quantizer to one file, atomically. Raises NotFittedError before ``fit``."""
        self.require_fitted("save")
        config, tensors = self.to_stored()
        storage.write(path, FORMAT, VERSIONS[-1], config, tensors)


def from_stored(
    config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], where: str = "the file"
) -> Quantizer:
    """The inverse of :meth:`Quantizer.to_stored`; FormatError where config and tensors do not fit together."""
    arguments = dict(config)
    try:
        kind = arguments.pop("kind")
        # On the meta device nothing is allocated, so a hostile config costs nothing before shapes are compared.
        with torch.device("meta"):
            quantizer = quantizer_class(kind).from_config(arguments)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as e:
        raise FormatError(f"{where} holds a quantizer that cannot be built: {e}") from None
    expected = {
        name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in quantizer.state_dict().items()
    }
    tensors = {**_absent_in_earlier_versions(expected, tensors), **tensors}
    found = {name: (str(a.dtype), a.shape) for name, a in tensors.items()}
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise FormatError(f"{where} is corrupt: quantizer tensors {', '.join(wrong)} do not fit its config")
    for name, a in tensors.items():
        # Norm levels are NaN until they are learned; whoever needs them asks.
        if a.dtype.kind == "f" and name.split(".")[-1] != "norm_levels" and not np.isfinite(a).all():
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} holds NaN or infinity")
        if name.split(".")[-1] == "error_share" and not 0 <= float(a) <= 1:
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} is not in [0, 1] ({float(a):.3g})")
        # Zero is that of codes whose norms were never learned.
        if name.split(".")[-1] == "norm_weight" and float(a) < 0:
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} is negative ({float(a):.3g})")
    quantizer.load_state_dict({k: torch.from_numpy(np.array(a)) for k, a in tensors.items()}, assign=True)
    return quantizer.eval()


def _absent_in_earlier_versions(
    expected: Mapping[str, tuple[str, tuple[int, ...]]], tensors: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Norm offsets of zero and codes that do not weigh the norm, which is what a norm byte meant in version 1; norms
    about zero, which they were before version 3; bytes without a share of the error, before version 4."""
    added = ("norm_offsets", "weighs_norm", "centred", "error_share")
    new = [n for n in expected if n.split(".")[-1] in added and n not in tensors]
    return {name: np.zeros(expected[name][1], expected[name][0]) for name in new}


def load_quantizer(path: str | os.PathLike[str]) -> Quantizer:
    """Read a quantizer written by :meth:`Quantizer.save`, in eval mode.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not such a file, an unknown version, truncated or corrupt.
    """
    stored = storage.read(path, FORMAT, VERSIONS)
    return from_stored(stored.config, stored.tensors, os.fspath(path))


class TableQuantizer(Quantizer):
    """A quantizer whose vectors are sums (or concatenations) of codebook entries, so that distances are sums of
    table entries.

    The codebooks lie in one parameter ``weight`` of shape (ΣK, width), codebook after codebook. ``width`` is d for
    codebooks over the whole vector, d/M for product codebooks; ``starts[m]`` is the first dimension of codebook m.
    """

    sums: ClassVar[bool] = False
    """Whether x̂ is the sum of entries over all dimensions; else each codebook has dimensions of its own."""

    needs_norm: bool
    """Whether squared Euclidean distance needs ‖x̂‖² beside the tables."""

    norm_levels: Tensor
    norm_offsets: Tensor
    weighs_norm: Tensor
    """Whether codes are chosen with the norm byte's error in mind, which ``fit_norms`` decides."""
    error_share: Tensor
    """Of ‖x − x̂‖², what is kept with norms by bytes and norm-free codes; zero until ``fit_norms``."""
    centred: Tensor
    """Whether norms are about :attr:`origin`, so that float32 holds them however far from zero the data lie; those of
    files before version 3, and of FAISS, are about zero."""

    def __init__(
        self, dim: int, M: int, nbits: int | Sequence[int], estimator: "Estimator | None", *, width: int
    ) -> None:
        super().__init__(dim, M, nbits, estimator)
        self.width = width
        step = 0 if self.sums else width
        self.starts = tuple(m * step for m in range(self.M))
        """First dimension of the vector that each codebook covers."""
        self.offsets = (0, *itertools.accumulate(self.sizes))
        self._tables = kernels.TableCache()
        self.weight = nn.Parameter(torch.empty(self.offsets[-1], width))
        if self.needs_norm:
            self._register_norm_byte()
        self.reset_parameters()

    def _register_norm_byte(self) -> None:
        self.register_buffer("norm_levels", torch.full((NORM_LEVELS,), torch.nan))
        self.register_buffer("norm_offsets", torch.zeros(self.offsets[-1]))
        self.register_buffer("weighs_norm", torch.zeros((), dtype=torch.bool))
        self.register_buffer("error_share", torch.zeros(()))
        self.register_buffer("centred", torch.ones((), dtype=torch.bool))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random normal codebooks, whose sums have about unit variance; for training from scratch."""
        if self.weight.is_meta:  # random numbers there would import a second of PyTorch's internals for nothing
            return
        self.weight.normal_(0.0, self.M**-0.5 if self.sums else 1.0)
        self.fitted.fill_(False)

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """M views (K_m, width) into ``weight``."""
        return tuple(self.weight[a:b] for a, b in itertools.pairwise(self.offsets))

    @torch.no_grad()
    def set_codebooks(self, codebooks: Sequence[Array]) -> Self:
        """Take codebooks trained elsewhere: M arrays (K_m, width), or one of shape (M, K, width).

        Norm levels are forgotten: call :meth:`fit_norms` where a uint8 norm is wanted.

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

    def forget_norms(self) -> None:
        """Forget how the uint8 norm was learned, as codebooks have changed."""
        if self.needs_norm:
            self.norm_levels.fill_(torch.nan)
            self.norm_offsets.zero_()
            self.weighs_norm.fill_(False)
            self.error_share.zero_()
            self.centred.fill_(True)

    def move(self, mean: F32, scale: float) -> None:
        """Bring codebooks learned on ``(x − mean) / scale`` to x's own offset (d,) and scale."""
        books = [b.detach().cpu().numpy() * np.float32(scale) for b in self.codebooks]
        if self.sums:
            books[0] = books[0] + mean
        else:
            books = [b + mean[s : s + self.width] for b, s in zip(books, self.starts, strict=True)]
        self.set_codebooks(books)

    def codebooks_copy(self) -> F32:
        """A copy of all codebooks, (ΣK, width) float32."""
        return self._entries().copy()

    def scan_view(self) -> "TableQuantizer":
        return self

    def _byte_row_encoder(self, byte: NormByte, *, about_centres: bool) -> ByteRowEncoder:
        plain = super()._byte_row_encoder(byte, about_centres=about_centres)
        if not byte.weighed or not self._on_cpu or not 1 < self.M <= MAX_NATIVE_M:
            return plain
        # The norm is that of x̂, so codes are improved where x̂ is: among entries over all d dimensions.
        origin = np.zeros(self.dim, np.float32) if about_centres else self.origin
        entries = self._whole(self._entries()) if about_centres else self._norm_entries()
        encoder = AdditiveEncoder(entries, self.sizes)
        if not encoder.has_gram:
            return plain
        return lambda x, centres=None: encoder.norm_search(
            x - origin,
            plain(x),
            byte.offsets,
            byte.levels,
            error_share=byte.error_share,
            centres=centres,
        )

    @property
    def origin(self) -> F32:
        """What norms are about, (d,) float32: the sum of the codebooks' centres (see :attr:`centred`).

        With o for it, ‖q − x̂‖² = ‖q − o‖² − 2⟨q − o, x̂ − o⟩ + ‖x̂ − o‖²: small terms, where those about zero are large
        and cancel on data far from zero.
        """
        return self._centre() if self.about_origin else np.zeros(self.dim, np.float32)

    @property
    def about_origin(self) -> bool:
        """Whether norms are about :attr:`origin`, whatever it is; False for codes that keep none."""
        centred = self._buffers.get("centred")
        return centred is not None and bool(centred)

    def _centre(self) -> F32:
        """The sum of the codebooks' centres, (d,)."""
        return self._summed(self._builder(centred=True)[1])

    def _summed(self, centres: F32) -> F32:
        """The sum over all d dimensions of one vector for each codebook, (M, width)."""
        if self.width == self.dim:
            total: F32 = centres.sum(axis=0)
            return total
        out = np.zeros(self.dim, np.float32)
        for start, centre in zip(self.starts, centres, strict=True):
            out[start : start + self.width] += centre
        return out

    def _norm_entries(self) -> F32:
        """Entries whose sums are x̂ − :attr:`origin`, over all d dimensions, (ΣK, d)."""
        return self._whole(self._centred_entries() if self.about_origin else self._entries())

    def _centred_entries(self) -> F32:
        """Entries less their codebooks' centres, (ΣK, width)."""
        return self._entries() - np.repeat(self._builder(centred=True)[1], self.sizes, axis=0)

    def _whole(self, entries: F32) -> F32:
        """Entries (ΣK, width) over all d dimensions, zero where a codebook has no part, (ΣK, d)."""
        if self.width == self.dim:
            return entries
        whole = np.zeros((len(entries), self.dim), np.float32)
        for start, (first, last) in zip(self.starts, itertools.pairwise(self.offsets), strict=True):
            whole[first:last, start : start + self.width] = entries[first:last]
        return whole

    # -- tables --------------------------------------------------------------------------------------------------

    def tables(self, queries: Array, metric: str = "l2") -> Tables:
        """Distance tables of queries against the codebooks.

        Args:
            queries: (nq, d) vectors.
            metric: ``"l2"`` squared Euclidean distance, ``"ip"`` −⟨q, x̂⟩, ``"cosine"`` 1 − ⟨q/‖q‖, x̂⟩.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: wrong kind, dtype, shape, NaN or infinity, an unknown metric, a zero query under
                cosine, or queries so long that tables overflow.
        """
        luts, bias = self.lazy_tables(queries, metric)
        built = luts.build()
        if not built.min(initial=0.0) > -np.inf:
            raise ValueError("queries must be shorter: products with codebook entries overflow float32")
        return Tables(built, bias)

    def lazy_tables(self, queries: Array, metric: str = "l2") -> "tuple[kernels.LazyTables, F32]":
        """What :meth:`tables` gives, its entries not built yet: a scan builds them as it goes, which is faster."""
        self.require_fitted("tables")
        check_metric(metric)
        q = to_numpy(queries, self.dim, "queries", rows="nq")
        if metric == "cosine":
            q = normalized(q, "queries")
        bias = np.ones(len(q), np.float32) if metric == "cosine" else np.zeros(len(q), np.float32)
        if metric == "l2" and self.sums:
            builder, centres = self._builder(centred=self.about_origin)
            q = q - self._summed(centres)
            return kernels.LazyTables(builder, q, False, -2.0), kernels.squared_norms(q)
        l2, scale = metric == "l2", -1.0
        luts = self._tables.of_parameter(q, self.weight, self.sizes, self.starts, squared=l2, scale=scale)
        return luts, bias

    def _builder(self, *, centred: bool) -> "tuple[_native.TableBuilder, F32]":
        """What builds tables of the codebooks as they are, or less their centres; and these, (M, width)."""
        entries = self._tables.entries_of(self.weight)
        return self._tables.builder(entries, self.sizes, self.starts, centred=centred)

    def _entries(self) -> F32:
        """``weight`` as a NumPy array (no copy on the CPU)."""
        return np.ascontiguousarray(self.weight.detach().cpu().numpy(), dtype=np.float32)

    # -- norms ---------------------------------------------------------------------------------------------------

    def norms(self, codes: Array) -> Any:
        """What squared distance needs beside the tables, (n,) float32: ‖x̂ − o‖² of each code, with o for
        :attr:`origin`; None where tables alone give the distance (product codes)."""
        if not self.needs_norm:
            return None
        self.require_fitted("norms")
        checked = self.check_codes(codes)
        entries, out = self._norm_entries(), np.empty(len(checked), dtype=np.float32)
        for start, stop in chunks(len(checked), self.dim):
            out[start:stop] = kernels.squared_norms(decode_additive(checked[start:stop], entries, self.sizes))
        return like(out, codes)

    @property
    def has_norm_levels(self) -> bool:
        """Whether the levels of the uint8 norm have been learned."""
        return self.needs_norm and bool(torch.isfinite(self.norm_levels).all())

    def fit_norms(self, x: Array, *, seed: int = 0) -> Self:
        """Learn the uint8 norm from vectors, as ``fit`` does; for codebooks set by hand.

        See :class:`~annvq.quantizers.norms.NormByte`.

        Where the byte's error comes near the codes' own, ``encode_with_norm`` will choose codes with it in mind.

        Args:
            x: (n, d) vectors, n at least 1; at most 32,768 of them are used (50,000 where norms
                follow from codes), a seeded sample.
        """
        from annvq.training.norms import expected_offsets, fit_norm_byte

        self.require_fitted("fit_norms")
        check_vectors(x, self.dim, "x")
        if not self.needs_norm:
            return self
        sample = self._norm_sample(x, NORM_ROWS, seed)
        codes = self.encode(sample)
        start = expected_offsets(codes, self._norm_entries(), self.sizes)
        norms = self.norms(codes)
        errors = self.squared_errors(sample, codes)
        learned = fit_norm_byte(codes, norms, self.sizes, start=start, code_error=errors)
        self.norm_levels.copy_(torch.from_numpy(learned.levels))
        self.norm_offsets.copy_(torch.from_numpy(learned.offsets))
        self.weighs_norm.fill_(learned.weighed)
        self.error_share.fill_(learned.error_share)
        return self

    def _norm_sample(self, x: Array, count: int, seed: int) -> F32:
        """At most ``count`` rows of ``x``, a seeded sample; ValueError where there are none."""
        check_vectors(x, self.dim, "x")
        n = int(x.shape[0])
        if n == 0:
            raise ValueError("x must have at least one row to learn norms from, got none")
        rows = np.sort(np.random.default_rng(seed).permutation(n)[:count])
        return to_numpy(x if len(rows) == n else x[rows], self.dim)

    @property
    def norm_byte(self) -> NormByte:
        """How one byte stands for ‖x̂‖² and a share of the error (``norm="uint8"``).

        Raises:
            ValueError: these codes have none, as they need no norm (product codes, norm-free codes).
            NotFittedError: it was never learned (``fit`` or ``fit_norms``).
        """
        if not self.needs_norm:
            raise ValueError(
                "product codes and norm-free codes have no norm byte: use encode(x), and norm=None in indexes"
            )
        if not self.has_norm_levels:
            raise NotFittedError('norm="uint8" needs learned norm levels: call fit(x) or fit_norms(x) first')
        offsets, levels = self.norm_offsets.cpu().numpy(), self.norm_levels.cpu().numpy()
        return NormByte(self.sizes, offsets, levels, bool(self.weighs_norm), float(self.error_share))
