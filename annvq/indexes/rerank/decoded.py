"""Re-ranking by what the scanned code itself stands for, which takes no further bits."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.indexes.coding import LENGTH_ROWS
from annvq.indexes.lost import ASKING, NEAR, TOP, found_of, learned_share, nearest, stored_share, with_lost
from annvq.indexes.rerank.refinement import Found, NothingKept
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native, squared_norms
from annvq.threads import get_num_threads
from annvq.types import F32, I64, Array, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

CLEARLY, MORE = 1.05, 1.01
"""A share is taken where it finds so many times as many of ten as x̂ divided by its length, or under ip as x̂ alone, and
the nearest one at least as often, which may fall where more of ten are found (docs/log/performance.md)."""


class Compared(NamedTuple):
    """By which metric queries (nq, …) are compared with vectors (n, …), and the ids (n,) of these, −1 for none."""

    metric: str
    queries: F32
    ids: I64
    vectors: F32


def rank_decoded(index: StoreIndex, queries: F32, ids: I64, k: int, compared: Callable[..., Compared]) -> Found:
    """The k nearest of ``ids`` (nq, s; −1 for none) to each query, by (distance, id), of what their codes stand for.

    Args:
        compared: of the index, queries, ids (n,), each once and −1 for none, x̂ (n, d) and the squared errors (n,) that
            are expected of it, or None where these are not known: what is compared.
    """
    distances, found = np.empty((len(ids), k), np.float32), np.empty((len(ids), k), np.int64)
    for start, stop in chunks(len(ids), ids.shape[1] * index.dims):
        # Rows in the order of their ids: equal distances are told apart by them.
        listed, rows = np.unique(ids[start:stop], return_inverse=True)
        stored, there = index.rows_where_stored(listed)
        lists = stored.lists if index.coding.centres is not None else None
        xhat, errors = index.coding.decode_with_errors(np.ascontiguousarray(stored.codes), lists)
        metric, asked, there, vectors = compared(index, queries[start:stop], there, xhat, errors)
        places = rows.reshape(-1, ids.shape[1])
        numbers = np.where(there[places] < 0, -1, places)
        part, best = _native.rerank_array(vectors, "float32", asked, numbers, k, metric, get_num_threads())
        distances[start:stop], found[start:stop] = part, np.where(best < 0, -1, listed[best])
    return distances, found


class Decoded(NothingKept):
    """The vectors x̂ that codes stand for, decoded as they are needed.

    A scan adds up tables, so it scores conditional codes without their network, norms as a byte or the code itself
    tells them, and under cosine x̂ by its inner product. Here distances are those to x̂ itself. Under cosine ⟨q, x̂⟩ is
    the less the worse x is coded, so x̂ is divided by its length, or, where ``fit`` sees that more is found so, a share
    of what coding took away is added (:func:`~annvq.indexes.lost.learned_share`), and distances are those to be
    expected to x. Codes need not be chosen for their lengths, and are not. Under ip a share is added, too, where more
    is found so: where lengths are about equal. Where the quantizer has learned how much error to expect of a code, that
    is added to squared distances, which are those to be expected to x then, not those to x̂: badly coded vectors are
    too near otherwise (:func:`annvq.norms.with_error`).

    Args:
        index: the one that is scanned.

    Attributes:
        error_share: see :func:`~annvq.indexes.lost.learned_share`; None where x̂ is divided by its length, or under
            other metrics compared as it is (without ``fit`` or with few vectors, where that finds about as many, in
            older files).
        length: under ip with a share, the length that vectors have on average; else one.
    """

    kind = "decoded"
    bits = 0
    whole = False

    def __init__(self, index: StoreIndex) -> None:
        index.coding.any_length = True
        self.error_share: float | None = None
        self.length = 1.0

    def require_fitted(self, what: str) -> None:
        """Nothing must be learned beside the scanned index."""

    def fit(self, index: StoreIndex, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        n = int(x.shape[0])
        if index.metric == "l2" or self.error_share is not None or len(index) or n < 2 * ASKING:
            return
        chosen = np.random.default_rng(seed).permutation(n)[:LENGTH_ROWS]
        queries, rows = (index.prepared(x[np.sort(part)], "x") for part in (chosen[:ASKING], chosen[ASKING:]))
        encoded = index.coding.encode(rows)
        xhat = index.coding.decode(encoded.codes, encoded.lists)
        length = 1.0
        if index.metric == "ip":  # the order is the same for queries of any length
            queries, length = _of_length_one(queries), float(np.sqrt(squared_norms(rows).mean(dtype=np.float64)))
        near = nearest(queries, rows, NEAR, index.metric)
        share, true = learned_share(queries, rows, xhat, near, length), near[:, :TOP]
        ways = nearest(*with_lost(queries, xhat, share, length), TOP), nearest(queries, xhat, TOP, index.metric)
        ten, first = ([found_of(true[:, :k], way[:, :k]) for way in ways] for k in (TOP, 1))
        if ten[0] >= (MORE if index.metric == "ip" else CLEARLY) * ten[1] and first[0] >= first[1]:
            self.error_share, self.length = share, length

    # -- distances -----------------------------------------------------------------------------------------------

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        distances, found = rank_decoded(index, queries, ids, k, self._compared)
        return 1 + distances if self.error_share is not None and index.metric == "cosine" else distances, found

    def _compared(self, index: StoreIndex, queries: F32, ids: I64, xhat: F32, errors: F32 | None) -> Compared:
        if errors is not None and index.metric == "l2":
            # A dimension more, in which queries are zero, adds to squared distance what it holds, squared.
            xhat = np.column_stack([xhat, np.sqrt(errors)])
            queries = np.column_stack([queries, np.zeros(len(queries), np.float32)])
        if self.error_share is None:
            return Compared(index.metric, queries, ids, xhat)
        # Here a dimension more, in which queries are as long as they are, adds to inner products.
        sizes = None if index.metric == "cosine" else np.sqrt(squared_norms(queries))
        queries, xhat = with_lost(queries, xhat, self.error_share, self.length, sizes)
        return Compared("ip", queries, ids, xhat)

    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        x: F32 = index.reconstruct(ids)
        return x

    # -- facts and files -----------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        return {"refined_by": "the scanned codes, decoded", "refine_bits_per_vector": 0}

    def fingerprint(self) -> tuple[Any, ...]:
        return *super().fingerprint(), self.error_share, self.length

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        lengths = {} if self.length == 1 else {"length": self.length}
        return {} if self.error_share is None else {"error_share": self.error_share, **lengths}, {}

    @classmethod
    def from_stored(cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex) -> Self:
        decoded = cls(index)
        decoded.error_share = stored_share(config.get("error_share"), index.metric, ("cosine", "ip"))
        decoded.length = config.get("length", 1.0)
        if not isinstance(decoded.length, float) or not 0 < decoded.length < np.inf:
            raise ValueError(f"its length must be a number above zero, got {decoded.length!r}")
        return decoded


def _of_length_one(queries: F32) -> F32:
    """Rows (n, d) over their lengths; zero ones as they are."""
    lengths = np.sqrt(squared_norms(queries))[:, None]
    return np.divide(queries, np.where(lengths > 0, lengths, np.float32(1)), dtype=np.float32)
