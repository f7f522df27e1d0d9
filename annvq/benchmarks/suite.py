"""Suites: TOML files that say what is measured."""

import difflib
import importlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annvq.paths import check_path
from annvq.resources import share_dir

# The same parser: in the standard library from 3.11 on.
_toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

FOLDER = "benchmarks/suites"
_COMMON: dict[str, type] = {"kind": str, "title": str, "threads": int, "seeds": list}


@dataclass(frozen=True)
class Suite:
    """A parsed suite: what every kind has, and the ``settings`` that its runner checks.

    ``kind`` names the runner; ``threads`` 0 means all usable cores.
    """

    name: str
    kind: str = "codes"
    title: str = ""
    threads: int = 0
    seeds: tuple[int, ...] = (0,)
    settings: dict[str, Any] = field(default_factory=dict)


def suite_names() -> list[str]:
    """The suites that annvq ships."""
    return sorted(path.stem for path in share_dir(FOLDER).glob("*.toml"))


def load_suite(name_or_path: str | os.PathLike[str], *, quick: bool = False) -> Suite:
    """A suite by name (see :func:`suite_names`) or from a TOML file.

    ``quick`` applies the suite's table ``[quick]``, whose values replace those of the same name.

    Raises:
        ValueError: no suite of that name, not TOML, a wrong type, or no ``[quick]`` table where one is
        asked for.
    """
    path = Path(check_path(name_or_path, "name_or_path"))
    if path.suffix != ".toml":
        path = _shipped(str(name_or_path))
    if not path.is_file():
        raise ValueError(f"no suite file {path}")
    try:
        stated = _toml.loads(path.read_text(encoding="utf-8"))
    except (_toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable TOML: {error}") from None
    short = stated.pop("quick", None)
    if quick:
        if not isinstance(short, dict):
            raise ValueError(f"suite {path.stem!r} has no [quick] table")
        stated.update(short)
    for key, kind in _COMMON.items():
        if key in stated and (not isinstance(stated[key], kind) or isinstance(stated[key], bool)):
            raise ValueError(f"{path}: {key} must be {kind.__name__}, got {stated[key]!r}")
    common = {key: stated.pop(key) for key in list(stated) if key in _COMMON}
    seeds = tuple(common.pop("seeds", (0,)))
    if not seeds or any(not isinstance(s, int) or isinstance(s, bool) or s < 0 for s in seeds):
        raise ValueError(f"{path}: seeds must be non-negative integers, got {list(seeds)!r}")
    if common.get("threads", 0) < 0:
        raise ValueError(f"{path}: threads must be 0 (all cores) or more, got {common['threads']}")
    return Suite(name=path.stem, seeds=seeds, settings=stated, **common)


def _shipped(name: str) -> Path:
    known = suite_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown suite {name!r}; known: {', '.join(known)}, or a .toml file's path.{hint}")
    return share_dir(FOLDER) / f"{name}.toml"


def check_settings(suite: Suite, known: dict[str, type | tuple[type, ...]]) -> None:
    """ValueError unless the suite's settings are among ``known`` and of these types."""
    for key, value in suite.settings.items():
        if key not in known:
            raise ValueError(
                f"suite {suite.name!r}: unknown key {key!r} for kind {suite.kind!r}; known: {', '.join(known)}"
            )
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise ValueError(f"suite {suite.name!r}: {key} has the wrong type, got {value!r}")
