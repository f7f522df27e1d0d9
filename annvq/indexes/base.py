"""The index contract: codes of vectors, searched exactly as their float tables say."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from annvq import storage
from annvq.arrays import normalized, positive_int, to_numpy
from annvq.errors import FormatError, NotFittedError
from annvq.kernels.store import PreparedAllowed
from annvq.quantizers.contract import Quantizer
from annvq.quantizers.tables import check_metric
from annvq.types import F32, I64, Array, Norm

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

FORMAT, VERSIONS = "annvq.index", (1, 2, 3, 4, 5)

Filter: TypeAlias = "Array | Callable[[I64], Any] | PreparedFilter | None"
"""Which ids a search may return: a bitmap (bool, ``filter[id]``; ids beyond its end are not allowed), a list of allowed
ids, or a function that is called once with the stored ids (n,) and returns which are allowed, bool (n,). One that is
used again and again is best made a :class:`PreparedFilter`."""

_KINDS: "dict[str, type[Index]]" = {}


def registered() -> "dict[str, type[Index]]":
    """Index classes by the name that files carry; contract tests cover each."""
    return dict(_KINDS)


def resolve_norm(norm: Norm, quantizer: Quantizer, metric: str, *, residual: bool = False) -> Norm:
    """The norm that is stored: ``"uint8"``, ``"float32"`` or None.

    ``"auto"`` stores none where none is needed (product and norm-free codes, ip, cosine) and one byte otherwise. Codes
    of ``residual``s, what coarse centroids leave over, need one under l2 whatever they are.

    Raises:
        ValueError: an unknown norm; None for L2 on codes that need one; a norm where none is used.
    """
    if norm not in ("auto", "uint8", "float32", None):
        raise ValueError(f"norm must be 'auto', 'uint8', 'float32' or None, got {norm!r}")
    needed = (quantizer.needs_norm or residual) and metric == "l2"
    if norm == "auto":
        return "uint8" if needed else None
    if needed and norm is None:
        raise ValueError(
            f"norm must not be None for metric 'l2' on {type(quantizer).__name__} codes: "
            f"squared distance needs ‖x̂‖² ('uint8' stores it in one byte; codes of a quantizer made with "
            f"norm_free=True need none)"
        )
    if not needed and norm is not None:
        raise ValueError(
            f"norm={norm!r} would never be read: metric {metric!r} on {type(quantizer).__name__} codes needs none"
        )
    return norm


def check_ids(ids: Array, n: int | None, name: str = "ids") -> I64:
    """``ids`` as int64 (n,), each at least 0.

    Raises:
        TypeError: not an integer array.
        ValueError: wrong shape or negative.
    """
    wanted = f"int64 of shape ({'n' if n is None else n},)"
    array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be {wanted}, got {array.dtype}")
    if array.ndim != 1 or (n is not None and len(array) != n):
        raise ValueError(f"{name} must be {wanted}, got {array.dtype} {array.shape}")
    if array.dtype == np.uint64 and len(array) and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit int64, got {int(array.max())}")
    out: I64 = np.ascontiguousarray(array, dtype=np.int64)
    if len(out) and int(out.min()) < 0:
        raise ValueError(f"{name} must not be negative (−1 marks an empty place in results), got {int(out.min())}")
    return out


class Index(ABC):
    """Codes of vectors with ids, searchable by distance."""

    kind: ClassVar[str] = ""
    residual: bool = False
    """Whether codes are of what coarse centroids leave over."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            _KINDS[cls.kind] = cls

    def __init__(self, quantizer: Quantizer, metric: str, norm: Norm) -> None:
        if not isinstance(quantizer, Quantizer):
            raise TypeError(f"quantizer must be an annvq Quantizer, got {type(quantizer).__name__}")
        self.quantizer = quantizer
        self.metric = check_metric(metric)
        self.norm = resolve_norm(norm, quantizer, self.metric, residual=self.residual)

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self.quantizer.dim

    @property
    def norm_bits(self) -> int:
        """Bits of the stored norm of one vector: 0, 8 or 32."""
        return {None: 0, "uint8": 8, "float32": 32}[self.norm]

    @property
    def bits_per_vector(self) -> int:
        """Bits stored per vector to score it: code and norm. Ids are reported apart."""
        return self.quantizer.bits + self.norm_bits

    @property
    @abstractmethod
    def ram_bits_per_vector(self) -> int:
        """Bits a vector takes in memory, code and norm, where codes of fewer than 8 bits may fill a byte."""

    @abstractmethod
    def __len__(self) -> int:
        """Vectors that can be found."""

    def facts(self) -> dict[str, Any]:
        """What the index is, as JSON holds it."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "metric": self.metric,
            "norm": self.norm,
            "bits_per_vector": self.bits_per_vector,
            "ram_bits_per_vector": self.ram_bits_per_vector,
            "quantizer": self.quantizer.kind,
            **self.quantizer.config,
        }

    # -- learning ------------------------------------------------------------------------------------------------

    def prepared(self, x: Array, name: str) -> F32:
        """Checked rows as float32, normalised where the metric is cosine."""
        rows = to_numpy(x, self.dim, name, rows="nq" if name == "queries" else "n")
        return normalized(rows, name) if self.metric == "cosine" else rows

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError unless this index can encode."""
        if not bool(self.quantizer.fitted):
            raise NotFittedError(f"{what} needs a trained index: call {type(self).__name__}.fit(x) first")

    @abstractmethod
    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        """Train what is untrained, on ``x`` of shape (n, d); what is trained stays as it is.

        Args:
            x: learn vectors.
            seed: same seed, same machine, same threads: same result.
            progress: show progress bars.
            recipe: how the quantizer learns; default: as in its own ``fit``.
        """

    # -- vectors -------------------------------------------------------------------------------------------------

    @abstractmethod
    def add(self, x: Array, ids: Array | None = None) -> Self:
        """Encode and store ``x`` of shape (n, d) under ``ids`` (int64, each new), by default the next numbers.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: bad vectors or ids; nothing has been added then.
        """

    @abstractmethod
    def search(self, queries: Array, k: int, *, filter: Filter = None) -> tuple[Any, Any]:
        """The ``k`` nearest stored vectors of each query, by exact ADC.

        Args:
            queries: (nq, d) vectors.
            k: neighbours per query.
            filter: the ids that may be returned, see :data:`Filter`.

        Returns:
            distances (nq, k) float32 and ids (nq, k) int64, ordered by (distance, id), padded with +inf and −1;
            torch tensors where the queries are.
        """

    @abstractmethod
    def remove(self, ids: Array) -> int:
        """Forget the vectors of these ids. Returns how many.

        Raises:
            ValueError: an id that is not there or comes twice; nothing has been removed then.
        """

    @abstractmethod
    def reconstruct(self, ids: Array) -> Any:
        """Decoded vectors (n, d) of stored ids (of the normalised vectors under cosine)."""

    # -- files ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What this kind of index stores beside its quantizer."""

    @classmethod
    @abstractmethod
    def _from_stored(
        cls, quantizer: Quantizer, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        """The inverse of :meth:`_to_stored`; ValueError, KeyError or TypeError where something does not fit.

        Takes the tensors that it uses out of ``tensors``: one that is left over is an error. With ``mapped``, codes and
        ids are memory maps, unread.
        """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, atomically."""
        storage.write(path, FORMAT, VERSIONS[-1], *self._file())

    def _file(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Header and tensors of the index's file."""
        config, tensors = self._to_stored()
        q_config, q_tensors = self.quantizer.to_stored()
        header = {
            "kind": self.kind,
            "metric": self.metric,
            "norm": self.norm,
            "quantizer": q_config,
            **config,
        }
        return header, {**tensors, **{f"quantizer.{k}": v for k, v in q_tensors.items()}}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and pickles between processes (joblib; files never are any), go by what :meth:`save` writes."""
        return _built, (*self._file(), f"a copied {type(self).__name__}")

    @staticmethod
    def load(path: str | os.PathLike[str], *, mmap: bool = False, verify: bool = False) -> "Index":
        """Same as :func:`load_index`."""
        return load_index(path, mmap=mmap, verify=verify)


def load_index(path: str | os.PathLike[str], *, mmap: bool = False, verify: bool = False) -> Index:
    """Read an index written by :meth:`Index.save`.

    Args:
        mmap: leave codes and ids on disk and map them into memory, as large indexes want: opening takes milliseconds,
            pages are read when a search needs them, and processes share them. Codes of 8 bits are scanned where they
            lie; others, and codes with float32 norms, are unpacked into memory. The file may be replaced or deleted
            meanwhile, but must not be truncated or written to.
        verify: check the checksums of mapped codes and ids too, which reads them all. Everything else in the file, and
            without ``mmap`` everything, is always checked.

    Raises:
        FileNotFoundError: no such file.
        FormatError: not such a file, an unknown version, truncated or corrupt.
    """
    from annvq.indexes.files import MAPPED

    stored = storage.read(path, FORMAT, VERSIONS, mapped=MAPPED if mmap else (), verify=verify)
    return _built(stored.config, stored.tensors, os.fspath(path), mapped=mmap, verify=verify)


def _built(
    config: dict[str, Any],
    tensors: Mapping[str, npt.NDArray[Any]],
    name: str,
    *,
    mapped: bool = False,
    verify: bool = False,
) -> Index:
    """The index of a file's header and tensors; FormatError, naming ``name``, where they do not fit together."""
    from annvq.indexes.files import check_distinct
    from annvq.quantizers.files import from_stored

    prefix = "quantizer."
    parts = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    try:
        cls = _KINDS[config["kind"]]
        quantizer = from_stored(config["quantizer"], parts, name)
        if verify and "ids" in own:
            check_distinct(own["ids"])
        index = cls._from_stored(quantizer, config, own, mapped=mapped)
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as e:
        raise FormatError(f"{name} holds an index that cannot be built: {e!r}") from None
    if own:
        raise FormatError(f"{name} holds an index that cannot be built: tensors {sorted(own)} are not part of it")
    return index


def check_search(index: Index, queries: Array, k: int) -> tuple[F32, int]:
    """Checked queries and k of a search."""
    count = positive_int(k, "k", high=1 << 24)
    return index.prepared(queries, "queries"), count


class PreparedFilter(PreparedAllowed):
    """A filter for many searches: which rows it allows is found by the first, and again after an index has changed.

    One query at a time that allows one id in a hundred of a million is then answered many times as fast. Meant for one
    index: used on several in turn, it finds the rows each time. It holds on to the index's memory as it was when last
    searched, and may be used by several threads.

    Args:
        filter: a bitmap or a list of ids, see :data:`Filter`; copied.

    Raises:
        TypeError, ValueError: not such a filter.
    """

    def __init__(self, filter: Array) -> None:
        if filter is None or callable(filter) or isinstance(filter, PreparedAllowed):
            raise TypeError(f"filter must be a bitmap or an array of ids, got {type(filter).__name__}")
        super().__init__(_allowed(filter))


def resolve_filter(filter: Filter, ids: Callable[[], I64]) -> npt.NDArray[np.bool_] | I64 | PreparedAllowed | None:
    """A filter as a bitmap over ids or an array of ids; None for all.

    Args:
        filter: see :data:`Filter`. Listed ids that are not stored match nothing.
        ids: gives the stored ids, for a function to judge.

    Raises:
        TypeError, ValueError: not such a filter.
    """
    if filter is None or isinstance(filter, PreparedAllowed):
        return filter
    if callable(filter):
        stored = ids()
        answer = np.asarray(filter(stored))
        if answer.dtype != np.bool_ or answer.shape != stored.shape:
            found = f"{answer.dtype} {answer.shape}"
            raise ValueError(f"filter must return bool of shape ({len(stored)},) for as many ids, got {found}")
        return stored[answer]
    return _allowed(filter)


def _allowed(filter: Array) -> npt.NDArray[np.bool_] | I64:
    array = np.asarray(filter.cpu() if hasattr(filter, "cpu") else filter)
    if array.dtype != np.bool_:
        return check_ids(array, None, "filter")
    if array.ndim != 1:
        raise ValueError(f"filter must be a bitmap of shape (ids,), got bool {array.shape}")
    return np.ascontiguousarray(array)
