"""The flat index: every code is scored for every query."""

from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from typing_extensions import Self

from annvq.arrays import check_vectors, like
from annvq.indexes.contract import check_search
from annvq.indexes.filters import Filter, resolve_filter
from annvq.indexes.stored import Encoded, StoreIndex
from annvq.quantizers.base import Quantizer
from annvq.types import F32, Array, Norm

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe


class FlatIndex(StoreIndex):
    """Exact ADC over all codes.

    Args:
        quantizer: fitted, or to be fitted by :meth:`fit`.
        metric: ``"l2"`` (squared Euclidean distance), ``"ip"`` (−⟨q, x̂⟩) or ``"cosine"`` (1 − cos; vectors are
            normalised in fit, add and search).
        norm: how ‖x̂‖² is stored where L2 needs it: ``"uint8"`` (one byte, learned levels), ``"float32"``, or
            ``"auto"``: one byte where needed, else nothing. None, nothing stored, is for what needs no norm: product
            codes, norm-free ones, ip and cosine. With a byte, and with norm-free codes, distances are those to x̂ and
            half of ‖x − x̂‖² more, which finds more neighbours; with ``"float32"`` they are those to x̂.
    """

    kind = "flat"

    def __init__(self, quantizer: Quantizer, metric: str = "l2", norm: Norm = "auto") -> None:
        super().__init__(quantizer, metric, norm)

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        check_vectors(x, self.dim)
        if not bool(self.quantizer.fitted):
            rows = self.prepared(x, "x") if self.metric == "cosine" else x
            self.quantizer.fit(rows, seed=seed, progress=progress, recipe=recipe)
        return self

    def _encode_rows(self, rows: F32) -> Encoded:
        if self.norm == "uint8":
            return Encoded(*self.quantizer.encode_with_norm(rows))
        codes = self.quantizer.encode(rows)
        return Encoded(codes, self.quantizer.scan_view().norms(codes) if self.norm else None)

    def search(self, queries: Array, k: int, *, filter: Filter = None) -> tuple[Any, Any]:
        q, k = check_search(self, queries, k)
        allowed = resolve_filter(filter, self._store.ids)
        luts, bias = self._tables(q)
        distances, ids = self._store.search(luts, bias, k, norm_levels=self._norm_levels(), allowed=allowed)
        return like(distances, queries), like(ids, queries)

    @classmethod
    def _from_stored(
        cls, quantizer: Quantizer, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        index = cls(quantizer, config["metric"], config["norm"])
        index._restore(config, tensors, mapped=mapped)
        if len(index):
            index.require_fitted("load")
            index._norm_levels()
        return index
