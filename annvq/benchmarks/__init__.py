"""The benchmark harness: a suite (TOML) names what is measured; every point becomes one JSON line.

``run(load_suite("quickstart"), out=folder)`` is what ``annvq bench`` does. A suite's ``kind`` names the module in
:mod:`annvq.benchmarks.kinds` that plans, measures and reports it; a library is a module in
:mod:`annvq.benchmarks.rivals`.
"""

from annvq.benchmarks import statistics
from annvq.benchmarks.run import run
from annvq.benchmarks.suite import Suite, load_suite, suite_names

__all__ = ["Suite", "load_suite", "run", "statistics", "suite_names"]
