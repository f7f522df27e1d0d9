"""The norm term: the number per vector that squared distance needs beside tables, and how it is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.types import F32, F64, Codes

NORM_LEVELS = 256

LENGTH_WEIGHT = 0.8
"""See Length.weight: more of it gives lengths that agree better, and codes with more error. See
docs/log/performance.md."""

LEAST_ERROR = 0.01
"""Of codes of vectors of length one: less is taken for so much, or lengths were all that counts."""

TENSORS = {
    8: ("norm_levels", "norm_offsets", "weighs_norm", "error_share"),
    0: ("norm_offsets", "norm_weight", "error_share"),
}
"""Names, in files, of what a learned term of so many bits consists of."""


def with_error(norms: npt.NDArray[Any], errors: npt.NDArray[Any] | None, share: float) -> F32:
    """‖x̂‖² (or what stands for it) and a share of ‖x − x̂‖², which is kept with it: (n,) float32 of (n,) each.

    ‖q − x‖² = ‖q − x̂‖² + ‖x − x̂‖² − 2⟨q − x̂, x − x̂⟩, and tables have the first term alone. That makes vectors that are
    badly coded too near: by the second term where q has nothing to do with the error; where q is next to x, the last
    term is twice the second, and they are too far instead. With half of the second term recall is higher on nearly all
    data tried (docs/encoding.md), and it takes no bits.
    """
    if not share or errors is None:
        return norms.astype(np.float32, copy=False)
    return (norms.astype(np.float64) + share * errors.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class Length:
    """The length that x̂ of a vector of length one shall have, under cosine.

    ⟨q, x̂⟩ alone puts badly coded vectors last, since x̂ is the shorter the worse x is coded. What orders vectors as the
    cosine does is ⟨q, x̂⟩ / ‖x̂‖, and where codes are chosen so that ‖x̂‖ is nearly the same for all, that is ⟨q, x̂⟩ over
    a constant: nothing has to be stored.

    Attributes:
        value: the length, above zero.
    """

    value: float

    @property
    def weight(self) -> float:
        """What an error of ‖x̂‖² costs beside ‖x − x̂‖² where codes are chosen: its square, so many times."""
        return LENGTH_WEIGHT / max(1.0 - self.value**2, LEAST_ERROR)

    def measured(self, x: F32, xhat: F32, centres: F32 | None = None) -> tuple[F64, F64]:
        """Of x and x̂ (n, d) about centres C (n, d), or none: ‖C + x̂‖ over the length, and what codes are chosen by,
        ‖x − x̂‖² + weight · (‖C + x̂‖² − length²)², (n,) each."""
        whole, rest = xhat if centres is None else xhat + centres, x - xhat
        squares = np.einsum("ij,ij->i", whole, whole, dtype=np.float64)
        errors = np.einsum("ij,ij->i", rest, rest, dtype=np.float64)
        return np.sqrt(squares) / self.value, errors + self.weight * np.square(squares - self.value**2)


@dataclass(frozen=True, eq=False)
class NormTerm:
    """s = ‖x̂ − o‖² + e·‖x − x̂‖², what squared distance needs of a vector beside tables, as ``Σ_m a_m[c_m] + rest``.

    The offsets a belong to codebook entries: they are added to a query's tables, and cost no bits per vector and no
    time. What they leave over, the rest, is kept in 32 bits (:meth:`exact`, with no offsets and no error), in 8 bits
    (:meth:`byte`), or not at all (:meth:`free`: codes are chosen so that there is hardly any). o is the origin of the
    quantizer; for codes of coarse residuals s is ‖C + r̂‖² − ‖C‖² with C the centroid.

    Attributes:
        sizes: entries of each of the M codebooks.
        bits: kept per vector: 32, 8 or 0.
        offsets: (ΣK,) float32, codebook after codebook.
        levels: (256,) float32 ascending, what a byte can stand for; None for other bits.
        weight: what an error of s costs beside ‖x − x̂‖² when codes are chosen. Of a byte its absolute value counts, and
            the weight is 1 or 0; of norm-free codes its square, and the weight is per unit of squared distance.
        error_share: e, in [0, 1].
    """

    sizes: tuple[int, ...]
    bits: int
    offsets: F32
    levels: F32 | None = None
    weight: float = 0.0
    error_share: float = 0.0

    @classmethod
    def exact(cls, sizes: tuple[int, ...]) -> "NormTerm":
        """‖x̂ − o‖² alone, in 32 bits."""
        return cls(sizes, 32, np.zeros(sum(sizes), np.float32))

    @classmethod
    def byte(
        cls, sizes: tuple[int, ...], offsets: F32, levels: F32, *, weighed: bool = False, error_share: float = 0.0
    ) -> "NormTerm":
        """One byte for the rest, the number of a level; ``weighed``: codes are chosen with its error in mind."""
        return cls(sizes, 8, offsets, levels, float(weighed), error_share)

    @classmethod
    def free(cls, sizes: tuple[int, ...], offsets: F32, *, weight: float = 0.0, error_share: float = 0.0) -> "NormTerm":
        """Nothing is kept: the offsets alone stand for s."""
        return cls(sizes, 0, offsets, None, weight, error_share)

    @classmethod
    def of_groups(cls, terms: Sequence["NormTerm"]) -> "NormTerm":
        """The norm-free term of codebooks over dimensions of their own, group after group, from those of the groups."""
        if len(terms) == 1:
            return terms[0]
        sizes = tuple(size for term in terms for size in term.sizes)
        weight = sum(term.weight for term in terms) / len(terms)
        share = sum(term.error_share for term in terms) / len(terms)
        return cls.free(sizes, np.concatenate([t.offsets for t in terms]), weight=weight, error_share=share)

    @property
    def weighed(self) -> bool:
        """Whether codes are chosen with this term in mind."""
        return self.weight > 0

    # -- values ------------------------------------------------------------------------------------------------------

    def explained(self, codes: Codes) -> F64:
        """Σ_m offsets[m, code_m] of codes (n, M), (n,) float64."""
        total = np.zeros(len(codes))
        first = 0
        for m, size in enumerate(self.sizes):
            total += self.offsets[first : first + size][codes[:, m]]
            first += size
        return total

    def keep(self, codes: Codes, norms: npt.NDArray[Any], errors: npt.NDArray[Any] | None = None) -> Any:
        """What is stored beside codes (n, M): uint8 (n,) for a byte, float32 (n,) for 32 bits, None for none.

        Args:
            norms: ‖x̂ − o‖² (or what stands for it), (n,).
            errors: ‖x − x̂‖², (n,), needed where ``error_share`` is not zero.
        """
        if self.bits == 0:
            return None
        values = with_error(norms, errors, self.error_share)
        return values if self.levels is None else self._nearest_level(codes, values, self.levels)

    def _nearest_level(self, codes: Codes, values: F32, levels: F32) -> npt.NDArray[np.uint8]:
        """The lower of two that are as near."""
        ordered = levels.astype(np.float64)
        middles = (ordered[1:] + ordered[:-1]) / 2
        left = values.astype(np.float64) - self.explained(codes)
        return np.searchsorted(middles, left, side="left").astype(np.uint8)

    def values(self, codes: Codes, kept: npt.NDArray[Any] | None = None) -> F32:
        """s as codes and what is kept beside them tell it, (n,) float32."""
        if self.bits == 32:
            return np.asarray(kept, np.float32)
        told = self.explained(codes)
        if self.levels is not None:
            told = told + self.levels[kept]
        return told.astype(np.float32)

    def table_offsets(self) -> F32:
        """The offsets (M, K), K the largest codebook's size, zero where another has fewer: what is added to tables."""
        if min(self.sizes) == max(self.sizes):
            return np.ascontiguousarray(self.offsets, np.float32).reshape(len(self.sizes), -1)
        padded = np.zeros((len(self.sizes), max(self.sizes)), np.float32)
        for m, part in enumerate(np.split(self.offsets, np.cumsum(self.sizes[:-1]))):
            padded[m, : len(part)] = part
        return padded

    # -- as tensors --------------------------------------------------------------------------------------------------

    @property
    def learned(self) -> bool:
        """Whether it can be used: levels of a byte are NaN and weights of norm-free codes zero before."""
        return self.weight > 0 if self.levels is None else bool(np.isfinite(self.levels).all())

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """As arrays, by the names that files give them (:data:`TENSORS`)."""
        share = np.asarray(np.float32(self.error_share))
        if self.levels is None:
            values: tuple[npt.NDArray[Any], ...] = (self.offsets, np.asarray(np.float32(self.weight)), share)
        else:
            values = (self.levels, self.offsets, np.asarray(self.weighed), share)
        return dict(zip(TENSORS[self.bits], values, strict=True))

    @classmethod
    def from_tensors(cls, sizes: tuple[int, ...], tensors: Mapping[str, npt.NDArray[Any]]) -> "NormTerm":
        """The inverse of :meth:`tensors`."""
        offsets, share = tensors["norm_offsets"], float(tensors["error_share"])
        if "norm_levels" not in tensors:
            return cls.free(sizes, offsets, weight=float(tensors["norm_weight"]), error_share=share)
        weighed = bool(tensors["weighs_norm"])
        return cls.byte(sizes, offsets, tensors["norm_levels"], weighed=weighed, error_share=share)
