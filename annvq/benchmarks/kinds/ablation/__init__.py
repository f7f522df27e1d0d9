"""Suites of kind ``ablation``: gradient estimators and alternation, at equal bits and equal time."""

from annvq.benchmarks.kinds.ablation.points import plan
from annvq.benchmarks.kinds.ablation.reporting import report, tables

__all__ = ["plan", "report", "tables"]
