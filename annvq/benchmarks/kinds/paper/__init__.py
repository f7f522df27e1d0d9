"""Suites of kind ``paper``: figures 2 to 6 of Vali and Bäckström (ICASSP 2023), ours beside the published ones."""

from annvq.benchmarks.kinds.paper.points import plan
from annvq.benchmarks.kinds.paper.reporting import report, tables

__all__ = ["plan", "report", "tables"]
