"""The benchmark harness: a suite (TOML) names what is measured; every point becomes one JSON line.

``run(load_suite("quickstart"), out=folder)`` is what ``annvq bench`` does. A suite's ``kind`` names the
module in :mod:`annvq.benchmarks.runners` that measures it; a method is a class in
:mod:`annvq.benchmarks.baselines`.
"""

from annvq.benchmarks.run import run
from annvq.benchmarks.suite import Suite, load_suite, suite_names

__all__ = ["Suite", "load_suite", "run", "suite_names"]
