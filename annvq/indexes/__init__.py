"""Indexes: codes that can be searched."""

from annvq.indexes.contract import Index
from annvq.indexes.filters import PreparedFilter
from annvq.indexes.flat import FlatIndex
from annvq.indexes.ivf import IVFIndex, default_nlist
from annvq.indexes.keyed import KeyedIndex, KeyMap, load_index
from annvq.indexes.rerank import RerankIndex

__all__ = [
    "FlatIndex",
    "IVFIndex",
    "Index",
    "KeyMap",
    "KeyedIndex",
    "PreparedFilter",
    "RerankIndex",
    "default_nlist",
    "load_index",
]
