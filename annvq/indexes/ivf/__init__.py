"""The inverted file: vectors in lists around coarse centroids."""

from annvq.indexes.ivf.coarse import default_nlist
from annvq.indexes.ivf.index import IVFIndex

__all__ = ["IVFIndex", "default_nlist"]
