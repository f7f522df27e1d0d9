"""Re-ranking by what the scanned code itself stands for, which takes no further bits."""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.indexes.rerank.refinement import Found, NothingKept
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native
from annvq.threads import get_num_threads
from annvq.types import F32, I64, Self


class Decoded(NothingKept):
    """The vectors x̂ that codes stand for, decoded as they are needed.

    A scan adds up tables, so it scores conditional codes without their network, norms as a byte or the code itself
    tells them, and under cosine x̂ by its inner product. Here distances are those to x̂ itself; under cosine x̂ is taken
    to length one, so that codes need not be chosen for their lengths, and are not. Where the quantizer has learned how
    much error to expect of a code, that is added to squared distances, which are those to be expected to x then, not
    those to x̂: badly coded vectors are too near otherwise (:func:`annvq.norms.with_error`).

    Args:
        index: the one that is scanned.
    """

    kind = "decoded"
    bits = 0
    whole = False

    def __init__(self, index: StoreIndex) -> None:
        index.coding.any_length = True

    def require_fitted(self, what: str) -> None:
        """Nothing is learned beside the scanned index."""

    # -- distances -----------------------------------------------------------------------------------------------

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        distances, found = np.empty((len(ids), k), np.float32), np.empty((len(ids), k), np.int64)
        for start, stop in chunks(len(ids), ids.shape[1] * index.dims):
            part = slice(start, stop)
            distances[part], found[part] = self._rank(index, queries[part], ids[part], k)
        return distances, found

    def _rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        # Rows in the order of their ids: equal distances are told apart by them.
        listed, rows = np.unique(ids, return_inverse=True)
        stored, there = index.rows_where_stored(listed)
        lists = stored.lists if index.coding.centres is not None else None
        vectors, errors = index.coding.decode_with_errors(np.ascontiguousarray(stored.codes), lists)
        if errors is not None and index.metric == "l2":
            # A dimension more, in which queries are zero, adds to squared distance what it holds, squared.
            vectors = np.column_stack([vectors, np.sqrt(errors)])
            queries = np.column_stack([queries, np.zeros(len(queries), np.float32)])
        places = rows.reshape(ids.shape)
        numbers = np.where(there[places] < 0, -1, places)
        distances, best = _native.rerank_array(vectors, "float32", queries, numbers, k, index.metric, get_num_threads())
        return distances, np.where(best < 0, -1, listed[best])

    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        x: F32 = index.reconstruct(ids)
        return x

    # -- facts and files -----------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        return {"refined_by": "the scanned codes, decoded", "refine_bits_per_vector": 0}

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        return {}, {}

    @classmethod
    def from_stored(cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex) -> Self:
        return cls(index)
