"""Indexes: codes that can be searched."""

from annvq.indexes.base import Index, load_index
from annvq.indexes.faiss_bridge import from_faiss, to_faiss
from annvq.indexes.flat import FlatIndex

__all__ = ["FlatIndex", "Index", "from_faiss", "load_index", "to_faiss"]
