"""Re-ranking by the vectors themselves where they lie: in an array of the caller's or a mapped file."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq import datasets
from annvq.arrays import as_float32, dtype_name, item_bytes
from annvq.indexes.rerank.raw import RAW_DTYPES
from annvq.indexes.rerank.refinement import Found, NothingKept, Refinement
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native
from annvq.rows import LazyRows
from annvq.threads import get_num_threads
from annvq.types import F32, I64, U8, Array, Self


class OutsideVectors(NothingKept):
    """Vectors that lie elsewhere, ``vectors[id]``: an array or a memory map, read where needed and never copied.

    Args:
        dim: d of the vectors.
        dtype: theirs.
        vectors: (n, d); None where they are still to be found, at ``path`` or by :meth:`attached`.
        path: the file that ``vectors`` map, if any.
    """

    kind = "outside"
    reads_outside = True

    def __init__(self, dim: int, dtype: str, vectors: Array | None, path: str | None = None) -> None:
        self.dim, self.dtype, self.path = dim, dtype, path
        self.bits = 8 * item_bytes(dtype) * dim if dtype in RAW_DTYPES else 0
        self.array: npt.NDArray[Any] | None = None if vectors is None else self._checked(vectors)

    @classmethod
    def of(cls, dim: int, vectors: Array) -> Self:
        """Over a NumPy array or memory map (n, d)."""
        if not isinstance(vectors, np.ndarray):
            hint = "; annvq.datasets.convert writes a file that can be mapped" if isinstance(vectors, LazyRows) else ""
            raise TypeError(f"refine must be a NumPy array or memory map, got {type(vectors).__name__}{hint}")
        path = getattr(vectors, "filename", None)
        return cls(dim, dtype_name(vectors), vectors, None if path is None else os.fspath(path))

    def _checked(self, vectors: Array) -> npt.NDArray[Any]:
        wanted = f"{self.dtype} of shape (n, {self.dim}), the dimensions of a row side by side"
        if self.dtype not in RAW_DTYPES:
            raise TypeError(f"refine must hold {', '.join(RAW_DTYPES)}, got {self.dtype}")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim or dtype_name(vectors) != self.dtype:
            raise ValueError(f"refine must be {wanted}, got {vectors.dtype} {vectors.shape}")
        if vectors.strides[1] != vectors.itemsize or vectors.strides[0] < 0 or vectors.strides[0] % vectors.itemsize:
            raise ValueError(f"refine must be {wanted}, got strides {vectors.strides}")
        return vectors

    def require(self) -> npt.NDArray[Any]:
        """The array; where it is missing after loading, its file is opened again.

        Raises:
            ValueError: there is no such file, or it does not hold these vectors.
        """
        if self.array is None:
            where = "call attach(vectors) on the index"
            if self.path is None or not os.path.isfile(self.path):
                raise ValueError(f"the vectors to re-rank from lie outside the file, at {self.path}: {where}")
            try:
                self.array = self._checked(datasets.load_vectors(self.path))
            except (TypeError, ValueError) as e:
                raise ValueError(f"{self.path} does not hold the vectors to re-rank from ({e}): {where}") from None
        return self.array

    def attached(self, vectors: Array, ids: I64) -> Self:
        found = self.of(self.dim, vectors)
        if found.dtype != self.dtype:
            raise ValueError(f"vectors must be {self.dtype} of shape (n, {self.dim}), got {found.dtype}")
        highest = int(ids.max(initial=-1))
        if highest >= len(found.require()):
            raise ValueError(f"vectors must have a row for each id, up to {highest}; got {len(found.require())}")
        return found

    def check_ids(self, ids: I64) -> None:
        highest, n = int(ids.max(initial=-1)), len(self.require())
        if highest >= n:
            raise ValueError(f"ids must be row numbers of the {n} vectors that are re-ranked from, got {highest}")

    def put(self, ids: I64, kept: U8) -> None:
        self.check_ids(ids)

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        rows = self.require()
        if self.dtype == "bfloat16":
            rows = rows.view(np.uint16)
        return _native.rerank_array(rows, self.dtype, queries, ids, k, index.metric, get_num_threads())

    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        return index.of_unit_length(as_float32(self.require()[ids]), "x")

    def facts(self) -> dict[str, Any]:
        return {"refined_by": f"vectors in {self.dtype} at {self.path}", "refine_bits_per_vector": self.bits}

    def share(self, other: Refinement) -> None:
        if isinstance(other, OutsideVectors):
            self.array = other.array

    def require_to_travel(self) -> None:
        if self.path is None and self.array is not None:
            raise ValueError(
                "an index that re-ranks from an array in memory cannot be pickled without it: give RerankIndex a "
                "memory map, such as np.load(path, mmap_mode='r'), or save the index and attach(vectors) once loaded"
            )

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        return {"dtype": self.dtype, "path": self.path}, {}

    @classmethod
    def from_stored(cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex) -> Self:
        dtype, path = config["dtype"], config["path"]
        if dtype not in RAW_DTYPES or not isinstance(path, str | None):
            raise ValueError(f"its vectors to re-rank from are {dtype!r} at {path!r}")
        return cls(index.dim, dtype, None, path)
