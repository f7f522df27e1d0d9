"""Re-ranking: scan short codes for a shortlist, then order that by distances to something finer."""

import inspect
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from annvq.arrays import check_vectors, chunks, like, normalized, positive_int, rows_to_numpy
from annvq.indexes import refine as finer
from annvq.indexes.contract import Index, check_search, registered
from annvq.indexes.filters import Filter
from annvq.indexes.ids import check_ids, require_new
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.probing import check_share, probes_for
from annvq.indexes.refine import FinerCode, OutsideVectors, RawVectors, Refines
from annvq.indexes.stored import Encoded, StoreIndex
from annvq.kernels.store import Rows
from annvq.quantizers.base import Quantizer
from annvq.types import F32, I64, Array

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

_HELD_OUT, _NEIGHBORS = 200, 10
_DEEPEST = 4096
_GROWN = 2  # measured again when the index holds this many times more, or fewer, vectors


class RerankIndex(Index):
    """A shortlist from an index of codes, ordered by exact distances to a finer form of the vectors.

    Args:
        index: a flat index or inverted lists, empty; what is scanned.
        refine: what the shortlist is ordered by:

            - ``"float32"``, ``"float16"``, ``"uint8"`` or ``"int8"``: the vectors themselves, kept in memory so;
            - an array or memory map (n, d) of such a type: the vectors, read where they lie; ids are its row numbers;
            - a quantizer (product, residual or additive): a second code.
        refines: what a second code is of: ``"vectors"``, ``"rest"`` (what scanning leaves over) or ``"stages"``:
            ``refine`` is a residual or additive quantizer whose first codebooks are those of ``index.quantizer``; a
            code is found for all of them, the first ones are scanned, the others added for the shortlist. ``"auto"``:
            a fitted quantizer codes what it was fitted on, vectors; an unfitted one the rest.
        shortlist: vectors that are ordered exactly, at least k; default: as many as ``recall_target`` takes.
        recall_target: share of the 10 nearest by exact distance that shall be on the shortlist. Measured on vectors
            held out of ``fit``, when first needed and again when the index holds twice or half as many vectors;
            :meth:`tune` measures it on others.

    Distances are those to the finer form, in one fixed order of summation (see :mod:`annvq.indexes.refine`).
    """

    kind = "rerank"
    mappable = StoreIndex.mappable | {"refine.ids", "refine.rows"}

    def __init__(
        self,
        index: StoreIndex,
        refine: str | Quantizer | Array = "float32",
        *,
        refines: Refines | Literal["auto"] = "auto",
        shortlist: int | None = None,
        recall_target: float = 0.95,
    ) -> None:
        if not isinstance(index, StoreIndex):
            raise TypeError(f"index must be a flat index or inverted lists, got {type(index).__name__}")
        self.residual = index.residual
        super().__init__(index.quantizer, index.metric, index.norm)
        self.index = index
        self.refinement = _refinement(index, refine, refines)
        self._shortlist = None if shortlist is None else positive_int(shortlist, "shortlist", high=1 << 24)
        self.recall_target = check_share(recall_target, "recall_target")
        self._held: F32 = np.empty((0, index.dim), np.float32)
        self._depth: F32 = np.empty(0, np.float32)  # share of the nearest on shortlists of 1, 2, …
        self._measured_at = 0
        if len(index):
            raise ValueError(f"index must be empty, so that all its vectors can be refined; it holds {len(index)}")

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def bits_per_vector(self) -> int:
        """Bits stored per vector to score it: scanned code, norm, and what it is re-ranked from, wherever that lies."""
        return self.scan_bits_per_vector + self.refine_bits_per_vector

    @property
    def scan_bits_per_vector(self) -> int:
        """Bits per vector that a scan reads."""
        return self.index.bits_per_vector

    @property
    def refine_bits_per_vector(self) -> int:
        """Bits per vector that only re-ranking reads."""
        return self.refinement.bits

    @property
    def ram_bits_per_vector(self) -> int:
        n = len(self)
        own = -(-8 * self.refinement.nbytes // n) if n else self.refinement.bits
        return self.index.ram_bits_per_vector + own

    def __len__(self) -> int:
        return len(self.index)

    def facts(self) -> dict[str, Any]:
        refine = self.refinement.to_facts()
        own = {"scanned": self.index.kind, "scan_bits_per_vector": self.scan_bits_per_vector, **refine}
        depth = {
            "shortlist": self._shortlist
            or ("measured when first searched" if not self._measured_at else self.shortlist)
        }
        sizes = {"bits_per_vector": self.bits_per_vector, "ram_bits_per_vector": self.ram_bits_per_vector}
        return {**self.index.facts(), "kind": self.kind, **sizes, **own, **depth}

    def require_fitted(self, what: str) -> None:
        self.index.require_fitted(what)
        if isinstance(self.refinement, FinerCode):
            self.refinement.quantizer.require_fitted(what)

    # -- learning ------------------------------------------------------------------------------------------------

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        """Train what is untrained: the scanned index, then the second code; and hold out vectors to measure with.

        Args:
            x: learn vectors (n, d).
            seed: same seed, same machine, same threads: same result.
            progress: show progress bars.
            recipe: how quantizers learn; default: as in their own ``fit``.
        """
        check_vectors(x, self.dim)
        n, code = int(x.shape[0]), self.refinement
        if isinstance(code, FinerCode) and code.refines == "stages":
            self._fit_stages(code, x, seed, progress, recipe)
        self.index.fit(x, seed=seed, progress=progress, recipe=recipe)
        rows = np.random.default_rng(seed).permutation(n)
        held = np.sort(rows[: min(_HELD_OUT, n // 20)])
        self._held = self.prepared(x[held], "x")
        if isinstance(code, FinerCode) and not bool(code.quantizer.fitted):
            sample = self.prepared(x[np.sort(rows[: 1 << 18])], "x")
            targets = sample - self._approximated(sample)[1] if code.refines == "rest" else sample
            code.quantizer.fit(targets, seed=seed, progress=progress, recipe=recipe)
        self._measured_at = 0
        return self

    def _fit_stages(self, code: FinerCode, x: Array, seed: int, progress: bool, recipe: Any) -> None:
        """Train all stages on what the index will code, and give the index the first ones."""
        head, whole = self.index.quantizer.scan_view(), code.quantizer
        if not bool(whole.fitted):
            if isinstance(self.index, IVFIndex):
                self.index.fit_stages(whole, x, seed=seed, progress=progress, recipe=recipe)
            else:
                sample = x if self.metric != "cosine" else self.prepared(x, "x")
                whole.fit(sample, seed=seed, progress=progress, recipe=recipe)
        if not bool(head.fitted):
            head.set_codebooks([b.detach() for b in whole.codebooks[: head.M]])
            if head.needs_norm and not self.index.residual:
                head.fit_norms(self.prepared(x, "x") if self.metric == "cosine" else x, seed=seed)
        _check_head(head, whole)

    # -- vectors -------------------------------------------------------------------------------------------------

    def _approximated(self, rows: F32) -> tuple[Encoded, F32]:
        """What the index stores of checked vectors, and the vectors that this stands for."""
        encoded = self.index._encode_rows(rows)
        return encoded, self.index._decode_rows(Rows(encoded.codes, encoded.norms, encoded.lists))  # type: ignore[arg-type]

    def _encode_chunk(self, rows: F32, first: int) -> tuple[Encoded, npt.NDArray[np.uint8]]:
        checked = normalized(rows, "x") if self.metric == "cosine" else rows
        code = self.refinement
        if isinstance(code, RawVectors):
            return self.index._encode_rows(checked), code.rows_of(rows, first)
        if isinstance(code, OutsideVectors):
            return self.index._encode_rows(checked), np.empty((len(rows), 0), np.uint8)
        if code.refines == "stages":
            encoded, all_codes = self._encode_stages(code, checked)
            return encoded, code.rows_of_codes(all_codes)
        if code.refines == "vectors":
            return self.index._encode_rows(checked), code.rows_of_codes(code.quantizer.encode(checked))
        encoded, approximation = self._approximated(checked)
        return encoded, code.rows_of_codes(code.quantizer.encode(checked - approximation))

    def _encode_stages(self, code: FinerCode, rows: F32) -> tuple[Encoded, npt.NDArray[Any]]:
        if isinstance(self.index, IVFIndex):
            lists, targets = self.index.targets(rows)
            codes = code.quantizer.encode(targets)
            return self.index.encoded_as(targets, np.ascontiguousarray(codes[:, : code.first]), lists), codes
        codes = code.quantizer.encode(rows)
        head = np.ascontiguousarray(codes[:, : code.first])
        return Encoded(head, self.index._norms_of(rows, head)), codes

    def _encode(self, x: Array) -> tuple[Encoded, npt.NDArray[np.uint8]]:
        parts = [self._encode_chunk(rows_to_numpy(x, a, b), a) for a, b in chunks(int(x.shape[0]), self.dim)]
        columns: Any = [
            None if part[0] is None else np.concatenate(part) for part in zip(*(p[0] for p in parts), strict=True)
        ]
        return Encoded(*columns), np.concatenate([p[1] for p in parts])

    def add(self, x: Array, ids: Array | None = None) -> Self:
        self.require_fitted("add")
        check_vectors(x, self.dim)
        n, index = int(x.shape[0]), self.index
        given = None if ids is None else self._check_new(check_ids(ids, n))
        if given is not None:
            require_new(given, index._store.contains(given))
        elif n:
            self._check_outside(index._next_id + n - 1)
        if n:
            encoded, rows = self._encode(x)
            with index._changing:
                new = index._next_ids(n) if given is None else given
                require_new(new, index._store.contains(new))
                self.refinement.put(new, rows)  # first, so that what is found can be refined
                index._filled_store().append(encoded.codes, encoded.norms, new, encoded.lists)
                index._next_id = max(index._next_id, int(new.max()) + 1)
        return self

    def upsert(self, x: Array, ids: Array) -> Self:
        """Store ``x`` of shape (n, d) under ``ids`` (int64, each once), in place of what has these ids."""
        self.require_fitted("upsert")
        check_vectors(x, self.dim)
        given = self._check_new(check_ids(ids, int(x.shape[0])))
        require_new(given, np.zeros(len(given), np.bool_))
        if len(given):
            encoded, rows = self._encode(x)
            with self.index._changing:
                self.refinement.put(given, rows)
                self.index._filled_store().replace(encoded.codes, encoded.norms, given, encoded.lists)
                self.index._next_id = max(self.index._next_id, int(given.max()) + 1)
        return self

    def _check_new(self, ids: I64) -> I64:
        if len(ids):
            self._check_outside(int(ids.max()))
        return ids

    def _check_outside(self, highest: int) -> None:
        if isinstance(self.refinement, OutsideVectors) and highest >= len(self.refinement.require()):
            rows = len(self.refinement.require())
            raise ValueError(f"ids must be row numbers of the {rows} vectors that are re-ranked from, got {highest}")

    def attach(self, vectors: Array) -> Self:
        """Say where the vectors to re-rank from lie, after loading an index that keeps none.

        Raises:
            ValueError: the index keeps what it re-ranks from, or these are not such vectors, or too few.
        """
        if not isinstance(self.refinement, OutsideVectors):
            raise ValueError("this index keeps what it re-ranks from; there is nothing to attach")
        found = OutsideVectors.of(self.dim, vectors)
        if found.dtype != self.refinement.dtype:
            raise ValueError(f"vectors must be {self.refinement.dtype} of shape (n, {self.dim}), got {found.dtype}")
        highest = int(self.index.ids.max(initial=-1))
        if highest >= len(found.require()):
            raise ValueError(f"vectors must have a row for each id, up to {highest}; got {len(found.require())}")
        self.refinement = found
        return self

    def remove(self, ids: Array) -> int:
        given = check_ids(ids, None)
        with self.index._changing:
            removed = self.index.remove(given)
            self.refinement.remove(given)
        return removed

    def reconstruct(self, ids: Array) -> Any:
        self.require_fitted("reconstruct")
        given = check_ids(ids, None)
        self.index._store.rows(given)  # an id that is not there is refused, wherever the vectors lie
        x = self.refinement.vectors(self.index, given)
        raw = not isinstance(self.refinement, FinerCode)
        return normalized(x, "x") if raw and self.metric == "cosine" else x

    # -- searching -----------------------------------------------------------------------------------------------

    def search(
        self,
        queries: Array,
        k: int,
        *,
        shortlist: int | None = None,
        nprobe: int | None = None,
        filter: Filter = None,
    ) -> tuple[Any, Any]:
        """The ``k`` nearest of a shortlist of each query.

        Args:
            queries: (nq, d).
            k: neighbours per query.
            shortlist: how many of the scanned index's results are ordered exactly, at least k; see the class.
            nprobe: lists to scan, where the scanned index has lists.
            filter: as for every index.

        Returns:
            distances (nq, k) float32 to the finer form and ids (nq, k) int64, ordered by (distance, id), padded with
            +inf and −1; torch tensors where the queries are.
        """
        q, k = check_search(self, queries, k)
        if shortlist is not None:
            shortlist = positive_int(shortlist, "shortlist", low=k, high=1 << 24)
        depth = self._resolved(k) if shortlist is None else shortlist
        distances, ids = np.empty((len(q), k), np.float32), np.empty((len(q), k), np.int64)
        settings = self._settings(nprobe)
        for start, stop in chunks(len(q), min(depth, max(1, len(self))) * 8):
            found = self.index.search(q[start:stop], min(depth, max(k, len(self))), filter=filter, **settings)[1]
            distances[start:stop], ids[start:stop] = self.refinement.rank(self.index, q[start:stop], found, k)
        return like(distances, queries), like(ids, queries)

    def _settings(self, nprobe: int | None) -> dict[str, Any]:
        if nprobe is None:
            return {}
        if "nprobe" not in inspect.signature(self.index.search).parameters:
            raise ValueError(f"nprobe must be None where a {type(self.index).__name__} is scanned, got {nprobe}")
        return {"nprobe": nprobe}

    @property
    def shortlist(self) -> int:
        """Vectors that a search for 10 neighbours orders exactly unless it says otherwise."""
        return self._resolved(_NEIGHBORS)

    def _resolved(self, k: int) -> int:
        if self._shortlist is not None:
            return max(k, self._shortlist)
        n = len(self)
        if n and len(self._held) and not self._measured_at / _GROWN <= n <= self._measured_at * _GROWN:
            self._measure(self._held)
        deep = probes_for(self._depth, self.recall_target) if len(self._depth) else 10 * _NEIGHBORS
        return max(k, math.ceil(deep * max(1.0, k / _NEIGHBORS)))

    def tune(self, queries: Array, *, recall: float | None = None) -> Self:
        """Measure on what is stored how long shortlists must be.

        Args:
            queries: (nq, d) vectors like those that will be asked for, but not those that you will report on; they
                replace the ones held out of ``fit``.
            recall: a new ``recall_target``; default: as it is.
        """
        q, _ = check_search(self, queries, 1)
        if not len(q):
            raise ValueError("queries must have at least one row to measure with, got none")
        target = self.recall_target if recall is None else check_share(recall, "recall")
        self.require_fitted("tune")
        self.recall_target, self._shortlist, self._held = target, None, q[:_HELD_OUT].copy()
        self._measure(self._held)
        return self

    def _measure(self, queries: F32) -> None:
        """How deep the nearest by exact distance lie in the scanned index's order."""
        n = len(self)
        depth = min(n, _DEEPEST)
        counts = np.zeros(max(1, depth), np.int64)
        if n:
            scanned = self.index.search(queries, depth)[1]
            nearest = self.refinement.rank(self.index, queries, scanned, min(_NEIGHBORS, depth))[1]
            for order, wanted in zip(scanned, nearest, strict=True):
                counts += np.isin(order, wanted[wanted >= 0])
        self._depth = (np.cumsum(counts) / max(1, counts.sum())).astype(np.float32)
        self._measured_at = n

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        config, tensors = self.index._to_stored()
        refine, more = self.refinement.to_stored()
        own = {"shortlist": self._shortlist, "recall_target": self.recall_target, "measured_at": self._measured_at}
        tensors |= more | {"refine.held": self._held, "refine.depth": self._depth}
        return {"index": {"kind": self.index.kind, **config}, "refine": refine, **own}, tensors

    @classmethod
    def _from_stored(
        cls, quantizer: Quantizer, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        settings = {"metric": config["metric"], "norm": config["norm"], **config["index"]}
        inner = registered()[settings["kind"]]
        if not issubclass(inner, StoreIndex):
            raise ValueError(f"it re-ranks an index of kind {settings['kind']!r}")
        held, depth = tensors.pop("refine.held"), tensors.pop("refine.depth")
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith("refine.")}
        index = inner._from_stored(quantizer, settings, tensors, mapped=mapped)
        refinement = finer.restored(config["refine"], own, index)
        if own:
            raise ValueError(f"tensors {sorted(own)} are not part of it")
        for name, found, shape in (("held", held, (len(held), index.dim)), ("depth", depth, (len(depth),))):
            if found.dtype != np.float32 or found.shape != shape or not np.isfinite(found).all():
                raise ValueError(f"its {name} must be finite float32 {shape}, got {found.dtype} {found.shape}")
        if not isinstance(refinement, OutsideVectors) and len(refinement.store) != len(index):
            raise ValueError(f"it has {len(refinement.store)} rows to re-rank for {len(index)} codes")
        made = cls._over(index, refinement, config["shortlist"], config["recall_target"])
        made._held, made._depth = held, depth
        made._measured_at = positive_int(config["measured_at"], "measured_at", low=0)
        return made

    @classmethod
    def _over(cls, index: StoreIndex, refinement: Any, shortlist: int | None, recall_target: float) -> Self:
        """An index over parts that hold vectors already."""
        empty = type(index)(index.quantizer, metric=index.metric, norm=index.norm)
        made = cls(empty, "float32", shortlist=shortlist, recall_target=recall_target)
        made.index, made.refinement, made.residual = index, refinement, index.residual
        return made


def _refinement(
    index: StoreIndex, refine: str | Quantizer | Array, refines: str
) -> RawVectors | OutsideVectors | FinerCode:
    if refines not in ("auto", "vectors", "rest", "stages"):
        raise ValueError(f"refines must be 'auto', 'vectors', 'rest' or 'stages', got {refines!r}")
    if not isinstance(refine, Quantizer):
        if refines != "auto":
            raise ValueError(f"refines={refines!r} says what a second code is of; refine is no quantizer")
        return RawVectors(index.dim, refine) if isinstance(refine, str) else OutsideVectors.of(index.dim, refine)
    quantizer = finer.table_quantizer(refine)
    if quantizer.dim != index.dim:
        raise ValueError(f"refine must be of dimension {index.dim}, as index is, got {quantizer.dim}")
    what: Any = refines if refines != "auto" else "vectors" if bool(quantizer.fitted) else "rest"
    if what != "vectors":
        finer.table_quantizer(index.quantizer)
    if what == "stages":
        _check_head(index.quantizer.scan_view(), quantizer)
    return FinerCode(quantizer, what, index.quantizer.M)


def _check_head(head: Any, whole: Any) -> None:
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
