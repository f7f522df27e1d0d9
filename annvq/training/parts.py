"""Recipe parts for residual and additive codebooks that refit all of them jointly, in closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from annvq.training.alternating import Alternation, train_additive
from annvq.training.data import TrainingData
from annvq.training.kmeans import quick_energies
from annvq.training.least_squares import least_squares_entries, revive_unused
from annvq.training.norms import NormFree
from annvq.types import F32, Codes

if TYPE_CHECKING:
    from annvq.quantizers.sums import SumQuantizer
    from annvq.training.recipe import Part


def _take(quantizer: "SumQuantizer", entries: F32) -> None:
    quantizer.set_codebooks(np.split(entries, quantizer.offsets[1:-1]))


@dataclass(frozen=True)
class Refit:
    """Encode by the quantizer's own search, solve for all codebooks by least squares, repeat; the codebooks with the
    lowest error on the validation rows are kept.

    Args:
        rounds: times to encode and solve; ends early when a round brings nothing.
    """

    rounds: int = 5

    def __call__(self, quantizer: "SumQuantizer", data: TrainingData) -> None:
        from tqdm import trange

        rng = np.random.default_rng(data.seed(1 << 17))
        best, lowest = quantizer.codebooks_copy(), data.validation_error(quantizer)
        for _ in trange(self.rounds, desc="refit", disable=not data.progress, leave=False):
            codes = quantizer.encode(data.train)
            entries = least_squares_entries(data.train, codes, quantizer.codebooks_copy(), quantizer.sizes)
            entries, _ = revive_unused(data.train, codes, entries, quantizer.sizes, rng)
            _take(quantizer, entries)
            error = data.validation_error(quantizer)
            if error >= lowest:
                break
            best, lowest = entries, error
        _take(quantizer, best)


TELLING = 8
"""Codebooks that tell whether data are graded: the more follow, the less they have left, of whatever data."""


def grading(energies: Sequence[float]) -> float:
    """Energy of the codebook with the most over that of the one with the least, of the first ``TELLING``; infinite
    where one has none."""
    first = energies[:TELLING]
    return max(first) / min(first) if min(first) > 0 else math.inf


@dataclass(frozen=True)
class ByGrading:
    """Some parts for data of which residual codebooks would be about equals, others for the rest. Which it is, a quick
    residual k-means on a sample tells.

    Args:
        flat: parts where codebooks are graded by at most ``limit``: the largest energy of one, over the least.
        graded: parts where they are graded by more.
    """

    flat: Sequence["Part"]
    graded: Sequence["Part"]
    limit: float

    def __call__(self, quantizer: "SumQuantizer", data: TrainingData) -> None:
        energies = quick_energies(data.train, quantizer.sizes[:TELLING], data.seed(1 << 21) % (1 << 30))
        for part in self.flat if grading(energies) <= self.limit else self.graded:
            part(quantizer, data)


@dataclass(frozen=True)
class Alternate:
    """Learn codebooks by local search and least squares in turn, perturbed and cooled; see
    :mod:`annvq.training.alternating`.

    Codebooks learned before are kept where the result is worse on the validation rows.

    Args:
        plan: how to alternate.
        warm: start from the quantizer's codebooks and own codes, not from scratch. Codebooks that are graded from
            coarse to fine stay so.
        graded: nothing is done where codebooks learned before are graded by more than this: the largest energy of one,
            over the least.
    """

    plan: Alternation = field(default_factory=Alternation)
    warm: bool = False
    graded: float = math.inf

    def __call__(self, quantizer: "SumQuantizer", data: TrainingData) -> None:
        if bool(quantizer.fitted) and grading(quantizer.energies()) > self.graded:
            return
        before = quantizer.codebooks_copy()
        lowest = data.validation_error(quantizer) if bool(quantizer.fitted) else math.inf
        seed = data.seed(1 << 18) % (1 << 31)
        codes = quantizer.encode(data.train) if self.warm else None
        entries, _ = train_additive(
            data.train, quantizer.sizes, self.plan, seed=seed, codes=codes, progress=data.progress
        )
        _take(quantizer, entries)
        if data.validation_error(quantizer) > lowest:
            _take(quantizer, before)


@dataclass(frozen=True)
class BestOf:
    """Several starts from the same codebooks, each brought to an end by one more part, where there is one; the one with
    the lowest error on the validation rows is kept.

    Args:
        starts: parts tried one after another, each from what the ones before it left.
        finish: the part that ends each of them, or None.
        margin: a start further than this share behind the best one is given up before ``finish``.
        lead: share by which others have to be better than the first start.
    """

    starts: Sequence["Part"]
    finish: "Part | None" = None
    margin: float = 0.1
    lead: float = 0.0

    def __call__(self, quantizer: "SumQuantizer", data: TrainingData) -> None:
        tried: list[tuple[float, F32]] = []
        for start in self.starts:
            start(quantizer, data)
            tried.append((data.validation_error(quantizer), quantizer.codebooks_copy()))
        lowest = min(error for error, _ in tried)
        owed = [1.0, *[1 + self.lead] * (len(tried) - 1)]
        ended: list[tuple[float, F32]] = []
        for i, (error, entries) in enumerate(tried):
            repeated = any(np.array_equal(entries, earlier) for _, earlier in tried[:i])
            if repeated or (self.finish is not None and error > lowest * (1 + self.margin)):
                continue
            if self.finish is None:
                ended.append((owed[i] * error, entries))
                continue
            _take(quantizer, entries)
            self.finish(quantizer, data)
            ended.append((owed[i] * data.validation_error(quantizer), quantizer.codebooks_copy()))
        _take(quantizer, min(ended, key=lambda one: one[0])[1])


@dataclass(frozen=True)
class LearnNormFree:
    """Codebooks of norm-free codes: parts as for codes whose norm is stored, then codebooks and offsets in turn.

    Args:
        parts: done on a twin of the quantizer that is not norm-free.
        rounds: of codes, offsets and least squares.
        pairs: of codebooks coded anew in a round.
    """

    parts: Sequence["Part"]
    rounds: int = 8
    pairs: int = 16

    def __call__(self, quantizer: "SumQuantizer", data: TrainingData) -> None:
        twin = quantizer.with_norm()
        for part in self.parts:
            part(twin, data)
        learned = NormFree.of(data.train, twin.encode(data.train), twin.codebooks_copy(), twin.sizes)

        def encode(entries: F32) -> Codes:
            _take(twin, entries)
            codes: Codes = twin.encode(learned.x)
            return codes

        learned.alternate(self.rounds, self.pairs, encode, data.seed(1 << 20) % (1 << 31))
        _take(quantizer, learned.entries)
