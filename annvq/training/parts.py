"""Recipe parts that learn codebooks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from tqdm import trange

from annvq.arrays import positive_int
from annvq.training.data import TrainingData
from annvq.training.learn.alternating import Alternation, train_additive
from annvq.training.learn.kmeans import QUICK_ROWS, cluster, product_kmeans, quick_energies, residual_kmeans
from annvq.training.learn.least_squares import least_squares_entries, revive_unused
from annvq.training.learn.norms import NormFree
from annvq.training.model import CodebookModel, SumModel
from annvq.training.recipe import Inner, Part
from annvq.types import F32, Codes


@dataclass(frozen=True)
class KMeans:
    """A recipe part: each codebook by k-means on what it has to quantize (through faiss).

    Product codebooks see their sub-vectors; residual and additive ones, codebook after codebook, what the ones
    before leave over under beam search.

    Args:
        iterations: of k-means, for each codebook.
        kept: residual and additive codebooks learn from what so many codes of each vector leave over, those that a
            beam search keeps; None: as many as suits most data, up to 16 where codebooks have 256 entries and one where
            they have up to 64. More of them cover long tails. Never more than 131,072 residuals need, or two codes.
        progressive: residual and additive codebooks are learned on ever more principal components, as FAISS does: less
            error where directions are about equal, less recall where they are not.
    """

    over_processes: ClassVar[bool] = True

    iterations: int = 25
    kept: int | None = None
    progressive: bool = False

    def __post_init__(self) -> None:
        positive_int(self.iterations, "iterations")
        if self.kept is not None:
            positive_int(self.kept, "kept")

    def __call__(self, quantizer: CodebookModel, data: TrainingData) -> None:
        outer = quantizer
        quantizer, data = data.inside(outer)
        sizes = quantizer.sizes
        if quantizer.sums:
            books = []
            for g, (columns, dims, _) in enumerate(quantizer.books().groups):
                books += residual_kmeans(
                    np.ascontiguousarray(data.train[:, dims]),
                    sizes[columns],
                    iterations=self.iterations,
                    kept=self.kept,
                    progressive=self.progressive,
                    seed=data.seed if g == 0 else partial(data.seed, 1 << 22, g),
                    processes=data.processes,
                )
        else:
            books = product_kmeans(
                data.train,
                sizes,
                quantizer.starts,
                quantizer.widths,
                iterations=self.iterations,
                seed=data.seed,
                processes=data.processes,
            )
        quantizer.set_codebooks(books)
        outer.mark_fitted()


@dataclass(frozen=True)
class SubspaceKMeans:
    """A recipe part for additive codebooks: those of a product code, zero outside their sub-space.

    Additive codes contain product codes, so what is learned from here is never worse than a product code, not even on
    data without structure, where beam search and local search find little to hold on to.
    """

    over_processes: ClassVar[bool] = True

    iterations: int = 25

    def __call__(self, quantizer: SumModel, data: TrainingData) -> None:
        bounds = np.linspace(0, quantizer.dim, quantizer.M + 1).astype(int)
        entries = np.zeros((sum(quantizer.sizes), quantizer.dim), np.float32)
        books = np.split(entries, quantizer.offsets[1:-1])
        for m, (start, stop) in enumerate(itertools.pairwise(bounds)):
            if start < stop:  # more codebooks than dimensions leave some at zero
                part = np.ascontiguousarray(data.train[:, start:stop])
                found = cluster(part, quantizer.sizes[m], self.iterations, data.seed(m), data.processes)
                books[m][:, start:stop] = found
        quantizer.set_codebooks(books)


def _take(quantizer: SumModel, entries: F32) -> None:
    quantizer.set_codebooks(np.split(entries, quantizer.offsets[1:-1]))


@dataclass(frozen=True)
class Refit:
    """Encode by the quantizer's own search, solve for all codebooks by least squares, repeat; the codebooks with the
    lowest error on the validation rows are kept.

    Args:
        rounds: times to encode and solve; ends early when a round brings nothing.
    """

    over_processes: ClassVar[bool] = True

    rounds: int = 5

    def __call__(self, quantizer: SumModel, data: TrainingData) -> None:
        rng = np.random.default_rng(data.seed(1 << 17))
        best, lowest = quantizer.codebooks_copy(), data.validation_error(quantizer)
        for _ in trange(self.rounds, desc="refit", disable=not data.progress, leave=False):
            codes = quantizer.encode_rows(data.train)
            entries = least_squares_entries(
                data.train, codes, quantizer.codebooks_copy(), quantizer.sizes, processes=data.processes
            )
            entries, _ = revive_unused(data.train, codes, entries, quantizer.sizes, rng, data.processes)
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

    over_processes: ClassVar[bool] = True

    flat: Sequence[Part]
    graded: Sequence[Part]
    limit: float

    def inner(self, quantizer: SumModel) -> Inner:
        """The parts that this one may do."""
        return [(part, quantizer) for part in (*self.flat, *self.graded)]

    def __call__(self, quantizer: SumModel, data: TrainingData) -> None:
        sample, sizes = data.processes.head(data.train, QUICK_ROWS), quantizer.sizes[:TELLING]
        seed = data.seed(1 << 21) % (1 << 30)
        energies = data.processes.led(
            lambda: np.asarray(quick_energies(sample, sizes, seed)), (len(sizes),), np.float64
        ).tolist()
        for part in self.flat if grading(energies) <= self.limit else self.graded:
            part(quantizer, data)


@dataclass(frozen=True)
class Alternate:
    """Learn codebooks by local search and least squares in turn, perturbed and cooled; see
    :mod:`annvq.training.learn.alternating`.

    Codebooks learned before are kept where the result is worse on the validation rows.

    Args:
        plan: how to alternate.
        warm: start from the quantizer's codebooks and own codes, not from scratch. Codebooks that are graded from
            coarse to fine stay so.
        graded: nothing is done where codebooks learned before are graded by more than this: the largest energy of one,
            over the least.
    """

    over_processes: ClassVar[bool] = True

    plan: Alternation = field(default_factory=Alternation)
    warm: bool = False
    graded: float = math.inf

    def __call__(self, quantizer: SumModel, data: TrainingData) -> None:
        if bool(quantizer.fitted) and grading(quantizer.energies()) > self.graded:
            return
        before = quantizer.codebooks_copy()
        lowest = data.validation_error(quantizer) if bool(quantizer.fitted) else math.inf
        seed = data.seed(1 << 18) % (1 << 31)
        codes = quantizer.encode_rows(data.train) if self.warm else None
        entries, _ = train_additive(
            data.train,
            quantizer.sizes,
            self.plan,
            seed=seed,
            codes=codes,
            progress=data.progress,
            processes=data.processes,
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

    over_processes: ClassVar[bool] = True

    starts: Sequence[Part]
    finish: Part | None = None
    margin: float = 0.1
    lead: float = 0.0

    def inner(self, quantizer: SumModel) -> Inner:
        """The parts that this one may do."""
        return [(part, quantizer) for part in (*self.starts, self.finish) if part is not None]

    def __call__(self, quantizer: SumModel, data: TrainingData) -> None:
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

    over_processes: ClassVar[bool] = True

    parts: Sequence[Part]
    rounds: int = 8
    pairs: int = 16

    def inner(self, quantizer: SumModel) -> Inner:
        """The parts that this one does."""
        return [(part, quantizer) for part in self.parts]

    def __call__(self, quantizer: SumModel, data: TrainingData) -> None:
        twin = quantizer.with_norm()
        for part in self.parts:
            part(twin, data)
        plain = twin.encode_rows(data.train)
        learned = NormFree.of(data.train, plain, twin.codebooks_copy(), twin.sizes, data.processes)

        def encode(entries: F32) -> Codes:
            _take(twin, entries)
            return twin.encode_rows(learned.x)

        learned.alternate(self.rounds, self.pairs, encode, data.seed(1 << 20) % (1 << 31))
        _take(quantizer, learned.entries)
