"""Ids of other types: keys that stand for int64 ids, and indexes that are asked by keys."""

from annvq.indexes.keyed.index import KeyedIndex, load_index
from annvq.indexes.keyed.keymap import KeyMap

__all__ = ["KeyMap", "KeyedIndex", "load_index"]
