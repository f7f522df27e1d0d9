"""annvq: its quantizers in a flat index, its scan, and its indexes of lists."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from annvq import kernels
from annvq.benchmarks.roles import Budget, Index, Levels, Rival, Scan, check_options
from annvq.bits import NORM_BITS, split_bits
from annvq.complexity import norm_search
from annvq.indexes import FlatIndex, IVFIndex, RerankIndex, load_index
from annvq.kernels.encode import norm_rounds
from annvq.quantizers import Quantizer, TableQuantizer
from annvq.quantizers import make as make_quantizer
from annvq.quantizers.modules.registry import pays_norm
from annvq.threads import set_num_threads
from annvq.training.groups import EachGroup
from annvq.training.learn.kmeans import suited_kept
from annvq.training.maps import LearnRotation
from annvq.training.networks import LearnNetwork
from annvq.training.parts import Alternate, KMeans, LearnNormFree, Refit, SubspaceKMeans
from annvq.training.recipe import Part, Recipe
from annvq.training.trainer import TrainerPart
from annvq.types import F32, I64

CODES = (
    "product",
    "rotated-product",
    "residual",
    "additive",
    "product-additive",
    "principal-product",
    "principal-additive",
    "conditional",
)
_BOUNDS = ("steps", "effort")
LITTLE, KEPT = 0.3, 4
"""With less effort than this k-means on residuals keeps at most so many codes of each vector."""
_PASSED = ("norm_free", "beam", "rounds", "groups", "emphasis", "hidden")  # to the quantizer


def bounded(quantizer: Quantizer, *, steps: int | None = None, effort: float | None = None) -> Recipe:
    """The default recipe, shortened.

    Args:
        steps: of its stochastic optimisation; None leaves them as they are.
        effort: share of the iterations of every part, or None for all of them.
    """
    recipe = quantizer.default_recipe()
    parts = [_spelled_out(part, quantizer) for part in recipe.parts]
    if effort is not None:
        shortened = partial(_shortened, effort=effort, kept=suited_kept(quantizer.sizes))
        parts = [_changed(part, shortened) for part in parts]
    return replace(
        recipe, parts=[part if steps is None else _changed(part, partial(_stepped, steps=steps)) for part in parts]
    )


def _spelled_out(part: Any, quantizer: Any) -> Any:
    """``part`` with the parts that it takes from elsewhere: groups are learned by their own default recipe, and all
    groups of a quantizer have the same one."""
    if isinstance(part, EachGroup) and part.parts is None:
        return replace(part, parts=tuple(quantizer.group_models()[0].default_recipe().parts))
    return part


def _changed(part: Any, change: Callable[[Any], Any]) -> Part:
    """``part`` after ``change``, and likewise all parts within it."""
    if not _is_part(part):  # a plain function
        return part
    within: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if _is_part(value):
            within[field.name] = _changed(value, change)
        elif isinstance(value, tuple | list) and any(map(_is_part, value)):
            within[field.name] = [_changed(one, change) for one in value]
    changed: Part = change(replace(part, **within))
    return changed


def _is_part(value: Any) -> bool:
    return is_dataclass(value) and callable(value) and not isinstance(value, type)


def _stepped(part: Any, steps: int) -> Any:
    if isinstance(part, TrainerPart):
        return replace(part, trainer=replace(part.trainer, steps=steps))
    if isinstance(part, LearnRotation):
        return replace(part, steps=steps, race=min(part.race, steps))
    return part


def _shortened(part: Any, effort: float, kept: int) -> Any:
    """``part`` with that share of its iterations. K-means on residuals takes as long as these are many, whatever its
    iterations: with little effort it has those of fewer codes of each vector than the ``kept`` ones that are usual."""

    def less(count: int) -> int:
        return max(1, round(effort * count))

    if isinstance(part, TrainerPart):
        return _stepped(part, less(part.trainer.steps))
    if isinstance(part, LearnNetwork):
        return replace(part, steps=less(part.steps), round_steps=less(part.round_steps))
    if isinstance(part, LearnRotation):
        return replace(part, steps=less(part.steps), race=less(part.race), polish=less(part.polish))
    if isinstance(part, Alternate):
        return replace(part, plan=replace(part.plan, iterations=less(part.plan.iterations)))
    if isinstance(part, KMeans) and effort < LITTLE and (part.kept or kept) > KEPT:
        part = replace(part, kept=KEPT)
    if isinstance(part, KMeans | SubspaceKMeans):
        return replace(part, iterations=less(part.iterations))
    if isinstance(part, Refit | LearnNormFree):
        return replace(part, rounds=less(part.rounds))
    return part


class IndexCode:
    """A code in an index of annvq, which a subclass makes."""

    index: FlatIndex | IVFIndex | RerankIndex

    def add(self, x: F32) -> None:
        self.index.add(x)

    def decode(self, start: int, stop: int) -> F32:
        rows: F32 = self.index.reconstruct(np.arange(start, stop))
        return rows

    def search(self, queries: F32, k: int) -> I64:
        ids: I64 = self.index.search(queries, k)[1]
        return ids

    def bits_per_vector(self) -> float:
        return self.index.bits_per_vector


class FlatCode(IndexCode):
    """A quantizer of annvq, searched by FlatIndex, and, where ``decoded`` says so, re-ranked by what the codes stand
    for; ``bounds`` are those of :func:`bounded`."""

    def __init__(
        self, quantizer: Quantizer, metric: str, norm: Any, seed: int, bounds: dict[str, Any], decoded: bool
    ) -> None:
        self.quantizer = quantizer
        self.bounds = bounds
        flat = FlatIndex(quantizer, metric=metric, norm=norm)
        self.index = RerankIndex(flat, "decoded") if decoded else flat
        self.seed = seed
        self.config: dict[str, Any] = {
            "quantizer": quantizer.kind,
            **quantizer.config,
            "norm": self.index.norm,
            **({"decoded": True} if decoded else {}),
            "recipe": ", ".join(["default", *(f"{n} {what}" for what, n in bounds.items() if n is not None)]),
        }

    def fit(self, learn: F32) -> None:
        self.index.fit(learn, seed=self.seed, recipe=bounded(self.quantizer, **self.bounds))

    def wmops(self) -> float | None:
        q, counts = self.quantizer, self.quantizer.costs()
        term = q.norm_term if isinstance(q, TableQuantizer) else None
        if self.index.norm == "uint8" and q.M > 1 and term is not None and term.weighed:
            counts += norm_search(dim=q.dim, M=q.M, nbits=q.bits_per_codebook, rounds=norm_rounds(q.M))
        return counts.wmops()


def make(name: str, budget: Budget, options: dict[str, Any], seed: int) -> FlatCode:
    """An untrained quantizer.

    Options: ``nbits`` (at most, per codebook), ``norm``, ``norm_free``, ``beam``, ``rounds``, ``groups``,
    ``emphasis``, ``hidden``, as far as the quantizer has them; ``decoded`` (whether a shortlist is re-ranked by what
    codes stand for; conditional codes are unless it is false); and of training ``steps`` and ``effort`` (see
    :func:`bounded`).
    """
    check_options(f"annvq.{name}", options, ("nbits", "norm", "decoded", *_PASSED, *_BOUNDS))
    # (Behind a map that emphasises product codes need a norm, too.)
    pays = pays_norm(name, budget.metric) or (budget.metric == "l2" and bool(options.get("emphasis", 0)))
    needs_norm = pays and not options.get("norm_free", False)
    norm = options.get("norm", "auto")
    charged = NORM_BITS["uint8" if needs_norm else None] if norm == "auto" else NORM_BITS[norm]
    nbits = split_bits(budget.bits - charged, options.get("nbits", 8))
    # Where no code needs a norm there is none to be free of.
    extra = {option: options[option] for option in _PASSED if option in options and (pays or option != "norm_free")}
    quantizer = make_quantizer(
        name, dim=budget.dim, M=len(nbits), nbits=nbits[0] if len(set(nbits)) == 1 else nbits, **extra
    )
    bounds = {name: options.get(name) for name in _BOUNDS}
    return FlatCode(quantizer, budget.metric, norm, seed, bounds, options.get("decoded", name == "conditional"))


class FlatScan(Scan):
    """FlatIndex, which others are compared with."""

    filters = True

    def open(self, folder: Path, index: str, n: int) -> None:
        self.index = load_index(folder / f"index-{n}.annvq")

    def set_threads(self, count: int) -> None:
        set_num_threads(count)

    def search(self, queries: F32, k: int, keep: I64 | None) -> Any:
        return self.index.search(queries, k, filter=keep)[1]

    def lookup_cost(self) -> float | None:
        return kernels.lookup_cost()


class Lists(Index):
    """IVFIndex, or FlatIndex where ``index = "flat"``, and RerankIndex over it where ``refine`` says what by.

    ``metric = "cosine"`` searches vectors of length one by that metric in place of l2: the order is the same.
    """

    spec_keys = (
        "index", "metric", "quantizer", "bits", "nbits", "nlist", "residual", "refine", "refine_bits",
    )  # fmt: skip
    setting_keys = ("nprobe", "shortlist")
    grows = True
    upserts = True

    def __init__(self) -> None:
        self.index: Any = None
        self.settings: dict[str, Any] = {}

    def train(self, learn: F32, dim: int, spec: dict[str, Any], seed: int) -> None:
        kind, residual = spec.get("quantizer", "residual"), spec.get("residual", "auto")
        shape = spec.get("index", "ivf")
        if shape not in ("flat", "ivf"):
            raise ValueError(f"index must be 'flat' or 'ivf', got {shape!r}")
        metric = spec.get("metric", "l2")
        normed = metric == "l2" and (pays_norm(kind) or residual is True)
        coded = self._quantizer(kind, dim, spec["bits"] - (8 if normed else 0), spec.get("nbits", 8))
        if shape == "flat":
            self.index = FlatIndex(coded, metric)
        else:
            self.index = IVFIndex(coded, spec.get("nlist"), metric=metric, residual=residual)
        refine = spec.get("refine")
        if refine is not None:
            finer = self._quantizer(refine, dim, spec["refine_bits"], 8) if "refine_bits" in spec else refine
            self.index = RerankIndex(self.index, finer)
        self.index.fit(learn, seed=seed)

    @staticmethod
    def _quantizer(kind: str, dim: int, bits: int, most: int) -> Any:
        nbits = split_bits(bits, most)
        return make_quantizer(kind, dim=dim, M=len(nbits), nbits=nbits[0] if len(set(nbits)) == 1 else nbits)

    def add(self, x: F32) -> None:
        self.index.add(x)

    def upsert(self, x: F32, ids: I64) -> None:
        self.index.upsert(x, ids)

    def bits_per_vector(self) -> float | None:
        return float(self.index.bits_per_vector)

    def ram_bits_per_vector(self) -> float | None:
        return float(self.index.ram_bits_per_vector)

    def save(self, path: Path) -> None:
        self.index.save(path)

    def open(self, path: Path, dim: int) -> None:
        self.index = load_index(path)

    def configure(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def set_threads(self, count: int) -> None:
        set_num_threads(count)

    def search(self, queries: F32, k: int) -> Any:
        return self.index.search(queries, k, **self.settings)[1]


def levels() -> Levels:
    """SIMD levels of the kernels."""
    return kernels.simd_level(), kernels.available_levels()


RIVAL = Rival(
    "annvq",
    codes=CODES,
    make=make,
    scan=FlatScan,
    index=Lists,
    levels=levels,
    level_variables=("ANNVQ_SIMD",),
)
