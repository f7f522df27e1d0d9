"""The index contract: codes of vectors, searched exactly as their float tables say."""

import json
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from annvq.arrays import normalized, positive_int, to_numpy
from annvq.errors import NotFittedError
from annvq.indexes.filters import Filter
from annvq.indexes.saved import Registered
from annvq.indexes.within import Within, all_within, as_queries_came, check_radius
from annvq.quantizers.coder import Coder
from annvq.quantizers.files import usable
from annvq.quantizers.tables import check_metric
from annvq.types import F32, I64, Array, Norm, Self

if TYPE_CHECKING:
    from annvq.quantizers.modules import Quantizer
    from annvq.training.recipe import Recipe

MAX_DIM = 1 << 20


def array_crc(array: npt.NDArray[Any]) -> int:
    """CRC-32 of an array's values."""
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def quantizer_fingerprint(quantizer: Coder) -> tuple[Any, ...]:
    """What a quantizer is and has learned, to compare."""
    config, tensors = quantizer.to_stored()
    return json.dumps(config, sort_keys=True), tuple((name, array_crc(tensors[name])) for name in sorted(tensors))


class Index(Registered):
    """Codes of vectors with ids, searchable by distance.

    A subclass with a ``kind`` of its own is registered under it: files carry that name, and the contract tests take it.

    Args:
        quantizer: fitted, or to be fitted by :meth:`fit`.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        norm: how ‖x̂‖² is stored with each vector: ``"uint8"``, ``"float32"`` or None, where it is not.
        dim: d of the vectors where codes see only their first dimensions, as many as the quantizer has.

    Raises:
        TypeError, ValueError: not a quantizer, an unknown metric, fewer dimensions than the quantizer has.
    """

    def __init__(self, quantizer: Coder, metric: str, norm: Norm = None, dim: int | None = None) -> None:
        if not isinstance(quantizer, Coder):
            raise TypeError(f"quantizer must be an annvq Quantizer, got {type(quantizer).__name__}")
        self.coder = quantizer
        """What codes vectors: the quantizer, or of a loaded index that which its file holds of one."""
        self.metric = check_metric(metric)
        self.norm = norm
        self._dim = quantizer.dim if dim is None else positive_int(dim, "dim", low=quantizer.dim, high=MAX_DIM)

    @property
    def quantizer(self) -> "Quantizer":
        """The quantizer. Of a loaded index it is made when first asked for, by PyTorch, and takes the place of
        :attr:`coder`; where PyTorch is not installed it is that one itself, which does all but learn."""
        whole: Quantizer = usable(self.coder)
        if whole is not self.coder:
            self._use(whole)
        return whole

    def _use(self, coder: Coder) -> None:
        """Code vectors by another form of the same quantizer."""
        self.coder = coder

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._dim

    @property
    def dims(self) -> int:
        """Their first dimensions, which codes see: all of them unless the index was made with a larger ``dim``."""
        return self.coder.dim

    @property
    def norm_bits(self) -> int:
        """Bits of the stored norm of one vector: 0, 8 or 32."""
        return {None: 0, "uint8": 8, "float32": 32}[self.norm]

    @property
    def bits_per_vector(self) -> int:
        """Bits stored per vector to score it: code and norm. Ids are reported apart."""
        return self.coder.bits + self.norm_bits

    @property
    @abstractmethod
    def ram_bits_per_vector(self) -> int:
        """Bits a vector takes in memory (or mapped): code, norm, id, and what is reserved and kept about them."""

    @abstractmethod
    def __len__(self) -> int:
        """Vectors that can be found."""

    @property
    @abstractmethod
    def ids(self) -> I64:
        """A copy of the stored ids, ascending."""

    def facts(self) -> dict[str, Any]:
        """What the index is, as JSON holds it."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "metric": self.metric,
            "norm": self.norm,
            "bits_per_vector": self.bits_per_vector,
            "ram_bits_per_vector": self.ram_bits_per_vector,
            "quantizer": self.coder.kind,
            **self.coder.config,
            **({"dim": self.dim, "dims": self.dims} if self.dim != self.dims else {}),
        }

    # -- checks: all that is below takes rows that have passed these ---------------------------------------------

    def prepared(self, x: Array, name: str) -> F32:
        """All rows of ``x`` (n, d), checked, as the metric compares them (see :meth:`compared`)."""
        return self.compared(to_numpy(x, self.dim, name, rows="nq" if name == "queries" else "n"), name)

    def compared(self, rows: F32, name: str, start: int = 0) -> F32:
        """Checked rows (n, d) as codes see them and the metric compares them: the first :attr:`dims` dimensions, of
        unit length under cosine.

        Raises:
            ValueError: a zero vector under cosine; it is named by its number, counted from ``start``.
        """
        if self.dim != self.dims:
            rows, name = np.ascontiguousarray(rows[:, : self.dims]), f"{name}[:, :{self.dims}]"
        return self.of_unit_length(rows, name, start)

    def of_unit_length(self, rows: F32, name: str, start: int = 0) -> F32:
        """Rows of any width, of unit length under cosine, else as they are; ValueError as :meth:`compared` says."""
        return normalized(rows, name, start) if self.metric == "cosine" else rows

    def filled_up(self, rows: F32) -> F32:
        """Rows (n, dims) as vectors (n, d), zero in the dimensions that codes do not see."""
        return rows if self.dim == self.dims else np.pad(rows, ((0, 0), (0, self.dim - self.dims)))

    def asked(self, queries: Array, k: int) -> tuple[F32, int]:
        """Queries (nq, d) and k of a search, checked."""
        count = positive_int(k, "k", high=1 << 24)
        return self.prepared(queries, "queries"), count

    def require_fitted(self, what: str) -> None:
        """Raise NotFittedError unless this index can encode."""
        if not bool(self.coder.fitted):
            raise NotFittedError(f"{what} needs a trained index: call {type(self).__name__}.fit(x) first")
        self.coder.require_encodes(what)

    # -- learning ------------------------------------------------------------------------------------------------

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
            TypeError, ValueError: bad vectors or ids; nothing has been added then. First vectors that all lie so near
                zero (within 1e-19) that under l2 or ip distances vanish in float32 are refused, too.
        """

    @abstractmethod
    def search(self, queries: Array, k: int, *, filter: Filter = None) -> tuple[Any, Any]:
        """The ``k`` nearest stored vectors of each query.

        Args:
            queries: (nq, d) vectors.
            k: neighbours per query.
            filter: the ids that may be returned, see :data:`Filter`.

        Returns:
            distances (nq, k) float32 and ids (nq, k) int64, ordered by (distance, id), padded with +inf and −1;
            torch tensors where the queries are. Under l2 distances are never negative: sums that end below zero are
            returned as 0, in the order of the sums.
        """

    def search_within(self, queries: Array, radius: float, *, filter: Filter = None) -> Within:
        """All stored vectors whose distance to a query is at most ``radius``: exactly those of them that :meth:`search`
        would return for k = n, by the same distances and in the same order.

        Args:
            queries: (nq, d) vectors.
            radius: a finite number, in the metric's distances: squared ones under l2, −⟨q, x̂⟩ under ip, 1 − cos under
                cosine.
            filter: the ids that may be returned, see :data:`Filter`.

        Returns:
            (lims, distances, ids), as FAISS' ``range_search`` has them: lims (nq + 1,) int64, and distances float32 and
            ids int64 of (lims[-1],); those of query i are from lims[i] to lims[i + 1]. Torch tensors where the queries
            are.

        Raises:
            TypeError, ValueError: as in :meth:`search`; a radius that is no finite number.
        """
        limit, rows = check_radius(radius), to_numpy(queries, self.dim, "queries", rows="nq")
        found = all_within(lambda q, k: self.search(q, k, filter=filter), rows, limit, self.__len__)
        return as_queries_came(found, queries)

    @abstractmethod
    def remove(self, ids: Array) -> int:
        """Forget the vectors of these ids. Returns how many.

        Raises:
            ValueError: an id that is not there or comes twice; nothing has been removed then.
        """

    @abstractmethod
    def reset(self) -> Self:
        """Forget all vectors and their ids, and free what they took; what was learned stays. Ids that ``add`` chooses
        begin at 0 again. May be called while other threads search."""

    @abstractmethod
    def reconstruct(self, ids: Array) -> Any:
        """Decoded vectors (n, d) of stored ids (of the normalised vectors under cosine). Dimensions that codes do not
        see are zero."""

    # -- large builds --------------------------------------------------------------------------------------------

    recipe_keys: ClassVar[Mapping[str, type] | None] = None
    """Arguments of the constructor that index recipes may state, with their types; None: recipes do not make this."""

    @classmethod
    def for_vectors(cls, quantizer: Coder, n: int, *, metric: str, **settings: Any) -> Self:
        """An untrained index for ``n`` vectors, of a recipe's ``settings``."""
        return cls(quantizer, metric=metric, **settings)

    def fingerprint(self) -> tuple[Any, ...]:
        """What was trained and set, to compare: indexes whose fingerprints are equal code vectors alike."""
        return self.kind, self.metric, self.norm, self.dim, quantizer_fingerprint(self.coder)

    @abstractmethod
    def take(self, other: Self) -> None:
        """Put all vectors of ``other``, an index of this one's fingerprint, into this one, codes as they are.

        Raises:
            ValueError: ids that both have; nothing has changed then.
        """

    def measure(self, vectors: Array) -> None:
        """Measure on what is stored what default searches need to know, unless the caller has said it.

        Args:
            vectors: (nq, d), like those that will be asked for; at least one.
        """

    @property
    def reads_outside(self) -> bool:
        """Whether searches read vectors that the index does not keep, see :meth:`attach`."""
        return False

    def attach(self, vectors: Array) -> Self:
        """Say where the vectors lie that searches read and the index does not keep.

        Raises:
            ValueError: it keeps all, or these are not such vectors, or too few.
        """
        raise ValueError(f"{type(self).__name__} keeps all that it searches; there is nothing to attach")
