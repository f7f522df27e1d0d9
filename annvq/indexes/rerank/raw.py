"""Re-ranking by the vectors themselves, kept in memory."""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import BFLOAT16, as_bfloat16, as_float32, item_bytes
from annvq.indexes.coding import Encoded
from annvq.indexes.rerank.refinement import Found, KeptRows
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native
from annvq.threads import get_num_threads
from annvq.types import F32, I64, U8, Self

RAW_DTYPES = ("float32", "float16", "bfloat16", "uint8", "int8")


class RawVectors(KeptRows):
    """The vectors themselves, kept in memory as ``dtype``.

    uint8 and int8 take only vectors that they hold exactly; float16 and bfloat16 round to the nearest number that they
    have. Under cosine, where only directions count, float16 keeps each vector times a power of two, so that vectors of
    any length lie well within its numbers, and int8 rounds vectors that it does not hold, each times what makes its
    largest number 127; lengths are divided out when ranking, so nothing is stored beside the numbers. Under l2 and ip,
    where lengths count, vectors must lie within float16's numbers themselves: those beyond are refused, and first
    vectors that are all so near zero that most of each is lost.
    """

    kind = "raw"

    def __init__(self, dim: int, dtype: str) -> None:
        if dtype not in RAW_DTYPES:
            raise ValueError(
                f"refine must be one of {', '.join(RAW_DTYPES)}, decoded, length, a quantizer or an array, "
                f"got {dtype!r}"
            )
        self.dim, self.dtype = dim, dtype
        self.bits = 8 * item_bytes(dtype) * dim
        if dtype == "float16":
            self.least = 2.0**-17  # of which float16 keeps seven bits
        super().__init__(item_bytes(dtype) * dim)

    def encode(self, index: StoreIndex, x: F32, rows: F32, first: int) -> tuple[Encoded, U8]:
        if index.metric == "cosine":
            x = _within_float16(x) if self.dtype == "float16" else _within_int8(x) if self.dtype == "int8" else x
        return index.coding.encode(rows), self._kept(x, first)

    def _kept(self, x: F32, first: int) -> U8:
        """Vectors as they are kept; ValueError, naming a row counted from ``first``, where they do not fit."""
        with np.errstate(over="ignore", invalid="ignore"):
            kept = as_bfloat16(x) if self.dtype == "bfloat16" else x.astype(self.dtype)
        if self.dtype in ("uint8", "int8"):
            wrong = (kept != x).any(axis=1)
            what = f"whole numbers that {self.dtype} holds"
        else:
            wrong = ~np.isfinite(as_float32(kept)).all(axis=1)
            what = f"finite in {self.dtype}"
        if wrong.any():
            raise ValueError(f"x must be {what} to be re-ranked from; row {first + int(np.argmax(wrong))} is not")
        return np.ascontiguousarray(kept).view(np.uint8)

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        return _native.rerank_rows(self.store, self.dtype, queries, ids, k, index.metric, get_num_threads())

    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        kept = self.store.get(ids).view(BFLOAT16 if self.dtype == "bfloat16" else self.dtype)
        return index.of_unit_length(as_float32(kept.reshape(len(ids), self.dim)), "x")

    def facts(self) -> dict[str, Any]:
        return {"refined_by": f"vectors in {self.dtype}", "refine_bits_per_vector": self.bits}

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        return {"dtype": self.dtype}, self.rows_to_stored()

    @classmethod
    def from_stored(cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex) -> Self:
        raw = cls(index.dim, config["dtype"])
        raw.restore_rows(tensors, len(index))
        return raw


def _within_int8(x: F32) -> F32:
    """Rows, none of them zero, as int8 keeps directions: as they are where it holds them, else scaled and rounded."""
    held = (np.clip(np.rint(x), -128, 127) == x).all(axis=1, keepdims=True)
    # In float64: a largest number near zero has no reciprocal in float32.
    largest = np.abs(x).max(axis=1, initial=0, keepdims=True).astype(np.float64)
    return np.where(held, x, np.rint(x * (127 / largest))).astype(np.float32)


def _within_float16(x: F32) -> F32:
    """Rows, none of them zero, each times a power of two that makes its largest number one of 2^14 to 2^15."""
    exponents = np.frexp(np.abs(x).max(axis=1, initial=0))[1]
    return np.ldexp(x, (15 - exponents)[:, None])
