"""The flat index: every code is scored for every query."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from annvq.arrays import check_vectors
from annvq.indexes.coding import HELD_OUT, LENGTH_ROWS
from annvq.indexes.filters import Allowed, Filter
from annvq.indexes.stored import StoreIndex
from annvq.quantizers.coder import Coder
from annvq.types import F32, I64, Array, Norm, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

MANY = 1 << 18
"""Learn vectors of which a quantizer sees but a sample, whatever is held out."""


class FlatIndex(StoreIndex):
    """Exact ADC over all codes.

    Args:
        quantizer: fitted, or to be fitted by :meth:`fit`.
        metric: ``"l2"`` (squared Euclidean distance), ``"ip"`` (−⟨q, x̂⟩) or ``"cosine"`` (1 − cos; vectors are
            normalised in fit, add and search). Product codes under cosine have distances that are expected of
            x itself, 1 − ⟨q, x̂⟩ − s·(1 − ‖x̂‖²), with a share s of what coding took away that :meth:`fit` learns, where
            it finds at least as many so as codes of one length c do, by 1 − ⟨q, x̂⟩ / c, as all others have.
        norm: how ‖x̂‖² is stored where L2 needs it: ``"uint8"`` (one byte, learned levels), ``"float32"``, or
            ``"auto"``: one byte where needed, else nothing. None, nothing stored, is for what needs no norm: product
            codes, norm-free ones, ip and cosine. With a byte, and with norm-free codes, distances are those to x̂ and
            half of ‖x − x̂‖² more, which finds more neighbours; with ``"float32"`` they are those to x̂.
        dim: d of the vectors, where codes are to see only the first dimensions of each, as many as ``quantizer`` has
            (models trained for it say most there). Distances are those of the prefixes, which under cosine are
            normalised themselves; vectors and queries have all d dimensions. Default: the quantizer's.
    """

    kind = "flat"
    recipe_keys: ClassVar = {"norm": str}

    def __init__(self, quantizer: Coder, metric: str = "l2", norm: Norm = "auto", *, dim: int | None = None) -> None:
        super().__init__(quantizer, metric, norm, dim=dim)

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        x = check_vectors(x, self.dim)
        learn, held = self._split(x, seed) if self.metric == "cosine" else (x, None)
        if not bool(self.coder.fitted):
            self.quantizer.fit(self.learn_targets(learn, seed), seed=seed, progress=progress, recipe=recipe)
        if held is not None:
            self.coding.learn_length(self.prepared(held, "x"), None, seed)
        return self

    def _split(self, x: Array, seed: int) -> tuple[Array, Array]:
        """Vectors to learn codebooks from, and some to measure the length of codes on: others, where they are enough,
        since codes of what was learned from are longer than those of vectors to come."""
        n = int(x.shape[0])
        order = np.random.default_rng(seed).permutation(n)
        held = min(HELD_OUT, n // 20)
        if bool(self.coder.fitted) or not held or n - held < max(self.coder.sizes):
            return x, x[np.sort(order[:LENGTH_ROWS])]
        if n > MANY:  # of so many the quantizer learns from a sample, which few of those held out are in
            return x, x[np.sort(order[:held])]
        return x[np.sort(order[held:])], x[np.sort(order[:held])]

    def learn_targets(self, x: Array, seed: int) -> Array:
        return self.compared_rows(x)

    def search(self, queries: Array, k: int, *, filter: Filter = None) -> tuple[Any, Any]:
        q, k = self.asked(queries, k)
        return self.results(self.find(q, k, self.allowed(filter)), queries)

    def find(
        self, queries: F32, k: int, allowed: Allowed = None, nprobe: int | None = None, wanted: int | None = None
    ) -> tuple[F32, I64]:
        if nprobe is not None:
            raise ValueError(f"nprobe must be None where a {type(self).__name__} is scanned, got {nprobe}")
        luts, bias, levels = self.coding.tables(queries)
        return self._store.search(luts, bias, k, norm_levels=levels, allowed=allowed)

    @classmethod
    def _from_stored(
        cls, quantizer: Coder, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        index = cls(quantizer, config["metric"], config["norm"], dim=config.get("dim"))
        index._restore(config, tensors, mapped=mapped)
        return index
