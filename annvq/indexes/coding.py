"""What an index stores of vectors, and the tables that score it.

All rows, targets and queries here are float32 (n, d) that have been checked, and normalised under cosine.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.kernels import LazyTables
from annvq.quantizers.base import Quantizer, TableQuantizer
from annvq.quantizers.norms import NormByte
from annvq.types import F32, I32, Codes, Norm


class Encoded(NamedTuple):
    """What an index stores of vectors: codes (n, M), norms (n,) of the index's kind or None, lists (n,) or None."""

    codes: Codes
    norms: npt.NDArray[Any] | None
    lists: I32 | None = None


def joined(parts: Sequence[Encoded]) -> Encoded:
    """The parts, at least one, one after the other."""
    columns: Any = (None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True))
    return Encoded(*columns)


class Coding:
    """Codes of the vectors themselves, with what squared distance needs of their norms.

    Args:
        quantizer: of the codes.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        norm: see :func:`resolve_norm`.
    """

    residual: bool = False
    """Whether codes are of what coarse centroids leave over."""

    def __init__(self, quantizer: Quantizer, metric: str, norm: Norm) -> None:
        self.quantizer, self.metric = quantizer, metric
        self.norm = resolve_norm(norm, quantizer.scan_view(), metric, residual=self.residual)

    # -- codes ---------------------------------------------------------------------------------------------------

    @property
    def centres(self) -> F32 | None:
        """What codes are relative to, one vector for each list, (lists, d), or None where it is zero."""
        return None

    def targets(self, rows: F32) -> tuple[I32 | None, F32]:
        """The list of each row (n,), None where there is but one, and what its code is to stand for, (n, d)."""
        return None, rows

    def encode(self, rows: F32) -> Encoded:
        """What is stored of rows."""
        lists, targets = self.targets(rows)
        if self.norm == "uint8":
            return Encoded(*self.quantizer.encode_with_norm(targets), lists)
        return self.encoded_as(targets, self.quantizer.encode(targets), lists)

    def encoded_as(self, targets: F32, codes: Codes, lists: I32 | None) -> Encoded:
        """What is stored of vectors in these lists with these codes, which stand for ``targets``."""
        if self.norm is None:
            return Encoded(codes, None, lists)
        terms = self.terms(codes, lists)
        if self.norm == "uint8":
            errors = self.quantizer.scan_view().squared_errors(targets, codes)
            return Encoded(codes, self.norm_byte.encode_vectors(codes, terms, errors), lists)
        return Encoded(codes, terms, lists)

    def decode(self, codes: Codes, lists: I32 | None) -> F32:
        """The vectors (n, d) that codes in these lists stand for."""
        return self.quantizer.decode(codes)

    # -- norms ---------------------------------------------------------------------------------------------------

    def terms(self, codes: Codes, lists: I32 | None) -> F32:
        """What squared distances need beside tables, of codes in these lists, (n,)."""
        return self.quantizer.scan_view().norms(codes)

    @property
    def norm_byte(self) -> NormByte:
        """What stored uint8 norms stand for.

        Raises:
            NotFittedError: it was not learned.
        """
        return self.quantizer.scan_view().norm_byte

    def norm_levels(self) -> F32 | None:
        """The values (256,) that stored uint8 norms stand for, or None where none are stored."""
        return self.norm_byte.levels if self.norm == "uint8" else None

    # -- tables --------------------------------------------------------------------------------------------------

    def tables(self, queries: F32) -> tuple[LazyTables, F32]:
        """Tables of queries as the stored norms want them, and biases (nq,)."""
        luts, bias = self.quantizer.scan_view().lazy_tables(queries, self.metric)
        return self._with_offsets(luts), bias

    def _with_offsets(self, luts: LazyTables) -> LazyTables:
        """Tables with what the norm byte leaves to them."""
        return luts.plus(self.norm_byte.table_offsets(max(self.quantizer.sizes))) if self.norm == "uint8" else luts

    def fingerprint(self) -> tuple[Any, ...]:
        """What was trained beside the quantizer, to compare."""
        return (self.residual,)


def resolve_norm(norm: Norm, quantizer: TableQuantizer, metric: str, *, residual: bool = False) -> Norm:
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
