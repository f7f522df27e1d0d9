"""Data sets: vectors with queries and exact neighbours, by name or by path.

>>> from annvq import datasets
>>> patches = datasets.load("patches")  # no network needed
>>> patches.base.shape, patches.queries.shape, patches.neighbors.shape
((100000, 64), (1000, 64), (1000, 100))

``names()`` lists the named sets, ``get(name)`` downloads one, ``info(name)`` says what is known of it.
Distances follow annvq's definitions throughout: ``l2`` is squared Euclidean distance, ``ip`` is −⟨q, x⟩,
``cosine`` is 1 − cos(q, x).

Names load on first use.
"""

from typing import TYPE_CHECKING

from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq.datasets.cache import data_dir
    from annvq.datasets.dataset import Dataset
    from annvq.datasets.groundtruth import exact_neighbors
    from annvq.datasets.named import column, from_vectors, gaussian, get, info, load, load_vectors, names
    from annvq.datasets.writing import convert

_HOME = {"data_dir": "cache", "Dataset": "dataset", "exact_neighbors": "groundtruth", "convert": "writing"}

__all__ = [
    "Dataset",
    "column",
    "convert",
    "data_dir",
    "exact_neighbors",
    "from_vectors",
    "gaussian",
    "get",
    "info",
    "load",
    "load_vectors",
    "names",
]


__getattr__ = on_first_use(globals(), {name: _HOME.get(name, "named") for name in __all__})


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
