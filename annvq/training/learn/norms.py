"""Learning how a norm is kept: offsets of entries by least squares, a byte's levels by k-means in one dimension."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.kernels.encode import AdditiveEncoder, decode_additive
from annvq.norms import NORM_LEVELS, NormTerm, with_error
from annvq.training.learn.least_squares import least_squares_entries, revive_unused
from annvq.training.learn.shares import ALONE, Alone
from annvq.training.outliers import far_out
from annvq.types import F32, F64

NORM_FREE_WEIGHT = 3.0
"""What a norm's error costs where none is stored: its square, so many times over the codes' median squared error."""

ERROR_SHARE = 0.5
"""Of a vector's squared error, what is kept with its norm (see with_error): the best is between a quarter and one, and
a half is near it on all data tried (docs/encoding.md)."""

MOST_ERROR = 100.0
"""Errors of more than so many times the median are learned from as if they were just that: a few of them would be all
that offsets are fitted to."""

NORM_MATTERS = 0.1
"""Median error of the norm byte, as a share of the codes' own, from which codes are chosen with it in mind."""


def fit_norm_byte(
    codes: npt.NDArray[Any],
    values: F32,
    sizes: Sequence[int],
    start: F32 | None = None,
    code_error: npt.NDArray[np.floating] | None = None,
) -> NormTerm:
    """Learn how a byte and the code together stand for a per-vector value, and a share of the code's error with it.

    Offsets are the main effects of the entries by regularised least squares, or ``start``, or none: whichever leaves
    the byte the smallest error. Offsets learn from every other row; levels, and the choice, come from the rows between,
    so that they suit unseen vectors.

    Args:
        codes: (n, M) integers, n at least 1.
        values: (n,) finite float32, such as ‖x̂‖².
        sizes: entries of each codebook.
        start: (ΣK,) offsets that rarely seen entries keep, such as ``expected_offsets``; default zero.
        code_error: (n,) squared errors of the codes, of which :data:`ERROR_SHARE` is kept; None: nothing of it is. The
            byte's error is one of a squared distance, too: where it is the smaller by far, codes need not mind it
            (``weighed``).
    """
    if code_error is not None:
        values = with_error(values, bounded(code_error), ERROR_SHARE)
    none = np.zeros(sum(sizes), np.float32)
    start = none if start is None else np.asarray(start, np.float32)
    candidates = [none, start]
    if len(codes) > 1:
        candidates.append(_main_effects(codes[::2], values[::2], sizes, start))
    rows = slice(1, None, 2) if len(codes) > 1 else slice(None)
    fitted = [_with_levels(codes[rows], values[rows], sizes, offsets) for offsets in candidates]
    byte = min(fitted, key=lambda one: one[0])[1]
    if code_error is None:
        return byte
    byte_error = np.abs(byte.values(codes, byte.keep(codes, values)) - values)
    weighed = bool(np.median(byte_error) > NORM_MATTERS * np.median(code_error))
    return replace(byte, weight=float(weighed), error_share=ERROR_SHARE)


def bounded(errors: npt.NDArray[Any], processes: Alone = ALONE) -> npt.NDArray[Any]:
    """Squared errors (n,), those of a few badly coded vectors (of all processes) made smaller."""
    return np.minimum(errors, MOST_ERROR * np.median(processes.joined(errors)))


def _main_effects(
    codes: npt.NDArray[Any], values: F32, sizes: Sequence[int], start: F32, processes: Alone = ALONE
) -> F32:
    """Offsets (ΣK,) by least squares, drawn towards ``start``."""
    # The first codebook carries the mean, so that the regularisation does not shrink towards zero.
    drawn = start.copy()
    left = processes.joined(values - NormTerm.free(tuple(sizes), start).explained(codes))
    drawn[: sizes[0]] += np.float32(left.mean())
    solved = least_squares_entries(
        values[:, None], codes, drawn[:, None], sizes, regularisation=1.0, processes=processes
    )
    return solved[:, 0]


def _row_sums(rows: npt.NDArray[Any], processes: Alone) -> F64:
    """Sums over rows (n, d), (n,). Of several processes' rows the same wherever among others a row lies: a sum that
    converts as it goes does so in pieces, which end anywhere."""
    return rows.astype(np.float64).sum(1) if processes.shared else rows.sum(1, dtype=np.float64)


def _mean(rows: F32, processes: Alone) -> F32:
    """The mean (d,) of the rows of all processes."""
    if not processes.shared:
        mean: F32 = rows.mean(0)
        return mean
    sums = [processes.total(part.sum(0)) for part in processes.summable(rows)]
    return np.asarray(np.sum(sums, axis=0) / processes.span(len(rows))[1], np.float32)


def expected_offsets(codes: npt.NDArray[Any], entries: F32, sizes: Sequence[int], processes: Alone = ALONE) -> F32:
    """Offsets (ΣK,) if codebooks were independent: ‖c‖² and twice ⟨c, the sum of the other codebooks' means⟩.

    ‖c‖² alone would do at the origin, where means are zero. Up to a constant these are what it becomes when the data
    are moved, so that what is drawn towards them does not depend on where the data lie.
    """
    books = np.split(entries.astype(np.float64), np.cumsum(sizes)[:-1])
    n = processes.span(len(codes))[1]
    used = [processes.total(np.bincount(codes[:, m], minlength=size)) / n for m, size in enumerate(sizes)]
    means = [share @ book for share, book in zip(used, books, strict=True)]
    total = np.sum(means, axis=0)
    offsets = [np.square(book).sum(1) + 2 * book @ (total - mean) for book, mean in zip(books, means, strict=True)]
    return np.concatenate(offsets).astype(np.float32)


def _with_levels(codes: npt.NDArray[Any], values: F32, sizes: Sequence[int], offsets: F32) -> tuple[float, NormTerm]:
    """Mean squared error of the byte on these vectors, and the byte with levels fitted to them."""
    left = values.astype(np.float64) - NormTerm.free(tuple(sizes), offsets).explained(codes)
    byte = NormTerm.byte(tuple(sizes), offsets, fit_levels(left.astype(np.float32), NORM_LEVELS))
    error = byte.values(codes, byte.keep(codes, values)).astype(np.float64) - values
    return float(np.square(error).mean()), byte


def fit_levels(values: F32, count: int, *, iterations: int = 50) -> F32:
    """``count`` levels that quantize ``values`` with little squared error: Lloyd's algorithm from quantiles.

    Args:
        values: (n,) finite, n at least 1.

    Returns:
        (count,) float32, ascending. With fewer distinct values than levels, those values, the last one repeated.
    """
    ordered = np.sort(values.astype(np.float64))
    distinct = np.unique(ordered)
    if len(distinct) <= count:
        return np.concatenate([distinct, np.full(count - len(distinct), distinct[-1])]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    # Half quantiles, half an even grid: quantiles alone leave the tails, which Lloyd reaches slowly, uncovered.
    grid = np.linspace(distinct[0], distinct[-1], count // 2)
    levels = np.sort(
        np.concatenate([np.quantile(distinct, (np.arange(count - len(grid)) + 0.5) / (count - len(grid))), grid])
    )
    for _ in range(iterations):
        edges = np.concatenate([[0], np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2), [len(ordered)]])
        counts = np.diff(edges)
        filled = counts > 0
        moved = levels.copy()
        moved[filled] = (sums[edges[1:]] - sums[edges[:-1]])[filled] / counts[filled]
        if np.allclose(moved, levels, rtol=1e-12, atol=0):
            break
        levels = np.sort(moved)
    return levels.astype(np.float32)


@dataclass
class NormFree:
    """Codebooks, and offsets of their entries that alone stand for ‖x̂‖² (see
    :class:`~annvq.quantizers.sums.SumCoder`), as they are learned from vectors.

    Args:
        x: (n, d) vectors; of several processes each has its share of them.
        plain: their codes (n, M) found without regard to norms.
        entries: (ΣK, d); sizes: entries of each codebook.
        offsets: (ΣK,), for ‖x̂‖² and :data:`ERROR_SHARE` of the error; weight: of their squared error.
    """

    x: F32
    plain: npt.NDArray[Any]
    entries: F32
    sizes: Sequence[int]
    offsets: F32
    weight: float
    processes: Alone = field(default=ALONE)

    @classmethod
    def of(
        cls, x: F32, plain: npt.NDArray[Any], entries: F32, sizes: Sequence[int], processes: Alone = ALONE
    ) -> "NormFree":
        """From codebooks learned for their own sake and codes by them; rows that are far out, whose norms would be all
        that offsets are fitted to, are left out."""
        first = processes.span(len(x))[0]
        near = ~far_out(x, processes)[first : first + len(x)]
        x, plain = x[near], plain[near]
        errors = np.square(x - decode_additive(plain, entries, sizes)).sum(1)
        # Codes with hardly any error would have their norms decide everything.
        spread = _row_sums(np.square(x - _mean(x, processes)), processes)
        least = 0.01 * float(processes.joined(spread).mean())
        scale = max(float(np.median(processes.joined(errors))), least) or 1.0
        # Quantizers keep it as float32, which it exceeds where vectors are tiny.
        weight = min(NORM_FREE_WEIGHT / scale, float(np.finfo(np.float32).max))
        return cls(x, plain, entries, sizes, expected_offsets(plain, entries, sizes, processes), weight, processes)

    def settle(self, rounds: int) -> None:
        """Learn the offsets, ``rounds`` times with codes chosen by those before; codebooks stay."""
        codes, encoder = self.plain, self._encoder()
        for _ in range(rounds):
            self._refit_offsets(codes)
            if encoder is None:
                return
            codes = encoder.norm_free_search(self.x, self.plain, self.offsets, self.weight, error_share=ERROR_SHARE)
        self._refit_offsets(codes)

    def term(self) -> NormTerm:
        """The term as it is learned so far."""
        return NormTerm.free(tuple(self.sizes), self.offsets, weight=self.weight, error_share=ERROR_SHARE)

    def alternate(self, rounds: int, pairs: int, encode: Callable[[F32], npt.NDArray[Any]], seed: int) -> None:
        """Learn codebooks with the offsets: codes, offsets and least squares in turn.

        Codes are carried along, ``pairs`` pairs of codebooks coded anew in a round. In the end vectors are encoded from
        scratch, as a user's will be: ``encode(entries)`` gives their plain codes.
        """
        codes, rng = self.plain, np.random.default_rng(seed)
        for t in range(rounds):
            if (encoder := self._encoder()) is None:
                return
            self._refit_offsets(codes)
            if t == rounds - 1:
                codes, pairs = encode(self.entries), 0
            codes = encoder.norm_free_search(
                self.x, codes, self.offsets, self.weight, error_share=ERROR_SHARE, rounds=pairs or None, seed=seed + t
            )
            self.entries = least_squares_entries(self.x, codes, self.entries, self.sizes, processes=self.processes)
            self.entries, _ = revive_unused(self.x, codes, self.entries, self.sizes, rng, self.processes)

    def _encoder(self) -> AdditiveEncoder | None:
        encoder = AdditiveEncoder(self.entries, self.sizes)
        return encoder if encoder.has_gram and len(self.sizes) > 1 else None

    def _refit_offsets(self, codes: npt.NDArray[Any]) -> None:
        decoded = decode_additive(codes, self.entries, self.sizes)
        if self.processes.shared:
            norms = _row_sums(np.square(decoded, dtype=np.float64), self.processes).astype(np.float32)
        else:
            norms = np.einsum("ij,ij->i", decoded, decoded, dtype=np.float64).astype(np.float32)
        errors = bounded(_row_sums(np.square(self.x - decoded), self.processes), self.processes)
        values = with_error(norms, errors, ERROR_SHARE)
        self.offsets = _main_effects(codes, values, self.sizes, self.offsets, self.processes)


def learn_free_term(x: F32, plain: npt.NDArray[Any], entries: F32, sizes: Sequence[int], rounds: int = 3) -> NormTerm:
    """The norm-free term of codebooks that stay as they are; the arguments are those of :class:`NormFree`. Without
    ``rounds`` it is that of the codes given, whatever they were chosen by."""
    learned = NormFree.of(x, plain, entries, sizes)
    learned.settle(rounds)
    return learned.term()
