"""Index recipes: TOML files that say what index to build.

title = "what it is for"
metric = "cosine"  # optional: of the index where none is asked for

[index]            # flat or inverted lists; keys are the constructor's
kind = "ivf"
nlist = 1024       # left out: 4·√n of the vectors to be added
dims = 256         # optional: codes see the first so many dimensions of each vector

[quantizer]        # keys are those of annvq.make, without dim
kind = "residual"
M = 7

[refine]           # optional: re-rank a shortlist
vectors = "uint8"  # raw vectors in memory; "base": those of the data, where they lie; "decoded": what the codes
# stand for; "length": that and a byte of length; or, in place of this line, a quantizer's keys
"""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annvq.arrays import positive_int
from annvq.indexes.contract import Index
from annvq.indexes.rerank import RerankIndex
from annvq.indexes.saved import registered
from annvq.paths import check_path
from annvq.quantizers import Quantizer, make
from annvq.quantizers.tables import METRICS
from annvq.resources import share_dir
from annvq.types import Array

# The same parser: in the standard library from 3.11 on.
_toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

FOLDER = "indexes"
_REFINE: dict[str, type] = {"vectors": str, "refines": str, "shortlist": int, "recall_target": float}


@dataclass(frozen=True)
class IndexRecipe:
    """What to build: keys of the index, of its quantizer, and of what re-ranks (empty: nothing). ``metric`` is that of
    the index where none is asked for; None: the data's."""

    name: str
    title: str = ""
    index: Mapping[str, Any] = field(default_factory=dict)
    quantizer: Mapping[str, Any] = field(default_factory=dict)
    refine: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the title."""
        parts = {"index": self.index, "quantizer": self.quantizer, "refine": self.refine}
        return {key: dict(part) for key, part in parts.items()}


def recipe_names() -> list[str]:
    """The recipes that annvq ships."""
    return sorted(path.stem for path in share_dir(FOLDER).glob("*.toml"))


def load_recipe(name_or_path: str | os.PathLike[str]) -> IndexRecipe:
    """A recipe by name (see :func:`recipe_names`) or from a TOML file.

    Raises:
        ValueError: no recipe of that name, not TOML, or unknown or wrong keys.
    """
    path = Path(check_path(name_or_path, "name_or_path"))
    if path.suffix != ".toml":
        known = recipe_names()
        if str(name_or_path) not in known:
            near = difflib.get_close_matches(str(name_or_path), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown recipe {str(name_or_path)!r}; known: {', '.join(known)}, or a .toml file.{hint}")
        path = share_dir(FOLDER) / f"{name_or_path}.toml"
    if not path.is_file():
        raise ValueError(f"no recipe file {path}")
    try:
        stated = _toml.loads(path.read_text(encoding="utf-8"))
    except (_toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable TOML: {error}") from None
    parts = {key: stated.pop(key, {}) for key in ("index", "quantizer", "refine")}
    title, metric = stated.pop("title", ""), stated.pop("metric", None)
    if metric not in (None, *METRICS):
        raise ValueError(f"{path}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if stated or not isinstance(title, str) or not all(isinstance(part, dict) for part in parts.values()):
        raise ValueError(
            f"{path}: expected title, metric, [index], [quantizer] and [refine], got {', '.join(stated) or 'other'}"
        )
    recipe = IndexRecipe(path.stem, title, **parts, metric=metric)
    _check(recipe, str(path))
    return recipe


def _check(recipe: IndexRecipe, where: str) -> None:
    known = {name: cls.recipe_keys for name, cls in registered().items() if cls.recipe_keys is not None}
    kind = recipe.index.get("kind")
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(f"{where}: [index] kind must be one of {', '.join(known)}, got {kind!r}")
    _check_keys(f"{where}: [index]", recipe.index, {"kind": str, "dims": int, **known[kind]})
    if "kind" not in recipe.quantizer or "M" not in recipe.quantizer:
        raise ValueError(f"{where}: [quantizer] must have kind and M, got {', '.join(recipe.quantizer) or 'nothing'}")
    if recipe.refine and ("vectors" in recipe.refine) == ("kind" in recipe.refine):
        raise ValueError(f"{where}: [refine] must have either vectors or a quantizer's kind and M")
    if "vectors" in recipe.refine:
        _check_keys(f"{where}: [refine]", recipe.refine, _REFINE)


def _check_keys(where: str, given: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(known)}")
        fits = isinstance(value, known[key]) or (known[key] is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and known[key] is not bool):
            raise ValueError(f"{where}: {key} must be {known[key].__name__}, got {value!r}")


def make_index(recipe: IndexRecipe, dim: int, *, n: int, metric: str = "l2", base: Array | None = None) -> Index:
    """The untrained, empty index that a recipe describes.

    Args:
        dim: d of the vectors.
        n: how many vectors it will hold, for ``nlist``.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        base: the vectors that will be added, for recipes that re-rank from them where they lie.

    Raises:
        ValueError, TypeError: what quantizers and indexes refuse; ``dims`` beyond ``dim``.
    """
    settings = dict(recipe.index)
    kind, dims = registered()[settings.pop("kind")], dim
    if "dims" in settings:
        dims = positive_int(settings.pop("dims"), "dims", high=dim)
        settings["dim"] = dim
    made: Any = kind.for_vectors(_quantizer(recipe.quantizer, dims), n, metric=metric, **settings)
    if not recipe.refine:
        return made
    refine = dict(recipe.refine)
    settings = {key: refine.pop(key) for key in ("refines", "shortlist", "recall_target") if key in refine}
    source: Any = refine.pop("vectors") if "vectors" in refine else _quantizer(refine, dims)
    if isinstance(source, str) and source == "base":
        if base is None:
            raise ValueError(f"recipe {recipe.name!r} re-ranks from the vectors where they lie: give base")
        source = base
    return RerankIndex(made, source, **settings)


def _quantizer(config: Mapping[str, Any], dim: int) -> Quantizer:
    keys = dict(config)
    return make(keys.pop("kind"), dim=dim, **keys)
