"""Re-ranking: scan short codes for a shortlist, then order that by distances to something finer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from annvq.arrays import check_vectors, chunks, like, positive_int
from annvq.indexes.filters import Allowed, Filter, allowed_among, most_allowed
from annvq.indexes.rerank.code import FinerCode, Refines
from annvq.indexes.rerank.decoded import Decoded
from annvq.indexes.rerank.length import LengthByte
from annvq.indexes.rerank.outside import OutsideVectors
from annvq.indexes.rerank.raw import RawVectors
from annvq.indexes.rerank.refined import RefinedIndex
from annvq.indexes.rerank.refinement import Refinement, refinement_from_stored
from annvq.indexes.rerank.shortlist import MOST, NEIGHBORS, Ranks, Shortlist
from annvq.indexes.saved import registered
from annvq.indexes.stored import StoreIndex
from annvq.indexes.targets import check_share
from annvq.indexes.within import Find, Within, all_within, as_queries_came, check_radius
from annvq.quantizers.coder import Coder
from annvq.types import F32, I64, Array, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

_UNMEASURED = "measured when first searched"
_OF_CODES: dict[str, Callable[[StoreIndex], Refinement]] = {of.kind: of for of in (Decoded, LengthByte)}


class RerankIndex(RefinedIndex):
    """A shortlist from an index of codes, ordered by exact distances to a finer form of the vectors.

    Args:
        index: a flat index or inverted lists, empty; what is scanned.
        refine: what the shortlist is ordered by:

            - ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"uint8"`` or ``"int8"``: the vectors themselves, kept in
              memory so; of the last two only whole numbers, but under cosine int8 keeps the direction of any vector;
            - an array or memory map (n, d) of such a type: the vectors, read where they lie; ids are its row numbers;
            - a quantizer (product, residual or additive): a second code;
            - ``"decoded"``: the vectors that the scanned codes stand for, which takes no further bits: for conditional
              codes, which are scanned without their network, and for sums of entries under cosine;
            - ``"length"``: the same, each made longer as a byte of its vector's length says: for ``"ip"``.
        refines: what a second code is of: ``"vectors"``, ``"rest"`` (what scanning leaves over) or ``"stages"``:
            ``refine`` is a residual or additive quantizer whose first codebooks are those of ``index.quantizer``; a
            code is found for all of them, the first ones are scanned, the others added for the shortlist. ``"auto"``:
            a fitted quantizer codes what it was fitted on, vectors; an unfitted one the rest.
        shortlist: vectors that are ordered exactly, at least k; default: as many as ``recall_target`` takes.
        recall_target: share of the k nearest by exact distance that shall be on the shortlist, for k of 10 and more;
            over inverted lists of those that lie in the lists probed, so that the two targets multiply. Measured with
            up to 200 of the vectors of ``fit`` (one that is stored too counts as its own nearest), when first needed
            for k up to 10, and for more, and again when the index holds twice or half as many vectors; :meth:`tune`
            measures it with others.

    Distances are those to the finer form, in one fixed order of summation (see
    :class:`~annvq.indexes.rerank.refinement.Refinement`).
    """

    kind = "rerank"
    mappable = StoreIndex.mappable | {"refine.ids", "refine.rows"}

    def __init__(
        self,
        index: StoreIndex,
        refine: str | Coder | Array = "float32",
        *,
        refines: Refines | Literal["auto"] = "auto",
        shortlist: int | None = None,
        recall_target: float = 0.95,
    ) -> None:
        if not isinstance(index, StoreIndex):
            raise TypeError(f"index must be a flat index or inverted lists, got {type(index).__name__}")
        refinement = _refinement(index, refine, refines)
        self._set(index, refinement, Shortlist(_width(index, refinement), shortlist, recall_target))
        if len(index):
            raise ValueError(f"index must be empty, so that all its vectors can be refined; it holds {len(index)}")

    def _set(self, index: StoreIndex, refinement: Refinement, shortlist: Shortlist) -> None:
        super().__init__(index, refinement)
        self._shortlist = shortlist

    # -- facts ---------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        length = self._shortlist.given or (self.shortlist if self._shortlist.measured_at else _UNMEASURED)
        sizes = {"bits_per_vector": self.bits_per_vector, "ram_bits_per_vector": self.ram_bits_per_vector}
        scanned = {"scanned": self.index.kind, "scan_bits_per_vector": self.scan_bits_per_vector}
        own = {"kind": self.kind, **sizes, **scanned, **self.refinement.facts(), "shortlist": length}
        return {**self.index.facts(), **own}

    def seen(self, queries: F32) -> F32:
        """Queries as :meth:`compared` gives them, as the scanned index compares them."""
        return queries if queries.shape[1] == self.dims else self.index.compared(queries, "queries")

    # -- learning ------------------------------------------------------------------------------------------------

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        """Train what is untrained, as every index does: the scanned index, then the second code.

        A few of the vectors (n, d) are kept, to measure with how long shortlists must be.
        """
        x = check_vectors(x, self.dim)
        how: Any = {"seed": seed, "progress": progress, "recipe": recipe}
        self.refinement.fit_first(self.index, x, **how)
        self.index.fit(x, **how)
        self.refinement.fit(self.index, x, **how)
        self._shortlist.hold_some(x, seed, self.prepared)
        return self

    def tune(self, queries: Array, *, recall: float | None = None) -> Self:
        """Measure on what is stored how long shortlists must be.

        Args:
            queries: (nq, d) vectors like those that will be asked for, but not those that you will report on; they
                replace the ones held out of ``fit``.
            recall: a new ``recall_target``; default: as it is.
        """
        q, _ = self.asked(queries, 1)
        if not len(q):
            raise ValueError("queries must have at least one row to measure with, got none")
        target = self.recall_target if recall is None else check_share(recall, "recall")
        self.require_fitted("tune")
        self._shortlist.aim(target, q)
        self._shortlist.measure(len(self), self._ranks)
        return self

    def measure(self, vectors: Array) -> None:
        self.index.measure(vectors)
        if self._shortlist.given is None:
            self.tune(vectors)

    @property
    def recall_target(self) -> float:
        """Share of the nearest by exact distance that shall be on the shortlist."""
        return self._shortlist.recall_target

    @property
    def shortlist(self) -> int:
        """Vectors that a search for 10 neighbours orders exactly unless it says otherwise."""
        return self._shortlist.length(NEIGHBORS, len(self), self._ranks)

    def depth(self, k: int, shortlist: int | None, n: int, ranks: Ranks) -> int:
        """How long the shortlist for ``k`` neighbours of ``n`` vectors is: as asked for, or measured by ``ranks``."""
        if shortlist is None:
            return self._shortlist.length(k, n, ranks)
        return positive_int(shortlist, "shortlist", low=k, high=MOST)

    def _ranks(self, queries: F32, depth: int, k: int) -> tuple[I64, I64]:
        """What scanning finds for checked queries, ids (nq, depth) in its order, and the k nearest of them."""
        scanned = self.index.find(self.seen(queries), depth, wanted=k)[1]
        return scanned, self.refinement.rank(self.index, queries, scanned, k)[1]

    # -- searching -----------------------------------------------------------------------------------------------

    def search(
        self, queries: Array, k: int, *, shortlist: int | None = None, nprobe: int | None = None, filter: Filter = None
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
        q, k = self.asked(queries, k)
        depth = self.depth(k, shortlist, len(self), self._ranks)
        allowed = self.index.allowed(filter)
        distances, ids = np.empty((len(q), k), np.float32), np.empty((len(q), k), np.int64)
        for start, stop in chunks(len(q), min(depth, max(1, len(self))) * 8):
            asked = self.seen(q[start:stop])
            found = self.index.find(asked, min(depth, max(k, len(self))), allowed, nprobe, k)[1]
            distances[start:stop], ids[start:stop] = self.refinement.rank(self.index, q[start:stop], found, k)
        return like(distances, queries), like(ids, queries)

    def search_within(
        self,
        queries: Array,
        radius: float,
        *,
        shortlist: int | None = None,
        nprobe: int | None = None,
        filter: Filter = None,
    ) -> Within:
        """All vectors of a shortlist of each query whose distance, to the finer form, is at most ``radius``.

        Args:
            queries, radius, filter: as for every index.
            shortlist: how many of the scanned index's results are compared. By default all, which reads every vector
                that is kept: exact, and slow where these are many.
            nprobe: lists to scan, where the scanned index has lists; default: as in its own ``search_within``.

        Returns:
            (lims, distances, ids), see :meth:`Index.search_within`.
        """
        limit, q, allowed = check_radius(radius), self.prepared(queries, "queries"), self.index.allowed(filter)
        find, on_it = self.shortlisted(allowed, self.index.lists_within if nprobe is None else nprobe, shortlist)
        return as_queries_came(all_within(find, q, limit, on_it), queries)

    def shortlisted(
        self, allowed: Allowed, probes: int | None, shortlist: int | None
    ) -> tuple[Find, Callable[[], int]]:
        """What :meth:`search_within` asks: for prepared queries and k the nearest of those that are on the shortlist,
        by exact distance; and how many are on it at most. The shortlist None is all that ``probes`` lists hold."""
        given = check_shortlist(shortlist)
        whole = allowed_among(allowed, self.index.ids) if given is None and self.index.all_lists(probes) else None

        def on_it() -> int:
            there = most_allowed(allowed, len(self)) if whole is None else len(whole)
            return there if given is None else min(there, given)

        def find(rows: F32, k: int) -> tuple[F32, I64]:
            distances, ids = np.full((len(rows), k), np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
            if not on_it():
                return distances, ids
            for start, stop in chunks(len(rows), 8 * on_it()):
                part = rows[start:stop]
                if whole is None:
                    listed = self.index.find(self.seen(part), max(1, on_it()), allowed, probes)[1]
                else:
                    listed = np.tile(whole, (len(part), 1))
                distances[start:stop], ids[start:stop] = self.refinement.rank(self.index, part, listed, k)
            return distances, ids

        return find, on_it

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        with self.index.changing:
            config, tensors = self.index._to_stored()
            refine, more = self.refinement.to_stored()
        own, held = self._shortlist.to_stored()
        parts = {"index": {"kind": self.index.kind, **config}, "refine": {"kind": self.refinement.kind, **refine}}
        return parts | own, tensors | more | held

    @classmethod
    def _from_stored(
        cls, quantizer: Coder, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        settings = {"metric": config["metric"], "norm": config["norm"], "dim": config.get("dim"), **config["index"]}
        inner = registered()[settings["kind"]]
        if not issubclass(inner, StoreIndex):
            raise ValueError(f"it re-ranks an index of kind {settings['kind']!r}")
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith("refine.")}
        index = inner._from_stored(quantizer, settings, tensors, mapped=mapped)
        refinement = refinement_from_stored(config["refine"], own, index)
        shortlist = Shortlist.from_stored(_width(index, refinement), config, own)
        if own:
            raise ValueError(f"tensors {sorted(own)} are not part of it")
        made = cls.__new__(cls)
        made._set(index, refinement, shortlist)
        return made


def check_shortlist(shortlist: int | None) -> int | None:
    """A shortlist of :meth:`RerankIndex.search_within`, as it was given; ValueError where it is none."""
    return None if shortlist is None else positive_int(shortlist, "shortlist", high=MOST)


def _width(index: StoreIndex, refinement: Refinement) -> int:
    """Dimensions of the queries that the refinement is asked with."""
    return index.dim if refinement.whole else index.dims


def _refinement(index: StoreIndex, refine: str | Coder | Array, refines: str) -> Refinement:
    """What ``refine`` says, see :class:`RerankIndex`."""
    if refines not in ("auto", "vectors", "rest", "stages"):
        raise ValueError(f"refines must be 'auto', 'vectors', 'rest' or 'stages', got {refines!r}")
    if isinstance(refine, Coder):
        return FinerCode.of(index, refine, refines)
    if refines != "auto":
        raise ValueError(f"refines={refines!r} says what a second code is of; refine is no quantizer")
    if isinstance(refine, str) and refine in _OF_CODES:
        return _OF_CODES[refine](index)
    return RawVectors(index.dim, refine) if isinstance(refine, str) else OutsideVectors.of(index.dim, refine)
