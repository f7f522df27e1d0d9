"""The inverted file: vectors in lists around coarse centroids; a search scans the lists nearest to the query."""

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from annvq.arrays import check_vectors, positive_int, to_numpy
from annvq.indexes.filters import Allowed, Filter
from annvq.indexes.ivf.coarse import MAX_LISTS, Coarse, default_nlist, learn_split, train_centroids
from annvq.indexes.ivf.coding import ListCoding
from annvq.indexes.ivf.probing import Probing, reach_of
from annvq.indexes.ivf.scanning import ListSearch, Scan, in_lists
from annvq.indexes.stored import StoreIndex
from annvq.indexes.targets import check_share
from annvq.indexes.within import Within
from annvq.optional import needed_by
from annvq.quantizers.coder import Coder
from annvq.training.data import require_short
from annvq.types import F32, I64, Array, Norm, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe


class IVFIndex(StoreIndex):
    """Exact ADC over the lists nearest to each query.

    Args:
        quantizer: fitted, or to be fitted by :meth:`fit` on what it will see.
        nlist: lists; default 4·√n of the vectors that ``fit`` sees (see :func:`default_nlist`): where those are only a
            sample, give ``default_nlist`` of the whole. Where ``fit`` sees fewer distinct vectors, as many as these.
        metric, norm: as for :class:`FlatIndex`; under l2, codes of residuals need a norm, product codes too, and under
            cosine they have one length.
        residual: whether codes are of x − C, C the list's centroid, instead of x. ``"auto"``: a fitted quantizer codes
            what it was fitted on, vectors; an unfitted one codes residuals wherever that stores no more bits (under ip
            and cosine, and for codes that pay a norm anyway).
        nprobe: lists that a search scans unless it says otherwise; default: as many as ``recall_target`` takes, and
            more where they hold fewer than k results.
        recall_target: share of the true nearest neighbours that shall lie in the lists probed. Measured in ``fit`` for
            10 neighbours, on vectors held out of it, and predicted from that for more; :meth:`tune` measures it anew
            on what is stored.
    """

    kind = "ivf"
    recipe_keys: ClassVar = {"norm": str, "nlist": int, "nprobe": int, "residual": bool, "recall_target": float}
    coding: ListCoding

    def __init__(
        self,
        quantizer: Coder,
        nlist: int | None = None,
        metric: str = "l2",
        norm: Norm = "auto",
        *,
        residual: bool | Literal["auto"] = "auto",
        nprobe: int | None = None,
        recall_target: float = 0.95,
        dim: int | None = None,
    ) -> None:
        super().__init__(quantizer, metric, norm, partial(ListCoding, residual=residual), dim)
        self.nlist = None if nlist is None else positive_int(nlist, "nlist", high=MAX_LISTS)
        given = None if nprobe is None else positive_int(nprobe, "nprobe", high=self.nlist or MAX_LISTS)
        self.probing = Probing(given, recall_target)

    @property
    def coarse(self) -> Coarse | None:
        """The lists' centroids, None until they are trained."""
        return self.coding.coarse

    @property
    def _lists(self) -> int:
        return 1 if self.coarse is None else self.coarse.nlist

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def list_sizes(self) -> I64:
        """Vectors in each list, (nlist,)."""
        return self._store.list_sizes if self.coarse else np.empty(0, np.int64)

    @property
    def centroids(self) -> F32:
        """A copy of the coarse centroids, (nlist, dims)."""
        return self.coding.trained("centroids").centroids.copy()

    @property
    def nprobe(self) -> int:
        """Lists that a search for 10 neighbours probes unless it says otherwise."""
        return self.probing.usual(self.coding.trained("nprobe").nlist)

    @property
    def recall_target(self) -> float:
        """Share of the true nearest neighbours that shall lie in the lists probed."""
        return self.probing.recall_target

    def facts(self) -> dict[str, Any]:
        sizes = self.list_sizes
        lists = {"nlist": self.nlist, "residual": self.residual, "recall_target": self.recall_target}
        if len(sizes):
            lists |= {"nprobe": self.nprobe, "largest_list": int(sizes.max()), "empty_lists": int((sizes == 0).sum())}
        return {**super().facts(), **lists}

    def nprobe_for(self, recall: float) -> int:
        """Lists to probe so that ``recall`` of the 10 nearest neighbours (or of as many as :meth:`tune` has measured)
        lie in them.

        Without a measurement (centroids set by hand, see :meth:`tune`) one list in 16.
        """
        return self.probing.lists_for(check_share(recall, "recall"), self.coding.trained("nprobe_for").nlist)

    def require_fitted(self, what: str) -> None:
        self.coding.trained(what)
        super().require_fitted(what)

    # -- learning ------------------------------------------------------------------------------------------------

    @needed_by("IVFIndex.fit")
    def fit(self, x: Array, *, seed: int = 0, progress: bool = False, recipe: "Recipe | None" = None) -> Self:
        """Train what is untrained: centroids, the quantizer on what it will see, norm levels, how many lists to probe.

        Args:
            x: learn vectors (n, d); of more than 262,144 a seeded sample is used.
            seed: same seed, same machine, same threads: same result.
            progress: show progress bars.
            recipe: how the quantizer learns; default: as in its own ``fit``.
        """
        x = check_vectors(x, self.dim)
        if int(x.shape[0]) == 0:
            raise ValueError("x must have at least one row to learn from, got none")
        rows, held = self._fit_coarse(x, seed)
        self._fit_codes(rows, held, seed, progress, recipe)
        return self

    def _fit_coarse(self, x: Array, seed: int) -> tuple[F32, F32]:
        """Centroids and how many to probe, where these are missing; returns the rows that codes may learn from, and
        others that were held out of them."""
        keep, out = learn_split(int(x.shape[0]), self.nlist, seed)
        rows, held = self.prepared(x[keep], "x"), self.prepared(x[out], "x")
        require_short(rows, keep)
        if self.coarse is None:
            nlist = default_nlist(int(x.shape[0])) if self.nlist is None else self.nlist
            self.set_centroids(train_centroids(rows, nlist, seed))
        self.probing.learn(self.coding.trained("fit"), rows, held, self.metric)
        return rows, held

    def learn_targets(self, x: Array, seed: int) -> Array:
        return self.coding.targets(self._fit_coarse(x, seed)[0])[1]

    def _fit_codes(self, rows: F32, held: F32, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        lists, targets = self.coding.targets(rows)
        if not bool(self.coder.fitted):
            self.quantizer.fit(targets, seed=seed, progress=progress, recipe=recipe)
        self.coding.learn_term(targets, lists, seed)
        if self.metric == "cosine":
            lists, targets = self.coding.targets(held if len(held) else rows)
            self.coding.learn_length(targets, lists, seed)

    def set_centroids(self, centroids: Array) -> Self:
        """Take centroids (nlist, dims) trained elsewhere; only while the index holds no vectors.

        Norm levels and the measurement behind ``nprobe`` are forgotten: call :meth:`fit`, which keeps the centroids.

        Raises:
            TypeError, ValueError: wrong kind, shape, NaN or infinity, or vectors are stored; nothing has changed then.
        """
        array = to_numpy(centroids, self.dims, "centroids", rows="nlist")
        if not 1 <= len(array) <= MAX_LISTS:
            raise ValueError(f"centroids must have between 1 and {MAX_LISTS} rows, got {len(array)}")
        if len(self):
            raise ValueError(f"centroids must be set before vectors are added; the index holds {len(self)}")
        self.coding.set_centroids(array)
        self.nlist = len(array)
        self.probing.forget()
        self._store, self._labelled = self._new_store(), False
        return self

    def tune(self, queries: Array, k: int = 10, *, recall: float | None = None) -> Self:
        """Measure on what is stored how many lists a search must probe.

        Args:
            queries: (nq, d) vectors like those that will be asked for, but not those that you will report on.
            k: neighbours whose lists are to be probed, by the index's own search of all lists; for more than these,
                searches predict how many it takes.
            recall: a new ``recall_target``; default: as it is.
        """
        q, count = self.asked(queries, k)
        target = self.recall_target if recall is None else check_share(recall, "recall")
        self.require_fitted("tune")
        found = self.find(q, count, nprobe=self.nlist)[1]
        lists = self._store.lists_of(found)
        self.probing.measured(reach_of(self.coding.trained("tune"), q, lists), target, count)
        return self

    def measure(self, vectors: Array) -> None:
        if self.probing.given is None:
            self.tune(vectors)

    # -- searching -----------------------------------------------------------------------------------------------

    def search(self, queries: Array, k: int, *, nprobe: int | None = None, filter: Filter = None) -> tuple[Any, Any]:
        """The ``k`` nearest stored vectors of each query, by exact ADC, among those in the lists probed.

        Args:
            queries: (nq, d).
            k: neighbours per query.
            nprobe: lists to scan; at ``nlist`` the result is that of scanning everything. By default :attr:`nprobe`,
                more of them for more than 10 neighbours, and 1 / √share times as many where a filter allows only a
                share of the vectors; queries that find fewer than k go on through further lists.
            filter: as for every index.

        Returns:
            distances (nq, k) float32 and ids (nq, k) int64, ordered by (distance, id), padded with +inf and −1 (by
            default only where fewer than k vectors are there, or allowed); torch tensors where the queries are.
        """
        q, k = self.asked(queries, k)
        return self.results(self.find(q, k, self.allowed(filter), nprobe), queries)

    @property
    def lists_within(self) -> int | None:
        nlist = self._lists
        return nlist if self.probing.given is None else self.probing.usual(nlist)

    def search_within(
        self, queries: Array, radius: float, *, nprobe: int | None = None, filter: Filter = None
    ) -> Within:
        """All stored vectors in the lists probed whose distance to a query is at most ``radius``.

        Args:
            queries, radius, filter: as for every index.
            nprobe: lists to scan. By default those that the index was made to probe, else all of them, as nothing says
                how many hold what lies within a radius.

        Returns:
            (lims, distances, ids), see :meth:`Index.search_within`.
        """
        return self._within(queries, radius, filter, nprobe)

    def find(
        self, queries: F32, k: int, allowed: Allowed = None, nprobe: int | None = None, wanted: int | None = None
    ) -> tuple[F32, I64]:
        store, coarse = self._store, self.coarse
        if coarse is None or not len(store):
            return np.full((len(queries), k), np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        return ListSearch(store, self.coding, coarse, self.probing).find(queries, k, allowed, nprobe, wanted)

    def in_lists(
        self, scan: Scan, queries: F32, wanted: int, there: int, n: int, nprobe: int | None
    ) -> tuple[F32, I64]:
        """:func:`~annvq.indexes.ivf.scanning.in_lists` of this index' centroids, for vectors that lie elsewhere."""
        return in_lists(scan, self.probing, self.coding.trained("search").nlist, queries, wanted, there, n, nprobe)

    # -- large builds --------------------------------------------------------------------------------------------

    @classmethod
    def for_vectors(cls, quantizer: Coder, n: int, *, metric: str, **settings: Any) -> Self:
        return cls(quantizer, metric=metric, **{"nlist": default_nlist(n), **settings})

    # -- files ---------------------------------------------------------------------------------------------------

    def _to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        config, tensors = super()._to_stored()
        about, arrays = self.coding.to_stored()
        probing, reach = self.probing.to_stored()
        return {**config, "nlist": self.nlist, **about, **probing}, {**tensors, **arrays, **reach}

    @classmethod
    def _from_stored(
        cls, quantizer: Coder, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, mapped: bool
    ) -> Self:
        settings = {key: config[key] for key in ("nlist", "metric", "norm", "residual", "nprobe", "recall_target")}
        index = cls(quantizer, **settings, dim=config.get("dim"))
        if "centroids" in tensors:
            nlist = index.nlist
            index.set_centroids(tensors.pop("centroids"))
            if nlist != index.nlist:
                raise ValueError(f"it has {index.nlist} centroids, its config says {nlist}")
        index.probing.restore(config, tensors, index._lists)
        index.coding.restore_term(config, tensors)
        index._restore(config, tensors, mapped=mapped)
        return index
