"""annvq in big-ann-benchmarks: as ``neurips23/TRACK/annvq/tracks.py`` of a checkout. See docs/harnesses.md."""

import os

import numpy as np
from benchmark.algorithms.base import BaseANN
from benchmark.datasets import DATASETS

import annvq
from annvq.adapters.growing import GrowingIndex
from annvq.indexes.recipes import IndexRecipe, load_recipe, make_index

METRICS = {"euclidean": "l2", "ip": "ip", "angular": "cosine"}
BLOCK = 100_000


class Annvq(BaseANN):
    """An index of a recipe, and k nearest neighbours: the out-of-distribution track, and the tracks of 2021.

    Args:
        metric: ``"euclidean"``, ``"ip"`` or ``"angular"``.
        params: ``recipe`` (the name of one that annvq ships, or a dict with its tables ``index``, ``quantizer`` and
            ``refine``), and if wanted ``learn`` (the first so many vectors to learn from) and ``threads``.
    """

    def __init__(self, metric, params):
        if metric not in METRICS:
            raise NotImplementedError(f"annvq has no metric {metric!r}")
        self.metric = METRICS[metric]
        recipe = params["recipe"]
        self.recipe = load_recipe(recipe) if isinstance(recipe, str) else IndexRecipe("given", **recipe)
        self.learn = params.get("learn", 200_000)
        self.settings = {}
        self.name = f"annvq({self.recipe.name})"
        if "threads" in params:
            annvq.set_num_threads(params["threads"])

    def track(self):
        return "ood"

    def path(self, dataset):
        """Where the index of a data set is kept."""
        return os.path.join("data", f"{dataset}.{self.recipe.name}.annvq")

    def fit(self, dataset):
        ds = DATASETS[dataset]()
        by_base = self.recipe.refine.get("vectors") == "base"
        base = np.ascontiguousarray(ds.get_dataset()) if by_base else None
        self.index = make_index(self.recipe, ds.d, n=ds.nb, metric=self.metric, base=base)
        self.index.fit(next(ds.get_dataset_iterator(bs=min(self.learn, ds.nb))))
        for block in ds.get_dataset_iterator(bs=BLOCK):
            self.index.add(block)
        if not by_base:
            self.index.save(self.path(dataset))

    def load_index(self, dataset):
        if not os.path.exists(self.path(dataset)):
            return False
        self.index = annvq.load_index(self.path(dataset))
        return True

    def index_files_to_store(self, dataset):
        folder, name = os.path.split(self.path(dataset))
        return [folder, name, [""]]

    def set_query_arguments(self, query_args):
        """``nprobe`` lists, and ``shortlist`` results to re-rank; left out: as ``fit`` measured."""
        self.settings = dict(query_args)
        told = "".join(f", {name}={value}" for name, value in self.settings.items())
        self.name = f"annvq({self.recipe.name}{told})"

    def query(self, X, k):
        self.res = self.index.search(X, k, **self.settings)[1]

    def range_query(self, X, radius):
        self.res = self.index.search_within(X, radius, **self.settings)


class AnnvqFilter(Annvq):
    """The filter track: neighbours that have all of a query's words. Queries of the same words are asked together."""

    def track(self):
        return "filter"

    def fit(self, dataset):
        super().fit(dataset)
        self.take_words(dataset)

    def load_index(self, dataset):
        found = super().load_index(dataset)
        if found:
            self.take_words(dataset)
        return found

    def take_words(self, dataset):
        """Which vectors have each word."""
        ds = DATASETS[dataset]()
        self.with_word = ds.get_dataset_metadata().tocsc() if ds.search_type() == "knn_filtered" else None

    def ids_with(self, words):
        """Ids of the vectors that have all of these words, ascending."""
        held = [self.with_word.indices[self.with_word.indptr[w] : self.with_word.indptr[w + 1]] for w in words]
        ids = held[0]
        for more in held[1:]:
            ids = np.intersect1d(ids, more, assume_unique=True)
        return np.sort(ids).astype(np.int64)

    def filtered_query(self, X, filter, k):
        queries = {}
        for row in range(X.shape[0]):
            words = filter.indices[filter.indptr[row] : filter.indptr[row + 1]]
            queries.setdefault(tuple(sorted(words.tolist())), []).append(row)
        self.res = np.full((X.shape[0], k), -1, np.int64)
        for words, rows in queries.items():
            self.res[rows] = self.index.search(X[rows], k, filter=self.ids_with(words), **self.settings)[1]


class AnnvqStreaming(BaseANN):
    """The streaming track: vectors that come and go. The first ``learn`` are compared exactly, then an index learns
    from them. ``params`` as for :class:`Annvq`."""

    def __init__(self, metric, params):
        self.made = Annvq(metric, params)
        self.name = self.made.name

    def track(self):
        return "stream"

    def setup(self, dtype, max_pts, ndims):
        index = make_index(self.made.recipe, ndims, n=max_pts, metric=self.made.metric)
        self.index = GrowingIndex(index, learn_at=min(self.made.learn, max_pts // 4))

    def load_index(self, dataset):
        return False

    def insert(self, X, ids):
        self.index.upsert(np.asarray(X), np.asarray(ids, np.int64))

    def replace(self, X, ids):
        self.insert(X, ids)

    def delete(self, ids):
        self.index.remove(np.asarray(ids, np.int64))

    def set_query_arguments(self, query_args):
        """Nothing to set: how many lists to probe is what learning measured."""

    def query(self, X, k):
        self.res = self.index.search(X, k)[1]
