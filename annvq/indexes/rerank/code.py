"""Re-ranking by a second code: of the vectors, of what the scanned code leaves over, or of its further stages."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.codebooks import Codebooks
from annvq.indexes.coding import Encoded
from annvq.indexes.contract import quantizer_fingerprint
from annvq.indexes.rerank.refinement import Found, KeptRows
from annvq.indexes.stored import StoreIndex
from annvq.kernels import _native
from annvq.kernels.encode import code_dtype
from annvq.quantizers.coder import Coder
from annvq.quantizers.files import from_stored
from annvq.quantizers.tables import TableCoder
from annvq.threads import get_num_threads
from annvq.types import F32, I64, U8, Array, Codes

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

Refines: TypeAlias = Literal["vectors", "rest", "stages"]

_LEARN_ROWS = 1 << 18
_PREFIX = "refine.quantizer."


class FinerCode(KeptRows):
    """A second code.

    Under cosine x̂ is taken to length one, since it is the shorter the worse x is coded.

    Args:
        quantizer: of the second code; for ``"stages"`` of both codes together.
        refines: what it is of: ``"vectors"``, ``"rest"`` (what the scanned code leaves over) or ``"stages"`` (the
            scanned code is the first part of it).
        scanned: codebooks of the scanned code.
    """

    kind = "code"
    whole = False
    at_length_one = True
    """Whether x̂ is taken to length one under cosine; of files before that was done it is not."""

    def __init__(self, quantizer: TableCoder, refines: Refines, scanned: int) -> None:
        self.quantizer, self.refines = quantizer, refines
        self.first = scanned if refines == "stages" else 0
        self.bits = sum(quantizer.bits_per_codebook[self.first :])
        self.M = quantizer.M - self.first
        self._books: _Books | None = None
        super().__init__(self.M * quantizer.code_dtype.itemsize)

    @classmethod
    def of(cls, index: StoreIndex, refine: Coder, refines: str) -> "FinerCode":
        """A second code for an index that is to be scanned; ``"auto"`` as RerankIndex says."""
        quantizer = _summing(refine)
        if quantizer.dim != index.dims:
            raise ValueError(f"refine must be of dimension {index.dims}, as index.quantizer is, got {quantizer.dim}")
        what: Any = refines if refines != "auto" else "vectors" if bool(quantizer.fitted) else "rest"
        if what != "vectors":
            _summing(index.coder)
        if what == "stages":
            _check_head(index.coder.scan_view(), quantizer)
        return _class_for(what)(quantizer, what, index.coder.M)

    # -- learning ------------------------------------------------------------------------------------------------

    def require_fitted(self, what: str) -> None:
        self.quantizer.require_encodes(what)

    def fit(self, index: StoreIndex, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        if not bool(self.quantizer.fitted):
            chosen = np.random.default_rng(seed).permutation(int(x.shape[0]))[:_LEARN_ROWS]
            rows = index.prepared(x[np.sort(chosen)], "x")
            targets = rows if self.refines == "vectors" else self._rest(index, rows)[1]
            self._learn(targets, seed=seed, progress=progress, recipe=recipe)

    def _learn(self, targets: Array, **how: Any) -> None:
        """Fit the quantizer, which learns as a module."""
        self.quantizer = self.quantizer.as_module().fit(targets, **how)

    # -- rows ----------------------------------------------------------------------------------------------------

    def encode(self, index: StoreIndex, x: F32, rows: F32, first: int) -> tuple[Encoded, U8]:
        encoded, targets = self._rest(index, rows) if self.refines == "rest" else (index.coding.encode(rows), rows)
        return encoded, self._kept(self.quantizer.encode_rows(targets))

    def _rest(self, index: StoreIndex, rows: F32) -> tuple[Encoded, F32]:
        """What ``index`` stores of rows, and what that leaves over of them."""
        encoded = index.coding.encode(rows)
        return encoded, rows - index.coding.decode(encoded.codes, encoded.lists)

    def _kept(self, codes: Codes) -> U8:
        """The part of codes (n, all codebooks) that is kept here, as bytes."""
        kept = np.ascontiguousarray(codes[:, self.first :])
        return kept.view(np.uint8).reshape(len(kept), -1)

    # -- distances -----------------------------------------------------------------------------------------------

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        metric = "unit" if index.metric == "cosine" and not self.at_length_one else index.metric
        books = self._prepared(index)
        codes, lists, centres = np.empty((0, 1), np.uint8), np.empty(0, np.int32), np.empty((0, 1), np.float32)
        if books.scanned is not None:
            stored, ids = index.rows_where_stored(ids)
            codes = np.ascontiguousarray(stored.codes).view(np.uint8).reshape(ids.size, -1)
            if (relative_to := index.coding.centres) is not None:
                lists, centres = stored.lists, books.turned(relative_to)
        return _native.rerank_codes(
            self.store, books.fine, books.turned(queries), ids, k, metric, books.scanned, codes, centres, lists,
            get_num_threads(),
        )  # fmt: skip

    def _prepared(self, index: StoreIndex) -> "_Books":
        """Codebooks as the native code wants them."""
        if self._books is None:
            scanned = None if self.refines == "vectors" else index.coder
            self._books = _Books(self.quantizer, self.first, scanned)
        return self._books

    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        codes = self.store.get(ids).view(self.quantizer.code_dtype).reshape(len(ids), self.M)
        x = np.zeros((len(ids), self.quantizer.dim), np.float32)
        books = self.quantizer.books().split()[self.first :]
        for m, (book, start) in enumerate(zip(books, self.quantizer.starts[self.first :], strict=True)):
            x[:, start : start + self.quantizer.width] += book[codes[:, m]]
        return index.filled_up(x) if self.refines == "vectors" else index.reconstruct(ids) + index.filled_up(x)

    # -- facts and files -----------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        what = f"{self.quantizer.kind} codes of {self.refines}"
        return {"refined_by": what, "refine_bits_per_vector": self.bits}

    def fingerprint(self) -> tuple[Any, ...]:
        return *super().fingerprint(), self.refines, self.at_length_one, quantizer_fingerprint(self.quantizer)

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        config, tensors = self.quantizer.to_stored()
        named = {_PREFIX + name: tensor for name, tensor in tensors.items()}
        config = {"refines": self.refines, "quantizer": config, "at_length_one": self.at_length_one}
        return config, named | self.rows_to_stored()

    @classmethod
    def from_stored(
        cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex
    ) -> "FinerCode":
        refines = config["refines"]
        if refines not in ("vectors", "rest", "stages"):
            raise ValueError(f"its second codes are of {refines!r}, expected 'vectors', 'rest' or 'stages'")
        own = {name.removeprefix(_PREFIX): tensors.pop(name) for name in list(tensors) if name.startswith(_PREFIX)}
        quantizer = _summing(from_stored(config["quantizer"], own))
        code = _class_for(refines)(quantizer, refines, index.coder.M)
        # Of other metrics it says nothing, and old files merge with new ones.
        code.at_length_one = index.metric != "cosine" or bool(config.get("at_length_one", False))
        code.restore_rows(tensors, len(index))
        return code


class FurtherStages(FinerCode):
    """A code of which the first codebooks are scanned and the others kept here: both are found together."""

    def fit_first(self, index: StoreIndex, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        """Learn all stages on what the index will code, and give the index the first ones."""
        index.coding.any_length = True  # codes are the first of longer ones
        if not bool(self.quantizer.fitted):
            self._learn(index.learn_targets(x, seed), seed=seed, progress=progress, recipe=recipe)
        head, whole = index.coder.scan_view(), self.quantizer
        if not bool(head.fitted):
            head = index.quantizer.scan_view()
            head.set_codebooks(whole.books().split()[: head.M])
            if head.needs_norm and not index.residual:
                head.fit_norms(index.compared_rows(x), seed=seed)
        _check_head(head, whole)

    def encode(self, index: StoreIndex, x: F32, rows: F32, first: int) -> tuple[Encoded, U8]:
        lists, targets = index.coding.targets(rows)
        codes = self.quantizer.encode_rows(targets)
        head = np.ascontiguousarray(codes[:, : self.first])
        return index.coding.encoded_as(targets, head, lists), self._kept(codes)


def _class_for(refines: str) -> type[FinerCode]:
    return FurtherStages if refines == "stages" else FinerCode


class _Books:
    """The codebooks of both codes, as the native code adds up their entries.

    Behind a rotation the entries of product codes have few dimensions, and in the vectors' own coordinates all. So all
    is compared there: distances and inner products are the same.

    Args:
        quantizer: of the second code, from codebook number ``first`` on.
        scanned: the coder of the scanned code, where that counts.
    """

    def __init__(self, quantizer: TableCoder, first: int, scanned: Coder | None) -> None:
        books, self._rotation = quantizer.scan_view().books_where_short()
        self.fine = _sum_books(books, first)
        self.scanned = None
        if scanned is not None:
            own = scanned.scan_view().books()
            self.scanned = _sum_books(own if self._rotation is None else own.mapped(self._rotation))

    def turned(self, rows: F32) -> F32:
        """Rows (n, d) in the coordinates of the codebooks."""
        return rows if self._rotation is None else self._rotation(rows)


def _sum_books(books: Codebooks, first: int = 0) -> Any:
    sizes, starts = (np.asarray(a[first:], np.int32) for a in (books.sizes, books.starts))
    entries = np.ascontiguousarray(books.entries[books.offsets[first] :])
    return _native.SumBooks(entries, sizes, starts, books.dim, code_dtype(books.sizes) == np.uint16)


def _summing(quantizer: Coder) -> TableCoder:
    """``quantizer`` itself if its vectors are sums of its codebooks' entries, else TypeError."""
    if not isinstance(quantizer, TableCoder) or quantizer.scan_view() is not quantizer:
        raise TypeError(
            f"re-ranking decodes product, residual and additive codes, got {type(quantizer).__name__}; "
            "keep raw vectors instead"
        )
    return quantizer


def _check_head(head: TableCoder, whole: TableCoder) -> None:
    """ValueError unless ``head`` is the first codebooks of ``whole`` (or may become them)."""
    bits = whole.bits_per_codebook
    of_sums = head.needs_norm and whole.needs_norm  # codes of norm-free sums do not begin with codes of their heads
    if head.kind != whole.kind or not of_sums or head.bits_per_codebook != bits[: head.M] or head.M >= whole.M:
        raise ValueError(
            f"refines='stages' needs a residual or additive quantizer that begins with index.quantizer's codebooks: "
            f"got {whole.kind} {bits} after {head.kind} {head.bits_per_codebook}"
        )
    if head.code_dtype != whole.code_dtype:
        raise ValueError(f"refine must have codes of {head.code_dtype}, as index.quantizer has, got {whole.code_dtype}")
    both = bool(head.fitted) and bool(whole.fitted)
    if both and not np.array_equal(head.codebooks_copy(), whole.codebooks_copy()[: len(head.codebooks_copy())]):
        raise ValueError("index.quantizer's codebooks are not the first ones of refine")
