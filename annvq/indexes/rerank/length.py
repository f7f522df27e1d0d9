"""Re-ranking by what the scanned code stands for and a byte of its vector's length: inner products."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.errors import NotFittedError
from annvq.indexes.coding import HELD_OUT, LENGTH_ROWS, Encoded
from annvq.indexes.contract import array_crc
from annvq.indexes.lost import TOP, found_of, nearest
from annvq.indexes.rerank.decoded import Compared, rank_decoded
from annvq.indexes.rerank.refinement import Found, KeptRows
from annvq.indexes.stored import StoreIndex
from annvq.types import F32, F64, I64, U8, Array, Self

if TYPE_CHECKING:
    from annvq.training.recipe import Recipe

SHORTLIST, NEARLY = 100, 0.995
"""How many are ordered anew where powers are compared, and what part of the best is nearly as good."""
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_BEYOND = 64
"""Levels beyond each end of what was learned."""
_REACH = 100.0  # of the levels, as a power of two
_HIGHEST = 120.0  # of what is learned from times a factor: float32 ends at 128
_FEWEST, _MOST = 0.001, 0.999  # of learned ratios: what lies beyond is told as what was never seen
_TRIES = 8


class LengthByte(KeptRows):
    """x̂ times a power of ‖x‖ / ‖x̂‖, which is kept in a byte: for ``"ip"``.

    x̂ is the shorter the worse x is coded, so ⟨q, x̂⟩ puts badly coded vectors last. ⟨q, x̂⟩·(‖x‖ / ‖x̂‖)^p does not. Of
    the powers p in :data:`POWERS` ``fit`` takes one that finds most, or nearly, among learn vectors: about 1 where
    lengths are equal, less where they differ much. A p of 0 says that the byte brings nothing.

    The byte tells one of 256 ratios. One is zero, for the zero vector, whose inner products are all zero. 127 stand at
    equal steps of the logarithm between those that nearly all learn vectors have. 64 follow beyond each end, the
    first a step away and each further by a sixth or so than the one before, up to 2^±100: so a vector that is coded as
    badly as none of these, as it is far longer or shorter, is told more roughly, by up to a tenth of how far beyond it
    lies, in the logarithm, and not as one at the end.

    Attributes:
        ratios: (256,) float32 ascending, what the bytes stand for.
        factors: (256,) float32, their powers, by which x̂ is multiplied.
    """

    kind = "length"
    bits = 8
    whole = False

    def __init__(self, index: StoreIndex) -> None:
        if index.metric != "ip":
            raise ValueError(
                f"refine must not be 'length' for metric {index.metric!r}: it is for inner products ('ip'). Under "
                "'cosine' 'decoded' takes no bits; under 'l2' norm='uint8' keeps a length where codes need one"
            )
        self.ratios = self.factors = np.empty(0, np.float32)
        super().__init__(1)

    # -- learning ------------------------------------------------------------------------------------------------

    def require_fitted(self, what: str) -> None:
        if not len(self.ratios):
            raise NotFittedError(f"{what} needs learned ratios of lengths: call fit(x) first")

    def fit(self, index: StoreIndex, x: Array, *, seed: int, progress: bool, recipe: "Recipe | None") -> None:
        if len(self.ratios):
            return
        if not int(x.shape[0]):
            raise ValueError("x must have at least one row to learn ratios of lengths from, got none")
        chosen = np.random.default_rng(seed).permutation(int(x.shape[0]))[:LENGTH_ROWS]
        rows = index.prepared(x[np.sort(chosen)], "x")
        encoded = index.coding.encode(rows)
        xhat = index.coding.decode(encoded.codes, encoded.lists)
        ratios = _ratios(rows, xhat)
        told = ratios[np.isfinite(ratios) & (ratios > 0)]
        self.ratios = _levels(told if len(told) else np.ones(1))
        kept, asking = self._told(ratios), np.random.default_rng(seed).permutation(len(rows))  # `chosen` is sorted
        power = _best_power(rows[asking], xhat[asking], self.ratios[kept[asking]])
        # (Of vectors far longer than these x̂ must not become infinite.)
        most = 2.0**_HIGHEST / max(1.0, float(np.abs(xhat).max(initial=0)))
        self.factors = np.minimum(_powers(self.ratios, power), np.float32(most))

    # -- rows ----------------------------------------------------------------------------------------------------

    def encode(self, index: StoreIndex, x: F32, rows: F32, first: int) -> tuple[Encoded, U8]:
        encoded = index.coding.encode(rows)
        return encoded, self._told(_ratios(rows, index.coding.decode(encoded.codes, encoded.lists)))[:, None]

    def _told(self, ratios: F64) -> U8:
        """The bytes (n,) that tell ratios (n,): of the nearest by their logarithm, 0 of zero alone."""
        positive = self.ratios[1:].astype(np.float64)
        told = 1 + np.searchsorted(np.sqrt(positive[:-1] * positive[1:]), ratios)
        return np.where(ratios > 0, told, 0).astype(np.uint8)

    # -- distances -----------------------------------------------------------------------------------------------

    def rank(self, index: StoreIndex, queries: F32, ids: I64, k: int) -> Found:
        return rank_decoded(index, queries, ids, k, self._compared)

    def _compared(self, index: StoreIndex, queries: F32, ids: I64, xhat: F32, errors: F32 | None) -> Compared:
        there = ids >= 0
        for _ in range(_TRIES):
            try:
                kept = self.store.get(ids[there])[:, 0]
                break
            except ValueError:  # removed meanwhile
                there[there] = index.contains(ids[there])
        else:
            raise ValueError("this index holds vectors whose lengths are not there: its file was not whole")
        factors = np.zeros(len(ids), np.float32)
        factors[there] = self.factors[kept]
        return Compared("ip", queries, np.where(there, ids, -1), xhat * factors[:, None])

    def reconstruct(self, index: StoreIndex, ids: I64) -> F32:
        x: F32 = index.reconstruct(ids) * self.factors[self.store.get(ids)]
        return x

    # -- facts and files -----------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        return {"refined_by": "the scanned codes, decoded, and a byte of length", "refine_bits_per_vector": self.bits}

    def fingerprint(self) -> tuple[Any, ...]:
        return *super().fingerprint(), array_crc(self.ratios), array_crc(self.factors)

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        return {}, {"refine.ratios": self.ratios, "refine.factors": self.factors} | self.rows_to_stored()

    @classmethod
    def from_stored(cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], index: StoreIndex) -> Self:
        made = cls(index)
        made.ratios, made.factors = (np.array(tensors.pop(f"refine.{name}")) for name in ("ratios", "factors"))
        for name, found in (("ratios", made.ratios), ("factors", made.factors)):
            unlearned = found.shape == (0,) and not len(index)
            if found.dtype != np.float32 or not (found.shape == (256,) or unlearned):
                raise ValueError(f"its {name} of lengths must be 256 float32, got {found.dtype} {found.shape}")
            wrong = found[~(np.isfinite(found) & (found >= 0))]
            if len(wrong):
                raise ValueError(f"its {name} of lengths must be finite and not negative, got {wrong[0]}")
        if len(made.ratios) != len(made.factors) or (np.diff(made.ratios) <= 0).any():
            raise ValueError("its ratios of lengths must ascend, with a factor for each")
        made.restore_rows(tensors, len(index))
        return made


def _ratios(x: F32, xhat: F32) -> F64:
    """‖x‖ / ‖x̂‖ of rows (n, d), (n,): 0 where x is zero, infinite where only x̂ is."""
    lengths, of_codes = (np.sqrt(np.einsum("ij,ij->i", a, a, dtype=np.float64)) for a in (x, xhat))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(lengths > 0, lengths / of_codes, 0.0)


def _levels(ratios: F64) -> F32:
    """The ratios (256,) that bytes stand for, learned from positive ones."""
    ends = np.log2(np.quantile(ratios, [_FEWEST, _MOST], method="nearest"))
    low, high = (float(end) for end in np.clip(ends, -_REACH / 2, _REACH / 2))
    between = np.linspace(low, max(high, low + 0.01), 255 - 2 * _BEYOND)
    step = between[1] - between[0]
    below, above = (step * np.geomspace(1, left / step, _BEYOND) for left in (_REACH + low, _REACH - between[-1]))
    powers = np.concatenate([low - below[::-1], between, between[-1] + above])
    return np.concatenate([[0], np.exp2(powers)]).astype(np.float32)


def _best_power(rows: F32, xhat: F32, ratios: F32) -> float:
    """The least power that finds nearly as many as any of the ten largest inner products of the first rows (n, d) with
    the others. (Ten, and the least: where lengths differ much a few long vectors are among the first of most queries,
    and codes of those that codebooks were learned from are better than those of others.)"""
    if len(rows) < 2:
        return 1.0
    queries, few = rows[:HELD_OUT], min(SHORTLIST, len(rows) - 1)
    true = nearest(queries, rows, TOP, others=True)
    listed = nearest(queries, xhat, few, others=True)
    products = np.empty(listed.shape)
    for start, stop in chunks(len(queries), few * rows.shape[1]):
        part = xhat[listed[start:stop]]
        products[start:stop] = np.einsum("qd,qnd->qn", queries[start:stop], part, dtype=np.float64)
    found = []
    for power in POWERS:
        order = np.argsort(-products * _powers(ratios, power)[listed], axis=1, kind="stable")[:, :TOP]
        found.append(found_of(true, np.take_along_axis(listed, order, axis=1)))
    return next(power for power, count in zip(POWERS, found, strict=True) if count >= NEARLY * max(found))


def _powers(ratios: F32, power: float) -> F32:
    """The factors (n,) of ratios; of zero it is zero whatever the power."""
    powers = np.where(ratios > 0, np.power(ratios.astype(np.float64), power), 0.0)
    return np.minimum(powers, 2.0**_REACH).astype(np.float32)
