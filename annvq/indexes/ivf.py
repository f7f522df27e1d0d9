"""The inverted file: vectors in lists around coarse centroids; a search scans the lists nearest to the query.

Where codes are of coarse residuals, x̂ = C + r̂ and

    ‖q − x̂‖² = ‖q − C‖² − 2⟨q, r̂⟩ + (‖r̂‖² + 2⟨C, r̂⟩).

The first term is one number per query and list, the second a sum of table entries that no list changes, the third a
number per vector, stored as its norm. So one table per query serves all lists.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from annvq.arrays import check_vectors, chunks, like, positive_int, to_numpy
from annvq.errors import NotFittedError
from annvq.indexes.coarse import MAX_LISTS, ROWS_PER_LIST, Coarse, default_nlist, train_centroids
from annvq.indexes.contract import check_search
from annvq.indexes.filters import Allowed, Filter, most_allowed, resolve_filter
from annvq.indexes.probing import check_share, nearest_lists, probes_for, reach_of, widened
from annvq.indexes.stored import Encoded, StoreIndex
from annvq.kernels import LazyTables
from annvq.kernels.store import Rows
from annvq.quantizers.base import Quantizer
from annvq.quantizers.norms import NORM_LEVELS, NormByte
from annvq.types import F32, I32, I64, Array, Norm

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

_HELD_OUT, _NEIGHBORS = 1_000, 10
_NORM_ROWS = 1 << 16
_LEARN_ROWS = 1 << 18


class IVFIndex(StoreIndex):
    """Exact ADC over the lists nearest to each query.

    Args:
        quantizer: fitted, or to be fitted by :meth:`fit` on what it will see.
        nlist: lists; default 4·√n of the vectors that ``fit`` sees (see :func:`default_nlist`): where those are only a
            sample, give ``default_nlist`` of the whole. Where ``fit`` sees fewer distinct vectors, as many as these.
        metric, norm: as for :class:`FlatIndex`; under l2, codes of residuals need a norm, product codes too.
        residual: whether codes are of x − C, C the list's centroid, instead of x. ``"auto"``: a fitted quantizer codes
            what it was fitted on, vectors; an unfitted one codes residuals wherever that stores no more bits (under ip
            and cosine, and for codes that pay a norm anyway).
        nprobe: lists that a search scans unless it says otherwise; default: as many as ``recall_target`` takes.
        recall_target: share of the true 10 nearest neighbours that shall lie in the lists probed. Measured in ``fit``
            on vectors held out of it; :meth:`tune` measures it anew on what is stored.
    """

    kind = "ivf"
    coarse: Coarse | None = None

    def __init__(
        self,
        quantizer: Quantizer,
        nlist: int | None = None,
        metric: str = "l2",
        norm: Norm = "auto",
        *,
        residual: bool | Literal["auto"] = "auto",
        nprobe: int | None = None,
        recall_target: float = 0.95,
    ) -> None:
        if isinstance(quantizer, Quantizer):  # anything else is refused by the base class
            self.residual = _resolve_residual(residual, quantizer, metric)
        super().__init__(quantizer, metric, norm)
        self.nlist = None if nlist is None else positive_int(nlist, "nlist", high=MAX_LISTS)
        self._nprobe = None if nprobe is None else positive_int(nprobe, "nprobe", high=self.nlist or MAX_LISTS)
        self.recall_target = check_share(recall_target, "recall_target")
        self._reach: F32 = np.empty(0, np.float32)
        self._norm_byte: NormByte | None = None  # of residual codes; other codes bring their own

    @property
    def _lists(self) -> int:
        return 1 if self.coarse is None else self.coarse.nlist

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def list_sizes(self) -> I64:
        """Vectors in each list, (nlist,)."""
        sizes: I64 = np.asarray(self._store.list_sizes)
        return sizes if self.coarse else sizes[:0]

    @property
    def centroids(self) -> F32:
        """A copy of the coarse centroids, (nlist, d)."""
        return self.coarse_centroids().copy()

    def coarse_centroids(self) -> F32:
        """The coarse centroids themselves, not to be changed."""
        return self._trained("centroids").centroids

    @property
    def nprobe(self) -> int:
        """Lists that a search probes unless it says otherwise."""
        if self._nprobe is not None:
            return min(self._nprobe, self._trained("nprobe").nlist)
        return self.nprobe_for(self.recall_target)

    def facts(self) -> dict[str, Any]:
        sizes = self.list_sizes
        lists = {"nlist": self.nlist, "residual": self.residual, "recall_target": self.recall_target}
        if len(sizes):
            lists |= {"nprobe": self.nprobe, "largest_list": int(sizes.max()), "empty_lists": int((sizes == 0).sum())}
        return {**super().facts(), **lists}

    def nprobe_for(self, recall: float) -> int:
        """Lists to probe so that ``recall`` of the true 10 nearest neighbours lie in them, as far as measured.

        Without a measurement (centroids set by hand, see :meth:`tune`) one list in 16.
        """
        target, nlist = check_share(recall, "recall"), self._trained("nprobe_for").nlist
        return probes_for(self._reach, target) if len(self._reach) else max(1, nlist // 16)

    def _trained(self, what: str) -> Coarse:
        if self.coarse is None:
            raise NotFittedError(f"{what} needs a trained index: call {type(self).__name__}.fit(x) first")
        return self.coarse

    def require_fitted(self, what: str) -> None:
        self._trained(what)
        super().require_fitted(what)

    # -- learning ------------------------------------------------------------------------------------------------

    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        """Train what is untrained: centroids, the quantizer on what it will see, norm levels, how many lists to probe.

        Args:
            x: learn vectors (n, d); of more than 262,144 a seeded sample is used.
            seed: same seed, same machine, same threads: same result.
            progress: show progress bars.
            recipe: how the quantizer learns; default: as in its own ``fit``.
        """
        check_vectors(x, self.dim)
        if int(x.shape[0]) == 0:
            raise ValueError("x must have at least one row to learn from, got none")
        self._fit_codes(self._fit_coarse(x, seed), seed, progress, recipe)
        return self

    def _fit_coarse(self, x: Array, seed: int) -> F32:
        """Centroids and how many to probe, where these are missing; returns the rows that codes may learn from."""
        rows, held = self._sample(x, seed)
        if self.coarse is None:
            nlist = default_nlist(int(x.shape[0])) if self.nlist is None else self.nlist
            self.set_centroids(train_centroids(rows, nlist, seed))
        if not len(self._reach):
            self._reach = self._measured_reach(rows, held)
        return rows

    def fit_stages(self, whole: Quantizer, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        """Train centroids, if there are none, and then ``whole`` on what the codes of this index stand for."""
        rows = self._fit_coarse(x, seed)
        whole.fit(self.targets(rows)[1], seed=seed, progress=progress, recipe=recipe)

    def _sample(self, x: Array, seed: int) -> tuple[F32, F32]:
        """Rows to learn from, and rows held out of them to ask with."""
        n = int(x.shape[0])
        limit = max(_LEARN_ROWS, ROWS_PER_LIST // 4 * (self.nlist or 0))
        order = np.random.default_rng(seed).permutation(n)[:limit]
        held = min(_HELD_OUT, len(order) // 20)
        keep, out = np.sort(order[held:]), np.sort(order[:held])
        return self.prepared(x[keep], "x"), self.prepared(x[out], "x")

    def _fit_codes(self, rows: F32, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        view = self.quantizer.scan_view()
        lists, targets = self.targets(rows)
        if not bool(self.quantizer.fitted):
            self.quantizer.fit(targets, seed=seed, progress=progress, recipe=recipe)
        if self.norm == "uint8" and not self.residual and not view.has_norm_levels:
            view.fit_norms(targets, seed=seed)
        if self.residual and self.norm == "uint8" and self._norm_byte is None:
            some = np.random.default_rng(seed).permutation(len(rows))[:_NORM_ROWS]
            self._norm_byte = self._learned_norm_byte(targets[some], lists[some])

    def _learned_norm_byte(self, targets: F32, lists: I32) -> NormByte:
        from annvq.training.norms import fit_norm_byte

        coarse, view = self._trained("fit"), self.quantizer.scan_view()
        codes = self.quantizer.encode(targets)
        errors = view.squared_errors(targets, codes)
        # Entries that hardly occur keep ‖c‖² + 2⟨C, c⟩ with C the mean centroid.
        mean = coarse.centroids[lists].mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
        cross = np.concatenate([t[:size] for t, size in zip(view.tables(mean, "ip").luts[0], view.sizes, strict=True)])
        entries = view.codebooks_copy().astype(np.float64)
        start = np.einsum("ij,ij->i", entries, entries) - 2.0 * cross
        values, start = self._terms(codes, lists), start.astype(np.float32)
        return fit_norm_byte(codes, values, view.sizes, start=start, code_error=errors)

    def set_centroids(self, centroids: Array) -> Self:
        """Take centroids (nlist, d) trained elsewhere; only while the index holds no vectors.

        Norm levels and the measurement behind ``nprobe`` are forgotten: call :meth:`fit`, which keeps the centroids.

        Raises:
            TypeError, ValueError: wrong kind, shape, NaN or infinity, or vectors are stored; nothing has changed then.
        """
        array = to_numpy(centroids, self.dim, "centroids", rows="nlist")
        if not 1 <= len(array) <= MAX_LISTS:
            raise ValueError(f"centroids must have between 1 and {MAX_LISTS} rows, got {len(array)}")
        if len(self):
            raise ValueError(f"centroids must be set before vectors are added; the index holds {len(self)}")
        self.coarse, self.nlist = Coarse(array, self.metric), len(array)
        self._reach, self._norm_byte = np.empty(0, np.float32), None
        self._store, self._labelled = self._new_store(), False
        return self

    def _measured_reach(self, rows: F32, held: F32) -> F32:
        coarse = self._trained("fit")
        if not len(held):
            return np.empty(0, np.float32)
        return reach_of(coarse, held, nearest_lists(coarse, rows, held, _NEIGHBORS, self.metric))

    def tune(self, queries: Array, k: int = 10, *, recall: float | None = None) -> Self:
        """Measure on what is stored how many lists a search must probe.

        Args:
            queries: (nq, d) vectors like those that will be asked for, but not those that you will report on.
            k: neighbours whose lists are to be probed, by the index's own search of all lists.
            recall: a new ``recall_target``; default: as it is.
        """
        q, count = check_search(self, queries, k)
        target = self.recall_target if recall is None else check_share(recall, "recall")
        self.require_fitted("tune")
        found = self.search(q, count, nprobe=self.nlist)[1]
        lists = np.full(found.shape, -1, np.int32)
        lists[found >= 0] = self._store.rows(found[found >= 0])[2]
        self._reach, self.recall_target, self._nprobe = reach_of(self._trained("tune"), q, lists), target, None
        return self

    # -- vectors -------------------------------------------------------------------------------------------------

    def targets(self, rows: F32) -> tuple[I32, F32]:
        """The list of each checked vector, and what its code is to stand for: x, or x − C for residual codes."""
        coarse = self._trained("add")
        lists = coarse.assign(rows)
        return lists, rows - coarse.centroids[lists] if self.residual else rows

    def encoded_as(self, targets: F32, codes: npt.NDArray[Any], lists: I32) -> Encoded:
        """What is stored of vectors in these lists with these codes, which stand for ``targets``."""
        return Encoded(codes, self._norms_in_lists(targets, codes, lists), lists)

    def _encode_rows(self, rows: F32) -> Encoded:
        lists, targets = self.targets(rows)
        if self.norm != "uint8":
            return self.encoded_as(targets, self.quantizer.encode(targets), lists)
        if not self.residual:
            return Encoded(*self.quantizer.encode_with_norm(targets), lists)
        centres = self._trained("add").centroids[lists]
        return self.encoded_as(targets, self.quantizer.encode_for_byte(targets, self._byte(), centres), lists)

    def _norms_in_lists(self, targets: F32, codes: npt.NDArray[Any], lists: I32) -> npt.NDArray[Any] | None:
        """What codes in these lists add to their scores, in the form that is stored, or None."""
        if not self.residual or self.norm is None:
            return self._norms_of(targets, codes)
        terms = self._terms(codes, lists)
        if self.norm != "uint8":
            return terms
        return self._byte().encode_vectors(codes, terms, self.quantizer.scan_view().squared_errors(targets, codes))

    def _decode_rows(self, rows: Rows) -> F32:
        x: F32 = self.quantizer.decode(rows.codes)
        return x + self._trained("reconstruct").centroids[rows.lists] if self.residual else x

    def _terms(self, codes: npt.NDArray[Any], lists: I32) -> F32:
        """‖r̂‖² + 2⟨C, r̂⟩ of residual codes in these lists, (n,)."""
        view, centroids = self.quantizer.scan_view(), self._trained("add").centroids
        out = np.empty(len(codes), np.float32)
        for start, stop in chunks(len(codes), 3 * self.dim):
            r = view.decode(codes[start:stop]).astype(np.float64)
            out[start:stop] = np.einsum("ij,ij->i", r, r + 2.0 * centroids[lists[start:stop]])
        return out

    def _byte(self) -> NormByte:
        if self._norm_byte is None:
            raise NotFittedError('norm="uint8" needs learned norm levels: call IVFIndex.fit(x) first')
        return self._norm_byte

    def search(self, queries: Array, k: int, *, nprobe: int | None = None, filter: Filter = None) -> tuple[Any, Any]:
        """The ``k`` nearest stored vectors of each query, by exact ADC, among those in the lists probed.

        Args:
            queries: (nq, d).
            k: neighbours per query.
            nprobe: lists to scan; at ``nlist`` the result is that of scanning everything. By default :attr:`nprobe`,
                and nprobe / √share where a filter allows only a share of the vectors.
            filter: as for every index.

        Returns:
            distances (nq, k) float32 and ids (nq, k) int64, ordered by (distance, id), padded with +inf and −1;
            torch tensors where the queries are.
        """
        q, k = check_search(self, queries, k)
        coarse = self.coarse
        if coarse is None or not len(self):
            distances, ids = np.full((len(q), k), np.inf, np.float32), np.full((len(q), k), -1, np.int64)
            return like(distances, queries), like(ids, queries)
        allowed = resolve_filter(filter, self._store.ids)
        if nprobe is None:
            probes = widened(self.nprobe, coarse.nlist, most_allowed(allowed, len(self)), len(self))
        else:
            probes = positive_int(nprobe, "nprobe", high=coarse.nlist)
        distances, ids = np.empty((len(q), k), np.float32), np.empty((len(q), k), np.int64)
        for start, stop in chunks(len(q), self.quantizer.M * max(self.quantizer.sizes)):
            found = self._search(q[start:stop], k, probes, allowed)
            distances[start:stop], ids[start:stop] = found
        return like(distances, queries), like(ids, queries)

    def _search(self, q: F32, k: int, probes: int, allowed: Allowed) -> tuple[F32, I64]:
        coarse = self._trained("search")
        lists, scores = coarse.probe(q, probes)
        luts, bias = self._tables(q)
        return self._store.search(
            luts,
            bias,
            k,
            norm_levels=self._norm_levels(),
            probes=lists,
            probe_bias=bias[:, None] + scores if self.residual else None,
            order=coarse.order(lists),
            allowed=allowed,
        )

    def _tables(self, queries: F32) -> tuple[LazyTables, F32]:
        """Tables that serve every list."""
        if not (self.residual and self.metric == "l2"):
            return super()._tables(queries)
        view = self.quantizer.scan_view()
        luts, bias = view.lazy_tables(queries, "ip")
        luts = luts.scaled(2)  # −2⟨q, c⟩; doubling is exact
        if self.norm == "uint8":
            luts = luts.plus(self._byte().table_offsets(max(view.sizes)))
        return luts, bias * np.float32(2)

    def _norm_levels(self) -> F32 | None:
        return self._byte().levels if self.residual and self.norm == "uint8" else super()._norm_levels()

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        config, tensors = super()._to_stored()
        config |= {"nlist": self.nlist, "residual": self.residual, "nprobe": self._nprobe}
        if self.coarse is not None:
            tensors["centroids"] = self.coarse.centroids
        if len(self._reach):
            tensors["reach"] = self._reach
        if self._norm_byte is not None:
            byte = self._norm_byte
            config |= {"weighs_norm": byte.weighed, "error_share": byte.error_share}
            tensors |= {"norm_levels": byte.levels, "norm_offsets": byte.offsets}
        return {**config, "recall_target": self.recall_target}, tensors

    @classmethod
    def _from_stored(
        cls, quantizer: Quantizer, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        settings = {key: config[key] for key in ("nlist", "metric", "norm", "residual", "nprobe", "recall_target")}
        index = cls(quantizer, **settings)
        if "centroids" in tensors:
            nlist = index.nlist
            index.set_centroids(tensors.pop("centroids"))
            if nlist != index.nlist:
                raise ValueError(f"it has {index.nlist} centroids, its config says {nlist}")
        if "reach" in tensors:
            index._reach = _floats(tensors, "reach", index._lists)
        if "norm_levels" in tensors:
            levels = _floats(tensors, "norm_levels", NORM_LEVELS)
            offsets = _floats(tensors, "norm_offsets", sum(quantizer.sizes))
            weighed = config.get("weighs_norm", False)  # not in versions 1 and 2
            if not isinstance(weighed, bool):
                raise ValueError(f"its weighs_norm must be true or false, got {weighed!r}")
            share = config.get("error_share", 0.0)  # not before version 5
            if not isinstance(share, float) or not 0 <= share <= 1:
                raise ValueError(f"its error_share must be a number in [0, 1], got {share!r}")
            index._norm_byte = NormByte(quantizer.sizes, offsets, levels, weighed, share)
        index._restore(config, tensors, mapped=mapped)
        if len(index):
            index._trained("load")
            index._norm_levels()
        return index


def _floats(tensors: dict[str, npt.NDArray[Any]], name: str, size: int) -> F32:
    """The tensor ``name``, taken out of ``tensors`` once it is known to be ``size`` finite float32."""
    found = tensors.pop(name)
    if found.dtype != np.float32 or found.shape != (size,) or not np.isfinite(found).all():
        raise ValueError(f"its {name} must be {size} finite float32, got {found.dtype} {found.shape}")
    return found


def _resolve_residual(residual: Any, quantizer: Quantizer, metric: str) -> bool:
    """Whether codes are of residuals."""
    if residual not in (True, False, "auto"):
        raise ValueError(f"residual must be True, False or 'auto', got {residual!r}")
    if residual != "auto":
        return bool(residual)
    return not bool(quantizer.fitted) and (metric != "l2" or quantizer.scan_view().needs_norm)
