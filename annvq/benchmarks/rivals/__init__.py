"""The libraries that suites compare, annvq among them: a module each, with all that it can do.

A module has ``RIVAL``, a :class:`annvq.benchmarks.roles.Rival`; being in this folder is all it takes. ``use =
"faiss.lsq"`` in a suite of codes means the code ``lsq`` of the module ``faiss``, ``use = "faiss"`` in a suite of
indexes its index.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from annvq.benchmarks.processes import Pool, Worker
from annvq.benchmarks.roles import Budget, Code, Rival, Scan

W = TypeVar("W", bound=Worker)


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The libraries, whether installed or not."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def rival(name: str) -> Rival:
    """The library of this name; ValueError where there is none."""
    if name not in names():
        raise ValueError(f"unknown library {name!r}; known: {', '.join(names())}")
    found: Rival = importlib.import_module(f"{__name__}.{name}").RIVAL
    return found


def codes() -> list[str]:
    """All codes, as suites name them."""
    return [f"{name}.{code}" for name in names() for code in rival(name).codes]


def check_code(use: str) -> str:
    """``use`` itself, or a ValueError that lists the known codes."""
    if use not in codes():
        near = difflib.get_close_matches(use, codes(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown method {use!r}; known: {', '.join(codes())}.{hint}")
    return use


def make_code(use: str, budget: Budget, options: dict[str, Any], seed: int) -> Code:
    """An untrained code for vectors of ``budget.dim`` dimensions at ``budget.bits`` bits in all.

    Raises:
        ValueError: an unknown code or option, or bits it cannot have.
    """
    engine, _, name = check_code(use).partition(".")
    make = rival(engine).make
    assert make is not None  # it has codes
    return make(name, budget, options, seed)


def scans() -> dict[str, type[Scan]]:
    """The libraries that scan given codes, annvq among them."""
    return {name: scan for name in names() if (scan := rival(name).scan) is not None}


def pool(role: str, start: Callable[..., W]) -> Pool[W]:
    """Processes of libraries in a role: ``start`` is a class of workers, made as :class:`Worker` is."""

    def worker(name: str, level: str | None) -> W:
        command = ("annvq.benchmarks.worker", name, role)
        return start(name, level, command=command, variables=rival(name).level_variables)

    return Pool(worker)


def measured_at(workers: Pool[W], name: str) -> list[W]:
    """The processes in which a library is measured: one per SIMD level where its best counts."""
    return workers.at_every_level(name) if rival(name).best_of_levels else [workers.worker(name)]
