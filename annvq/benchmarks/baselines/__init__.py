"""Methods that suites compare, annvq's own and others.

``use = "faiss.lsq"`` in a suite means the method ``lsq`` of the module ``faiss`` in this folder. Such a
module has ``NAMES``, the methods it knows, and ``make(name, budget, options, seed) -> Method``.
"""

import difflib
import importlib
import pkgutil
from typing import Any

from annvq.benchmarks.baselines.base import Budget, Method

__all__ = ["Budget", "Method", "known", "make"]

_NOT_METHODS = {"base"}


def known() -> list[str]:
    """All methods, as suites name them."""
    engines = [m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS]
    return [f"{engine}.{name}" for engine in sorted(engines) for name in _engine(engine).NAMES]


def check(use: str) -> str:
    """``use`` itself, or a ValueError that lists the known methods."""
    if use not in known():
        near = difflib.get_close_matches(use, known(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown method {use!r}; known: {', '.join(known())}.{hint}")
    return use


def make(use: str, budget: Budget, options: dict[str, Any], seed: int) -> Method:
    """An untrained method for vectors of ``budget.dim`` dimensions at ``budget.bits`` bits in all.

    Raises:
        ValueError: an unknown method or option, or bits it cannot have.
    """
    engine, _, name = check(use).partition(".")
    method: Method = _engine(engine).make(name, budget, options, seed)
    return method


def _engine(engine: str) -> Any:
    return importlib.import_module(f"{__name__}.{engine}")
