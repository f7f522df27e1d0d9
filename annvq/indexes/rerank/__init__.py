"""Re-ranking: a shortlist from an index of codes, ordered by distances to something finer."""

from annvq.indexes.rerank.index import RerankIndex

__all__ = ["RerankIndex"]
