"""What a fitted quantizer does, in NumPy and native code alone: vectors to codes and back, tables, files.

A *coder* is that which an index needs of a quantizer. It has the quantizer's arguments, and arrays by the names that
files give them; PyTorch is not loaded for it. A quantizer (:mod:`annvq.quantizers.modules`) is a coder whose arrays are
parameters and buffers of an ``nn.Module``, and which learns.
"""

import itertools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from annvq import storage
from annvq.arrays import check_vectors, chunks, host_array, like, positive_int, rows_to_numpy
from annvq.bits import even_widths
from annvq.codebooks import Codebooks
from annvq.complexity import OperationCounts
from annvq.errors import NotFittedError
from annvq.forks import made_once
from annvq.norms import Length, NormTerm
from annvq.optional import needed_by
from annvq.quantizers.codes import CodeShape
from annvq.quantizers.lengths import codes_of_length
from annvq.types import F32, Array, Codes, Self

FORMAT, VERSIONS = "annvq.quantizer", (1, 2, 3, 4)
_CHUNK_BYTES = 1 << 24  # of vectors that are encoded at a time

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""dtype and shape of arrays, by name."""


class Coder(CodeShape, ABC):
    """A fitted quantizer without its learning.

    Args:
        dim: d of the vectors.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
    """

    kind: ClassVar[str] = ""
    fitted: Any
    """Whether the codebooks hold learned values; ask ``bool(fitted)``."""

    needs_norm: bool = True
    """Whether squared distance to these codes needs a number per vector beside the tables of :meth:`scan_view`."""

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int]) -> None:
        self.dim = positive_int(dim, "dim", high=1 << 20)
        super().__init__(M, nbits)
        self._declare("fitted", "bool", ())

    # -- arrays ----------------------------------------------------------------------------------------------------

    def _declare(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Say that there is an array of this name: here one that :meth:`fill` brings, in a module a tensor of zeros."""
        self.__dict__.setdefault("_shapes", {})[name] = (dtype, shape)

    def _array(self, name: str) -> npt.NDArray[Any]:
        """The array of this name, over its own memory where that is main memory."""
        array: npt.NDArray[Any] = host_array(getattr(self, name))
        return array

    def _put(self, name: str, value: Any) -> None:
        """Write to the array of this name."""
        getattr(self, name)[...] = value

    def shapes(self) -> Shapes:
        """What :meth:`fill` takes."""
        shapes: Shapes = self.__dict__["_shapes"]
        return shapes

    def fill(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take arrays of these :meth:`shapes`, which nobody else changes."""
        for name in self.__dict__["_shapes"]:
            setattr(self, name, arrays[name])
        return self

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays."""
        return {name: self._array(name) for name in self.__dict__["_shapes"]}

    # -- facts ---------------------------------------------------------------------------------------------------

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
        """A :class:`~annvq.quantizers.TableCoder` over the same codes, for indexes to scan: codes without additive
        tables of their own bring a decoder fitted to them that has some.

        Raises:
            TypeError: this quantizer has none.
        """
        raise TypeError(f"{type(self).__name__} has no additive tables and no fitted decoder that has")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config.items())})"

    # -- learning, which takes PyTorch -------------------------------------------------------------------------------

    def as_module(self) -> Any:
        """The same as a :class:`~annvq.quantizers.Quantizer`, an ``nn.Module`` over these very arrays; made once.

        Raises:
            ImportError: PyTorch is not installed.
        """
        return self._module

    @made_once
    def _module(self) -> Any:
        with needed_by(f"learning with {self.kind} codes"):
            # By name, as annvq's own names load: modules are coders, and stand above this file.
            modules = import_module("annvq.quantizers.modules")
            return modules.module_of(self)

    def fit(self, *_: Any, **__: Any) -> NoReturn:
        """A coder does not learn: :meth:`as_module` does.

        Raises:
            ImportError: PyTorch is not installed.
            TypeError: it is.
        """
        self._refuse("fit")

    def forward(self, *_: Any) -> NoReturn:
        """A coder is no layer: :meth:`as_module` is. Raises as :meth:`fit` does."""
        self._refuse("forward")

    def __call__(self, *_: Any) -> Any:
        self._refuse("forward")

    def _refuse(self, what: str) -> NoReturn:
        self.as_module()
        raise TypeError(f"{type(self).__name__} has no {what}: call as_module().{what}")

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError, naming ``what`` was asked, unless the codebooks hold learned values."""
        if not bool(self.fitted):
            raise NotFittedError(f"{what} needs a fitted quantizer: call {type(self).__name__}.fit(x) first")

    def require_encodes(self, what: str) -> None:
        """Raise NotFittedError, naming ``what`` was asked, unless all is learned that encoding takes."""
        self.require_fitted(what)

    # -- codes ---------------------------------------------------------------------------------------------------

    def encode(
        self,
        x: Array,
        *,
        term: NormTerm | Length | None = None,
        centres: Array | None = None,
        progress: bool = False,
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
        self.require_encodes("encode")
        x = check_vectors(x, self.dim, "x")
        if isinstance(term, NormTerm) and term.sizes != self.sizes:
            raise ValueError(f"term must be of codebooks of {self.sizes} entries, got {term.sizes}")
        if centres is not None:
            centres = check_vectors(centres, self.dim, "centres")
        codes = np.empty((int(x.shape[0]), self.M), dtype=self.code_dtype)
        ranges: Iterable[tuple[int, int]] = chunks(len(codes), self.dim, chunk_bytes=_CHUNK_BYTES)
        if progress:
            with needed_by("progress=True"):
                from tqdm import tqdm

            ranges = tqdm(list(ranges), desc="encode", unit="chunk")
        for a, b in ranges:
            about = None if centres is None else rows_to_numpy(centres, a, b, "centres")
            codes[a:b] = self.encode_rows(rows_to_numpy(x, a, b), term, about)
        return like(codes, x)

    def encode_rows(self, x: F32, term: NormTerm | Length | None = None, centres: F32 | None = None) -> Codes:
        """:meth:`encode` of checked rows (n, d): nothing is looked at again."""
        # What codes of a length are chosen among takes several copies of the rows.
        at_once = _CHUNK_BYTES // 4 if isinstance(term, Length) else _CHUNK_BYTES
        if len(x) * self.dim * 4 <= at_once:
            return self._encode_chunk(x, term, centres)
        codes = np.empty((len(x), self.M), self.code_dtype)
        for a, b in chunks(len(x), self.dim, chunk_bytes=at_once):
            codes[a:b] = self._encode_chunk(x[a:b], term, None if centres is None else centres[a:b])
        return codes

    def _encode_chunk(self, x: F32, term: NormTerm | Length | None, centres: F32 | None) -> Codes:
        if isinstance(term, Length):
            return self._codes_of_length(x, term, centres)
        return self._encode_rows(x, term, centres)

    def _codes_of_length(self, x: F32, length: Length, centres: F32 | None) -> Codes:
        """Codes of a chunk of rows whose x̂ has about this length."""
        decode = self.scan_view().decode_rows
        return codes_of_length(x, length, centres, lambda rows, about: self._encode_rows(rows, None, about), decode)

    def _encode_rows(self, x: F32, term: NormTerm | None, centres: F32 | None) -> Codes:
        """Codes of a chunk of rows."""
        return self._encode_in_torch(x)

    def _encode_in_torch(self, x: F32) -> Codes:
        """Codes of rows that no native encoder takes."""
        codes: Codes = self.as_module()._encode_in_torch(x)
        return codes

    @property
    def _on_cpu(self) -> bool:
        """Whether the arrays lie in main memory, where native code reads them."""
        return True

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
        return like(self.decode_rows(self.check_codes(codes)), codes)

    @abstractmethod
    def decode_rows(self, codes: Codes) -> F32:
        """:meth:`decode` of checked codes (n, M)."""

    def decode_with_errors(self, codes: Codes) -> tuple[F32, F32 | None]:
        """:meth:`decode_rows`, and ‖x − x̂‖² (n,) as it is expected of vectors with such codes, or None where the
        quantizer has learned nothing of that."""
        return self.decode_rows(codes), None

    # -- files ---------------------------------------------------------------------------------------------------

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors, for a file that holds this quantizer among other things."""
        return {"kind": self.kind, **self.config}, self._arrays()

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
        return storage.saved_bytes(self.save)


class CodebookCoder(Coder):
    """A coder whose vectors are sums (or concatenations) of codebook entries.

    The codebooks lie in one array ``weight`` of shape (ΣK, width), codebook after codebook. ``width`` is d for
    codebooks over the whole vector, d/M, rounded up, for product codebooks, d/G for those of products of G sums;
    ``starts[m]`` is the first dimension of codebook m, ``widths[m]`` how many it has. Where they are fewer than
    ``width``, its entries end in zeros.

    Args:
        groups: sub-spaces, each with as many codebooks of its own: 1 for codebooks over all dimensions.
    """

    weight: Any

    sums: ClassVar[bool] = False
    """Whether entries are added up to x̂; else each codebook has dimensions of its own."""

    def __init__(self, dim: int, M: int, nbits: int | Sequence[int], *, groups: int) -> None:
        super().__init__(dim, M, nbits)
        if groups > self.dim:
            what = "M" if groups == self.M else "groups"
            raise ValueError(f"{what} must be at most dim={self.dim}, a dimension for each, got {groups}")
        widths = even_widths(self.dim, operator.index(groups))
        starts = [0, *itertools.accumulate(widths)]
        self.width = max(widths)
        self.starts, self.widths = (tuple(a[m * groups // self.M] for m in range(self.M)) for a in (starts, widths))
        """First dimension of the vector that each codebook covers, and how many it covers."""
        self.offsets = (0, *itertools.accumulate(self.sizes))
        self._declare("weight", "float32", (self.offsets[-1], self.width))
        self._register_term()

    # -- codebooks -------------------------------------------------------------------------------------------------

    def codebooks_copy(self) -> F32:
        """A copy of all codebooks, (ΣK, width) float32."""
        return np.array(self._array("weight"), dtype=np.float32, order="C")

    def books(self) -> Codebooks:
        """The codebooks as arrays, in the vectors' own coordinates."""
        return self._books

    @made_once
    def _books(self) -> Codebooks:
        return Codebooks(np.ascontiguousarray(self.weight), self.sizes, self.starts, self.dim)

    def books_where_short(self) -> tuple[Codebooks, Callable[[F32], F32] | None]:
        """The codebooks, and a rotation of rows (n, d) into their coordinates; None where these are the vectors'
        own."""
        return self.books(), None

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
        return self._on_cpu and self.M > 1

    # -- what subclasses keep beside codes -------------------------------------------------------------------------

    def _register_term(self) -> None:
        """Declare what is learned of norms."""

    def forget_norms(self) -> None:
        """Forget how norms are kept, as codebooks have changed."""
