"""Indexes: codes that can be searched."""

from annvq.indexes.base import Index, load_index
from annvq.indexes.flat import FlatIndex

__all__ = ["FlatIndex", "Index", "load_index"]
