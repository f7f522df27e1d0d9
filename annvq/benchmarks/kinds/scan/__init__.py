"""Suites of kind ``scan``: queries a second of annvq's scan and of others' over the same codes, asked in turn.

Each library has processes of its own, FAISS one per SIMD level, of which the fastest is compared with. Product codes go
against ``IndexPQ`` over the same codes and ``IndexPQFastScan`` over as many bytes of 4-bit codes; sums of entries, with
a norm byte on both sides, against ``IndexResidualQuantizer`` and ``IndexLocalSearchQuantizer``.
"""

from annvq.benchmarks.kinds.scan.points import plan
from annvq.benchmarks.kinds.scan.reporting import report, tables

__all__ = ["plan", "report", "tables"]
