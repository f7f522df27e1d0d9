"""Data-set cards: one .toml each, saying where a set is fetched from and what it is."""

import difflib
import importlib
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from annvq.datasets.cache import data_dir
from annvq.datasets.dataset import METRICS
from annvq.resources import share_dir

# The same parser: in the standard library from 3.11 on.
_toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@dataclass(frozen=True)
class Card:
    """What a card states. ``bytes`` 0 and ``sha256`` "" mean not known: the first download's are recorded."""

    name: str
    urls: tuple[str, ...]
    metric: str
    n: int
    d: int
    nq: int
    licence: str
    citation: str
    aliases: tuple[str, ...] = ()
    bytes: int = 0
    sha256: str = ""

    @property
    def path(self) -> Path:
        """Where the downloaded file is kept."""
        return data_dir() / f"{self.name}.hdf5"

    def describe(self) -> dict[str, Any]:
        """The card as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


_REQUIRED: dict[str, type] = {
    "urls": list,
    "metric": str,
    "n": int,
    "d": int,
    "nq": int,
    "licence": str,
    "citation": str,
}
_EMPTY: dict[type, Any] = {list: [], str: "", int: 0}
_OPTIONAL: dict[str, type] = {"aliases": list, "bytes": int, "sha256": str}


def read_card(path: Path) -> Card:
    """The card in ``path``; its name is the file's.

    Raises:
        ValueError: not TOML, or a key missing, unknown or of the wrong type.
    """
    try:
        stated = _toml.loads(path.read_text(encoding="utf-8"))
    except (_toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable TOML: {error}") from error
    missing = sorted(set(_REQUIRED) - set(stated))
    unknown_keys = sorted(set(stated) - set(_REQUIRED) - set(_OPTIONAL))
    if missing or unknown_keys:
        raise ValueError(f"{path}: missing keys: {missing or 'none'}; unknown keys: {unknown_keys or 'none'}")
    for key, kind in {**_REQUIRED, **_OPTIONAL}.items():
        value: Any = stated.get(key, _EMPTY[kind])
        if type(value) is not kind or any(type(item) is not str for item in _items(value)):
            raise ValueError(f"{path}: {key} must be a {'list of strings' if kind is list else kind.__name__}")
    if stated["metric"] not in METRICS:
        raise ValueError(f"{path}: metric must be one of {', '.join(METRICS)}, got {stated['metric']!r}")
    if not stated["urls"]:
        raise ValueError(f"{path}: urls is empty")
    sha256 = stated.get("sha256", "").lower()
    if sha256 and (len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef")):
        raise ValueError(f"{path}: sha256 must be 64 hexadecimal digits or empty, got {sha256!r}")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in stated.items()}
    return Card(**{**values, "name": path.stem, "sha256": sha256})


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def all_cards() -> dict[str, Card]:
    """Every card annvq ships, by name."""
    return {path.stem: read_card(path) for path in sorted(share_dir("datasets").glob("*.toml"))}


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say to someone who asked for a set that does not exist."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown data set {name!r}; known: {', '.join(known)}.{hint} (A file is named by its path.)"
