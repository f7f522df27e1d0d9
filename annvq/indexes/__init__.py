"""Indexes: codes that can be searched.

Large builds and recipes load on first use.
"""

from typing import TYPE_CHECKING

from annvq.indexes.contract import Index
from annvq.indexes.filters import PreparedFilter
from annvq.indexes.flat import FlatIndex
from annvq.indexes.ivf import IVFIndex, default_nlist
from annvq.indexes.keyed import KeyedIndex, KeyMap, load_index
from annvq.indexes.rerank import RerankIndex
from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq.indexes import building, recipes

__all__ = [
    "FlatIndex",
    "IVFIndex",
    "Index",
    "KeyMap",
    "KeyedIndex",
    "PreparedFilter",
    "RerankIndex",
    "building",
    "default_nlist",
    "load_index",
    "recipes",
]

__getattr__ = on_first_use(globals(), {"building": "building", "recipes": "recipes"})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
