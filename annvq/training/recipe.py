"""Recipes: how a quantizer learns, as a sequence of parts that can be recombined."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from annvq.arrays import positive_int
from annvq.quantizers.base import Quantizer
from annvq.threads import one_torch_thread
from annvq.training.alternating import Alternation
from annvq.training.data import TrainingData, prepare
from annvq.training.kmeans import KMeans, SubspaceKMeans
from annvq.training.parts import Alternate, BestOf, ByGrading, LearnNormFree, Refit
from annvq.training.replacement import Replacement
from annvq.training.trainer import Trainer, TrainerPart
from annvq.types import Array

SMALL_DIM = 512
"""Up to so many dimensions PyTorch works on one thread while a recipe runs: its operations on a batch are so short that
threads spend more time waiting for one another, ten times as much where other processes want the cores too. What takes
long, k-means, encoding and least squares, has its own threads."""


class Part(Protocol):
    """One step of a recipe: changes the codebooks in place."""

    def __call__(self, quantizer: Any, data: TrainingData) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """Parts, in order, on one preparation of the data.

    Args:
        parts: each is called with the quantizer and the prepared data.
        max_rows: larger data is sampled down to this many rows.
        validation: share of the rows held out for early stopping.
    """

    parts: Sequence[Part]
    max_rows: int = 1 << 18
    validation: float = 0.05

    def run(self, quantizer: Quantizer, x: Array, *, seed: int = 0, progress: bool = False) -> None:
        """Learn ``quantizer``'s codebooks from ``x`` (n, d); then its norm levels."""
        table = quantizer.scan_view()
        data = prepare(
            x,
            quantizer.dim,
            least=max(quantizer.sizes),
            max_rows=positive_int(self.max_rows, "max_rows", low=max(quantizer.sizes)),
            validation=self.validation,
            seed=seed,
            progress=progress,
        )
        was_training = quantizer.training
        # Estimators and parts may draw from torch's own generator: from the seed here, and no caller's stream moves.
        device = quantizer.fitted.device
        generators = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        with generators, one_torch_thread() if quantizer.dim <= SMALL_DIM else nullcontext():
            torch.manual_seed(seed)
            for part in self.parts:
                part(quantizer, data)
        data.restore(table)
        table.fit_norms(x, seed=seed)
        quantizer.train(was_training)


GRADED = 20.0
"""Where residual codebooks are graded more than this from coarse to fine, additive ones from scratch are hopeless: on
image patches (70 and more). On SIFT descriptors (3) and correlated normal vectors (5) they are better, or may be."""


FLAT = 3.0
"""Where residual codebooks of a sample are graded less than this, as on SIFT descriptors (2.3 at 8x8 bits; patches
have 82), no direction stands out. Additive codebooks from scratch are better by a tenth there, and nothing else needs
to be tried."""


WARM = Alternation(iterations=12, rounds=2, temperature=0.4)


def default_recipe(quantizer: Quantizer) -> Recipe:
    """The recipe of ``fit``.

    Product codebooks: k-means, then stochastic optimisation by NSVQ. Residual ones: residual k-means, local search and
    least squares in turn under a little noise, joint refits to their own search, then NSVQ. Additive ones: the same, or
    local search and least squares from scratch under more noise, or a product code, whichever is better on held-out
    rows; the first of them only where residual codebooks would be graded. Refits and NSVQ keep the codebooks that are
    best on held-out rows, so they never make them worse on those. Codebooks of norm-free codes are learned like others
    first, then together with their offsets. Behind a rotation, product codebooks are learned together with it; behind
    any other transform, codebooks as if there were none.
    """
    from annvq.quantizers.product import ProductVQ
    from annvq.quantizers.sums import SumQuantizer
    from annvq.quantizers.transform import Rotation, Transformed
    from annvq.training.rotation import Inside, LearnLinearMap, LearnRotation

    if isinstance(quantizer, Transformed):
        if isinstance(quantizer.transform, Rotation) and isinstance(quantizer.quantizer, ProductVQ):
            return Recipe((LearnRotation(),))
        if isinstance(quantizer.quantizer, ProductVQ):
            return Recipe((LearnLinearMap(),))
        inner = default_recipe(quantizer.quantizer)
        return replace(inner, parts=[Inside(part) for part in inner.parts])
    if isinstance(quantizer, SumQuantizer) and quantizer.norm_free:
        return Recipe((LearnNormFree(default_recipe(quantizer.with_norm()).parts),))
    if quantizer.kind == "residual":
        return Recipe((_residual_start(quantizer), Alternate(WARM, warm=True), Refit(3), nsvq_part(steps=40)))
    if quantizer.kind == "additive":
        # A step costs the more the more entries there are: beyond 8x8 bits there are fewer.
        scratch = Alternation(iterations=min(40, max(10, 40 * 2048 // sum(quantizer.sizes))))
        residual = (_residual_start(quantizer), Alternate(WARM, warm=True))
        others = (Alternate(scratch, graded=GRADED), SubspaceKMeans(20))
        best = ByGrading(
            flat=(BestOf(others, finish=Refit(2)),),
            graded=(BestOf((*residual, *others), finish=Refit(3)),),
            limit=FLAT,
        )
        # Few vectors gain by NSVQ, up to 1.5 %; many do not, and a first look tells.
        return Recipe((best, nsvq_part(steps=20, patience=1)))
    return Recipe((KMeans(40), nsvq_part(steps=200)))


def _residual_start(quantizer: Quantizer) -> Part:
    """Residual k-means: on ever more principal components where no directions stand out. Where some do (image patches,
    flat or not), that has 1 % less error and a tenth less recall, as entries go to the few vectors that are far out.
    Small codebooks, which learn from few residuals of each vector, may miss those altogether: more are tried."""
    usual = ByGrading(flat=(KMeans(10, progressive=True),), graded=(KMeans(10),), limit=FLAT)
    return usual if min(quantizer.sizes) >= 256 else BestOf((usual, KMeans(10, kept=5, progressive=True)), lead=0.1)


def nsvq_part(steps: int, patience: int = 3) -> TrainerPart:
    """Stochastic optimisation after a warm start: small steps, replacement of entries that fall out of use."""
    every = max(5, steps // 4)
    return TrainerPart(
        Trainer(steps=steps, batch_size=1024, replacement=Replacement(), validate_every=every, patience=patience)
    )
