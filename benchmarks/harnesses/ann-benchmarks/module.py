"""annvq in ann-benchmarks: as ``ann_benchmarks/algorithms/annvq/module.py`` of a checkout. See docs/harnesses.md."""

import numpy

import annvq
from annvq.indexes.recipes import IndexRecipe, load_recipe, make_index

from ..base.module import BaseANN

METRICS = {"euclidean": "l2", "angular": "cosine"}


class Annvq(BaseANN):
    """An index of a recipe.

    Args:
        metric: ``"euclidean"`` or ``"angular"``.
        recipe: the name of one that annvq ships, or a dict with its tables ``index``, ``quantizer`` and ``refine``.
        nlist: of recipes with lists; 0: what suits the number of vectors.
    """

    def __init__(self, metric, recipe, nlist=0):
        if metric not in METRICS:
            raise NotImplementedError(f"annvq has no metric {metric!r}")
        named = isinstance(recipe, str)
        self.recipe = load_recipe(recipe) if named else IndexRecipe("given", **recipe)
        if nlist:
            self.recipe.index["nlist"] = nlist
        self.metric = METRICS[metric]
        self.settings = {}
        self.about = f"{self.recipe.name}, nlist={nlist or 'auto'}"
        self.name = f"annvq({self.about})"

    def fit(self, X):
        X = numpy.ascontiguousarray(X, dtype=numpy.float32)
        self.index = make_index(self.recipe, X.shape[1], n=len(X), metric=self.metric, base=X)
        self.index.fit(X).add(X)

    def set_query_arguments(self, nprobe=None, shortlist=None):
        """``nprobe`` lists, and ``shortlist`` results to re-rank; left out: as ``fit`` measured."""
        given = {"nprobe": nprobe, "shortlist": shortlist}
        self.settings = {name: value for name, value in given.items() if value}
        told = "".join(f", {name}={value}" for name, value in self.settings.items())
        self.name = f"annvq({self.about}{told})"

    def query(self, v, n):
        ids = self.index.search(v[None], n, **self.settings)[1][0]
        return ids[ids >= 0]

    def batch_query(self, X, n):
        self.found = self.index.search(X, n, **self.settings)[1]

    def get_batch_results(self):
        return [ids[ids >= 0] for ids in self.found]

    def get_additional(self):
        return {"bits_per_vector": self.index.bits_per_vector, "annvq": annvq.__version__}
