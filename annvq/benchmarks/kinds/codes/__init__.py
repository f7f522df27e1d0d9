"""Suites of kind ``codes``: codes at equal bits, by error, recall and times."""

from annvq.benchmarks.kinds.codes.points import plan
from annvq.benchmarks.kinds.codes.reporting import report, tables

__all__ = ["plan", "report", "tables"]
