"""Suites of kind ``index``: queries a second against recall, of whole indexes at equal bytes.

Every library has its own process, FAISS one per SIMD level, of which each row takes the fastest. Vectors kept whole for
re-ranking, and the links of graphs, are stored bytes like any other.
"""

from annvq.benchmarks.kinds.index.points import plan
from annvq.benchmarks.kinds.index.reporting import report, tables

__all__ = ["plan", "report", "tables"]
