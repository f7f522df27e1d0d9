"""Codes in lists: of the vectors, or of what their list's centroid leaves over.

Where they are of residuals, x̂ = C + r̂ and

    ‖q − x̂‖² = ‖q − C‖² − 2⟨q, r̂⟩ + (‖r̂‖² + 2⟨C, r̂⟩).

The first term is one number per query and list, the second a sum of table entries that no list changes, the third a
number per vector, stored as its norm. So one table per query serves all lists.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.errors import NotFittedError
from annvq.indexes.coding import Coding
from annvq.indexes.contract import array_crc
from annvq.indexes.ivf.coarse import Coarse
from annvq.kernels import LazyTables, squared_norms
from annvq.norms import NORM_LEVELS, NormTerm
from annvq.quantizers.coder import Coder
from annvq.quantizers.tables import TableCoder
from annvq.training.learn.norms import fit_norm_byte
from annvq.types import F32, I32, Codes, Norm

_NORM_ROWS = 1 << 16


class ListCoding(Coding):
    """Codes of vectors in lists.

    Args:
        quantizer, metric, norm: as for :class:`~annvq.indexes.coding.Coding`.
        residual: whether codes are of x − C; ``"auto"``: as :class:`~annvq.indexes.ivf.index.IVFIndex` says.

    Attributes:
        coarse: the lists' centroids, None until they are trained.
        own_term: how one byte stands for ‖r̂‖² + 2⟨C, r̂⟩ of residual codes, None until it is learned.
    """

    def __init__(self, quantizer: Coder, metric: str, norm: Norm, *, residual: Any = False) -> None:
        self.residual = _resolve_residual(residual, quantizer, metric)
        super().__init__(quantizer, metric, norm)
        self.coarse: Coarse | None = None
        self.own_term: NormTerm | None = None

    def trained(self, what: str) -> Coarse:
        """The centroids; NotFittedError, naming ``what`` was asked, where there are none."""
        if self.coarse is None:
            raise NotFittedError(f"{what} needs a trained index: call IVFIndex.fit(x) first")
        return self.coarse

    def set_centroids(self, centroids: F32) -> None:
        """Take checked centroids (nlist, d); what was learned with others is forgotten."""
        self.coarse, self.own_term = Coarse(centroids, self.metric), None

    def learn_term(self, targets: F32, lists: I32, seed: int) -> None:
        """Learn norm bytes where they are missing, the quantizer's or of residual codes one of their own, from what
        codes stand for (n, d) in these lists (n,)."""
        if self.norm != "uint8":
            return
        view = self.quantizer.scan_view()
        if not self.residual and not view.norm_term.learned:
            view.fit_norms(targets, seed=seed)
        if self.residual and self.own_term is None:
            some = np.random.default_rng(seed).permutation(len(targets))[:_NORM_ROWS]
            self.own_term = _learned_term(self.quantizer, targets[some], self.trained("fit").centroids, lists[some])

    # -- codes ---------------------------------------------------------------------------------------------------

    @property
    def centres(self) -> F32 | None:
        return self.trained("centroids").centroids if self.residual else None

    def targets(self, rows: F32) -> tuple[I32, F32]:
        coarse = self.trained("add")
        lists = coarse.assign(rows)
        return lists, rows - coarse.centroids[lists] if self.residual else rows

    def decode_with_errors(self, codes: Codes, lists: I32 | None) -> tuple[F32, F32 | None]:
        x, errors = super().decode_with_errors(codes, lists)
        return x + self.trained("reconstruct").centroids[lists] if self.residual else x, errors

    # -- norms and tables ----------------------------------------------------------------------------------------

    @property
    def term(self) -> NormTerm | None:
        if not (self.residual and self.norm == "uint8"):
            return super().term
        if self.own_term is None:
            raise NotFittedError('norm="uint8" needs learned norm levels: call IVFIndex.fit(x) first')
        return self.own_term

    def _kept(self, term: NormTerm, targets: F32, codes: Codes, lists: I32 | None) -> Any:
        if not self.residual or lists is None:
            return super()._kept(term, targets, codes, lists)
        centroids = self.trained("add").centroids
        return term.keep(codes, *residual_terms(self.quantizer.scan_view(), codes, centroids, lists, targets))

    def tables(self, queries: F32) -> tuple[LazyTables, F32, F32 | None]:
        """Tables that serve every list."""
        if not (self.residual and self.metric == "l2"):
            return super().tables(queries)
        luts, bias = self.quantizer.scan_view().lazy_tables(queries, "ip")
        return self._with_term(luts.scaled(2), bias * np.float32(2))  # −2⟨q, c⟩; doubling is exact

    # -- files ---------------------------------------------------------------------------------------------------

    def fingerprint(self) -> tuple[Any, ...]:
        term = self.own_term
        learned = term and tuple(array_crc(tensor) for tensor in term.tensors().values())
        return *super().fingerprint(), self.coarse and array_crc(self.coarse.centroids), learned

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors of a file."""
        config: dict[str, Any] = {"residual": self.residual}
        tensors: dict[str, npt.NDArray[Any]] = {}
        if self.coarse is not None:
            tensors["centroids"] = self.coarse.centroids
        if self.own_term is not None:
            learned = self.own_term.tensors()
            config |= {name: learned.pop(name).item() for name in ("weighs_norm", "error_share")}
            tensors |= learned
        return config, tensors

    def restore_term(self, config: Mapping[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> None:
        """Take the term of :meth:`to_stored`, if there is one, out of ``tensors``.

        Raises:
            KeyError, ValueError: something is missing or does not fit.
        """
        if "norm_levels" not in tensors:
            return
        levels = floats(tensors, "norm_levels", NORM_LEVELS)
        offsets = floats(tensors, "norm_offsets", sum(self.quantizer.sizes))
        weighed = config.get("weighs_norm", False)  # not in versions 1 and 2
        if not isinstance(weighed, bool):
            raise ValueError(f"its weighs_norm must be true or false, got {weighed!r}")
        share = config.get("error_share", 0.0)  # not before version 5
        if not isinstance(share, float) or not 0 <= share <= 1:
            raise ValueError(f"its error_share must be a number in [0, 1], got {share!r}")
        self.own_term = NormTerm.byte(self.quantizer.sizes, offsets, levels, weighed=weighed, error_share=share)


def floats(tensors: dict[str, npt.NDArray[Any]], name: str, size: int) -> F32:
    """The tensor ``name``, taken out of ``tensors`` once it is known to be ``size`` finite float32."""
    found = tensors.pop(name)
    if found.dtype != np.float32 or found.shape != (size,) or not np.isfinite(found).all():
        raise ValueError(f"its {name} must be {size} finite float32, got {found.dtype} {found.shape}")
    return found


def _resolve_residual(residual: Any, quantizer: Coder, metric: str) -> bool:
    """Whether codes are of residuals."""
    if residual not in (True, False, "auto"):
        raise ValueError(f"residual must be True, False or 'auto', got {residual!r}")
    if residual != "auto":
        return bool(residual)
    return not bool(quantizer.fitted) and (metric != "l2" or quantizer.needs_norm)


def residual_terms(
    view: TableCoder, codes: Codes, centroids: F32, lists: I32, targets: F32 | None = None
) -> tuple[F32, F32 | None]:
    """‖r̂‖² + 2⟨C, r̂⟩ of residual codes (n, M) in these lists (n,), centroids (nlist, d), and, given the residuals r
    themselves (n, d), ‖r − r̂‖²; (n,) each."""
    terms = np.empty(len(codes), np.float32)
    errors = None if targets is None else np.empty(len(codes), np.float32)
    for start, stop in chunks(len(codes), 3 * view.dim):
        r = view.decode_rows(codes[start:stop])
        if targets is not None and errors is not None:
            errors[start:stop] = squared_norms(targets[start:stop] - r)
        wide = r.astype(np.float64)
        terms[start:stop] = np.einsum("ij,ij->i", wide, wide + 2.0 * centroids[lists[start:stop]])
    return terms, errors


def _learned_term(quantizer: Coder, targets: F32, centroids: F32, lists: I32) -> NormTerm:
    """The byte for residuals (n, d) of vectors in these lists (n,)."""
    view = quantizer.scan_view()
    codes = quantizer.encode_rows(targets)
    values, errors = residual_terms(view, codes, centroids, lists, targets)
    # Entries that hardly occur keep ‖c‖² + 2⟨C, c⟩ with C the mean centroid.
    mean = centroids[lists].mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
    cross = np.concatenate([t[:size] for t, size in zip(view.tables(mean, "ip").luts[0], view.sizes, strict=True)])
    entries = view.codebooks_copy().astype(np.float64)
    start = np.einsum("ij,ij->i", entries, entries) - 2.0 * cross
    return fit_norm_byte(codes, values, view.sizes, start=start.astype(np.float32), code_error=errors)
