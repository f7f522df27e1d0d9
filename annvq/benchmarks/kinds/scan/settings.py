"""What suites of scans may say, and the grid of comparisons that follows."""

import itertools
from typing import Any

from annvq.benchmarks import rivals
from annvq.benchmarks.kinds.scan.pairs import Effort
from annvq.benchmarks.suite import Suite, check_settings

CODES = ("product", "residual")
OWN = ("annvq unfiltered", "annvq one thread")
"""annvq against itself: what a filter and a second thread bring."""

_GRID: dict[str, tuple[tuple[Any, ...], type]] = {
    # key: (what it is without being said, type of each value)
    "code": (("product",), str),
    "M": ((8,), int),
    "n": ((100_000,), int),
    "k": ((10,), int),
    "queries": (("batch",), str),
    "threads": ((1,), int),
    "simd": (("best",), str),
    "filter": ((0.0,), float),
    "rivals": ((), str),
}


def indexes(code: str) -> dict[str, str]:
    """The indexes that annvq's scan of these codes can be compared with, and the libraries they are of."""
    return {index: library for library, scan in rivals.scans().items() for index in scan.indexes.get(code, ())}


def checked(suite: Suite) -> dict[str, Any]:
    """The suite's settings with defaults, after checking them."""
    check_settings(suite, {"datasets": list, "grids": list, "effort": dict, "description": str, "random": int})
    settings: dict[str, Any] = {"datasets": ["patches"], "random": 1, "effort": {}, **suite.settings}
    where = f"suite {suite.name!r}"
    if not settings.get("grids"):
        raise ValueError(f"{where}: grids must be a list of at least one")
    settings["grids"] = [_checked_grid(where, grid) for grid in settings["grids"]]
    unknown = set(settings["effort"]) - set(Effort.__dataclass_fields__)
    if unknown or any(not isinstance(v, int | float) or v <= 0 for v in settings["effort"].values()):
        raise ValueError(f"{where}: effort holds positive {', '.join(Effort.__dataclass_fields__)}")
    return settings


def _checked_grid(where: str, grid: Any) -> dict[str, Any]:
    if not isinstance(grid, dict) or set(grid) - set(_GRID):
        raise ValueError(f"{where}: a grid has {', '.join(_GRID)}; got {grid!r}")
    full: dict[str, Any] = {key: list(default) for key, (default, _) in _GRID.items()} | grid
    full["filter"] = [float(f) if isinstance(f, int) else f for f in full["filter"]] if full["filter"] else []
    for key, (_, kind) in _GRID.items():
        values = full[key]
        if not isinstance(values, list) or not values or any(type(v) is not kind for v in values):
            raise ValueError(f"{where}: {key} must be a list of {kind.__name__}, at least one; got {values!r}")
        if kind is int and min(values) < 1:
            raise ValueError(f"{where}: {key} must be at least 1, got {min(values)}")
    allowed = {
        "code": CODES,
        "queries": ("batch", "single"),
        "simd": ("best", "avx2"),
        "rivals": (*itertools.chain.from_iterable(map(indexes, full["code"])), *OWN),
    }
    for key, known in allowed.items():
        wrong = [v for v in full[key] if v not in known]
        if wrong:
            raise ValueError(f"{where}: {key} must be among {', '.join(known)}; got {wrong[0]!r}")
    without = [r for r in full["rivals"] if r not in OWN and not _takes_filter(full["code"], r)]
    if any(full["filter"]) and without:
        raise ValueError(f"{where}: {without[0]} takes no filter; compare with {OWN[0]!r}")
    if any(not 0 <= f < 1 for f in full["filter"]):
        raise ValueError(f"{where}: filter is the share of ids let through, 0 (no filter) to below 1")
    return full


def _takes_filter(codes: list[str], index: str) -> bool:
    return all(rivals.scans()[indexes(c)[index]].filters for c in codes if index in indexes(c))


def cells(grid: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """All combinations of a grid, one rival each."""
    values = {**grid, "threads": [threads]} if threads else grid
    cells = []
    for combination in itertools.product(*(values[key] for key in _GRID)):
        cell = dict(zip(_GRID, combination, strict=True))
        rival = cell.pop("rivals")
        if rival in (*indexes(cell["code"]), *OWN):
            cells.append({**cell, "rival": rival})
    return cells
