"""Encoders over NumPy arrays: vectors to codes, natively.

Arrays: ``x`` is ``(n, d)`` float32; codebooks are one flat ``entries`` array ``(sum(sizes), width)`` float32, codebook
after codebook, with ``sizes`` ``(M,)`` entries each. Codes are ``(n, M)``, uint8 where every codebook has at most 256
entries, uint16 otherwise. Results never depend on the SIMD level, the number of threads or how ``x`` is cut into
batches. Quantizers validate what users pass; here only what would make the native code misbehave is checked.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annvq.kernels import _native
from annvq.threads import get_num_threads
from annvq.types import F32, Codes

MAX_NORM_ROUNDS = 64

#: Iterated search of so many iterations and more goes on from codes that are worse by a random share of up to this part
#: of the error, falling to nothing; shorter ones from less: they have no time to come back.
HEAT, HOT_ITERATIONS = 0.15, 128

#: Largest Gram matrix an additive encoder keeps. Beyond it (more than 8192 entries in all) candidates are scored by
#: products of residuals and entries: the same codes up to rounding, in bounded memory.
GRAM_LIMIT_BYTES = 256 << 20

#: Most codebooks that iterated search takes, whose scores have 16 bits.
MAX_ITERATED_M = 64


def code_dtype(sizes: Sequence[int] | NDArray[np.int32]) -> np.dtype[Any]:
    """uint8 if every codebook has at most 256 entries, else uint16."""
    return np.dtype(np.uint8 if max(int(s) for s in sizes) <= 256 else np.uint16)


def rows_of(x: Any, name: str) -> F32:
    """``x`` as the native code takes it. Values are not looked at: who calls has checked them, and NaN among them gives
    codes of no meaning, but codes."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if x.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {x.shape}")
    return x


def _entries(x: Any) -> F32:
    entries = rows_of(x, "entries")
    # A sum is finite only if every term is; the check costs one pass and no memory.
    if entries.size and not np.isfinite(entries.sum(dtype=np.float64)):
        raise ValueError("entries must be finite, got NaN or infinity")
    return entries


def int_sizes(sizes: Any) -> NDArray[np.int32]:
    return np.ascontiguousarray(sizes, dtype=np.int32)


class ProductEncoder:
    """Codebooks of product codes, packed once for any number of :meth:`encode` calls.

    Args:
        entries: ``(sum(sizes), width)`` float32.
        sizes: ``(M,)`` entries per codebook, at most 65536 each.
        offsets: ``(M,)`` first dimension that each codebook sees.
    """

    def __init__(self, entries: F32, sizes: Any, offsets: Any) -> None:
        sizes = int_sizes(sizes)
        self._native = _native.ProductEncoder(_entries(entries), sizes, int_sizes(offsets))
        self._dtype = code_dtype(sizes)

    def encode(self, x: F32) -> Codes:
        """The entry of each codebook nearest to its part of each vector; the lower index wins ties."""
        return self._native.encode(rows_of(x, "x"), get_num_threads()).astype(self._dtype, copy=False)


class AdditiveEncoder:
    """Codebooks of residual or additive codes with their Gram matrix, for any number of calls.

    Args:
        entries: ``(sum(sizes), d)`` float32.
        sizes: ``(M,)`` entries per codebook, at most 65536 each, M at most 1024.
        gram_limit: largest Gram matrix kept, in bytes.
    """

    def __init__(self, entries: F32, sizes: Any, gram_limit: int = GRAM_LIMIT_BYTES) -> None:
        sizes = int_sizes(sizes)
        threads = get_num_threads()
        self._native = _native.AdditiveEncoder(_entries(entries), sizes, gram_limit, threads)
        self._dtype = code_dtype(sizes)
        self._M = len(sizes)

    @property
    def has_gram(self) -> bool:
        """Whether the Gram matrix fits the limit and is used."""
        return bool(self._native.has_gram)

    def residual(self, x: F32, beam: int = 1) -> Codes:
        """Beam search in codebook order; ``beam=1`` is greedy residual encoding."""
        return self._beam(x, beam, any_order=False)

    def additive(self, x: F32, beam: int) -> Codes:
        """Beam search in any order: each step extends each sum by any entry of any unused codebook, and sums that
        hold the same entries count once (Babenko and Lempitsky, *Additive Quantization*, CVPR 2014, section 3)."""
        return self._beam(x, beam, any_order=True)

    def residual_beams(self, x: F32, beam: int) -> Codes:
        """All codes that :meth:`residual` ends with, ``(n, beam, M)``, best first; the best again where the codebooks
        have fewer than ``beam`` sums."""
        codes = self._native.beam(rows_of(x, "x"), beam, False, beam, get_num_threads())
        return codes.astype(self._dtype, copy=False)

    def _beam(self, x: F32, beam: int, any_order: bool) -> Codes:
        codes = self._native.beam(rows_of(x, "x"), beam, any_order, 1, get_num_threads())
        return codes[:, 0].astype(self._dtype, copy=False)

    def local_search(
        self, x: F32, codes: Codes, *, rounds: int, open: int = 2, width: int = 16, seed: int = 0
    ) -> Codes:
        """Improve given codes by iterated local search; no vector's error grows.

        A round re-opens ``open`` codebooks of every vector and codes them anew, given the vector's other codes, by a
        beam of ``width`` partial sums; a vector keeps the better of old and new. ``open=1`` is ICM as in LSQ
        (Martinez et al., ECCV 2016); with two or more, the beam stands where LSQ perturbs codes at random and then
        repairs them.

        Args:
            x: ``(n, d)`` float32.
            codes: ``(n, M)`` codes to start from; they are not modified.
            rounds: rounds per vector.
            open: codebooks re-opened in a round, clipped to M.
            width: partial sums kept within a round, 1 to 16.
            seed: of the order in which codebooks are opened.
        """
        if rounds < 0:
            raise ValueError(f"rounds must not be negative, got {rounds}")
        schedule = open_schedule(self._M, min(open, self._M), rounds, seed)
        start = np.ascontiguousarray(codes, dtype=np.uint16)
        found = self._native.local_search(rows_of(x, "x"), start, schedule, width, get_num_threads())
        return found.astype(self._dtype, copy=False)

    def norm_search(
        self,
        x: F32,
        codes: Codes,
        offsets: F32,
        levels: F32,
        *,
        error_share: float = 0.0,
        centres: F32 | None = None,
        rest: F32 | None = None,
        seed: int = 0,
    ) -> Codes:
        """Codes that a norm byte suits: pairs of codebooks are coded anew, each once in each order, wherever that
        lowers ``‖x − x̂‖² + |error of the byte|``, both of which are errors of a squared distance.

        Needs the Gram matrix (:attr:`has_gram`).

        Args:
            x: ``(n, d)`` float32.
            codes: ``(n, M)`` codes to start from, M at least 2; they are not modified.
            offsets: ``(sum(sizes),)`` what the tables carry of ‖x̂‖², entry by entry.
            levels: ``(count,)`` ascending, what the byte can add.
            error_share: of ‖x − x̂‖², which the byte holds with the norm; in [0, 1].
            centres: ``(n, d)``, where the byte holds norms about centres C, ‖C + x̂‖² − ‖C‖².
            rest: ``(n,)`` what the byte holds of each vector beside these codes' part.
            seed: of the order of the pairs.
        """
        return self._norm_search(
            x, codes, offsets, levels, -1.0, norm_rounds(self._M), seed, error_share, centres, rest
        )

    def norm_free_search(
        self,
        x: F32,
        codes: Codes,
        offsets: F32,
        weight: float,
        *,
        error_share: float = 0.0,
        centres: F32 | None = None,
        rest: F32 | None = None,
        rounds: int | None = None,
        seed: int = 0,
    ) -> Codes:
        """Codes whose entries' offsets alone tell their norm: pairs of codebooks are coded anew wherever that lowers
        ``‖x − x̂‖² + weight · (‖x̂‖² + error_share · ‖x − x̂‖² − Σ offsets)²``.

        Args:
            offsets: ``(sum(sizes),)`` in place of ‖x̂‖², entry by entry.
            weight: per unit of squared distance.
            error_share: in [0, 1].
            rounds: pairs coded anew; default :func:`norm_rounds`. The rest is as for :meth:`norm_search`.
        """
        none = np.empty(0, np.float32)
        return self._norm_search(
            x, codes, offsets, none, weight, rounds or norm_rounds(self._M), seed, error_share, centres, rest
        )

    def _norm_search(
        self,
        x: F32,
        codes: Codes,
        offsets: F32,
        levels: F32,
        weight: float,
        rounds: int,
        seed: int,
        error_share: float,
        centres: F32 | None = None,
        rest: F32 | None = None,
    ) -> Codes:
        schedule = open_schedule(self._M, 2, rounds, seed)
        start = np.ascontiguousarray(codes, dtype=np.uint16)
        about = None if centres is None else rows_of(centres, "centres")
        found = self._native.norm_search(
            rows_of(x, "x"), start, schedule, offsets, levels, weight, error_share, about, rest, get_num_threads()
        )
        return found.astype(self._dtype, copy=False)

    def iterated_search(
        self,
        x: F32,
        codes: Codes,
        *,
        iterations: int,
        perturbed: int = 2,
        sweeps: int = 4,
        seed: int = 0,
    ) -> Codes:
        """Improve given codes by iterated local search in 16-bit scores; no vector's error grows.

        Each iteration replaces ``perturbed`` codes of every vector at random, repairs by at most ``sweeps`` sweeps of
        ICM, and goes on from the new codes where they are better (LSQ: Martinez et al., ECCV 2016) or, in long
        searches, a little worse; the best are returned. An iteration costs a fraction of a round of
        :meth:`local_search`. Where there is no Gram matrix, or more than 64 codebooks, rounds of that take the place
        of iterations.

        Args:
            x: ``(n, d)`` float32.
            codes: ``(n, M)`` codes to start from; they are not modified.
            iterations: perturbations tried per vector; 0 is ICM alone.
            perturbed: codes replaced in an iteration, at most M − 1 of them.
            sweeps: sweeps over the codebooks in an iteration; a sweep ends early where nothing changes.
            seed: of the perturbations.
        """
        if not self.has_gram or self._M > MAX_ITERATED_M:
            return self.local_search(x, codes, rounds=iterations, seed=seed)
        start = np.ascontiguousarray(codes, dtype=np.uint16)
        heat = HEAT * min(1.0, iterations / HOT_ITERATIONS)
        found = self._native.iterated(
            rows_of(x, "x"), start, iterations, perturbed, sweeps, seed, heat, get_num_threads()
        )
        return found.astype(self._dtype, copy=False)


def norm_rounds(M: int) -> int:
    """Pairs of M codebooks that :meth:`AdditiveEncoder.norm_search` codes anew."""
    return min(M * (M - 1), MAX_NORM_ROUNDS)


def open_schedule(M: int, open: int, rounds: int, seed: int) -> NDArray[np.int32]:
    """``(rounds, open)``: the codebooks that each round of a local search opens, in the order they are re-coded.

    Every group of codebooks comes up once before any comes up again while there are at most 4096 groups, so that no
    pair waits long; beyond, groups are drawn at random.
    """
    rng = np.random.default_rng([seed, M, open])
    drawn: list[NDArray[np.int32]] = []
    groups = np.array(list(combinations(range(M), open)), dtype=np.int32) if comb(M, open) <= 4096 else None
    while len(drawn) < rounds:
        if groups is None:
            drawn.append(rng.permutation(M)[:open].astype(np.int32))
        else:
            drawn.extend(rng.permuted(groups[rng.permutation(len(groups))], axis=1))
    return np.array(drawn[:rounds], dtype=np.int32).reshape(rounds, open)


def decode_additive(codes: Codes, entries: F32, sizes: Any) -> F32:
    """Sum of the entries that each code names, ``(n, d)`` float32, added in codebook order."""
    first = np.concatenate([[0], np.cumsum(sizes)])
    out = np.zeros((len(codes), entries.shape[1]), dtype=np.float32)
    for m in range(codes.shape[1]):
        out += entries[first[m] + codes[:, m].astype(np.int64)]
    return out
