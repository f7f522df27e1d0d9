"""The one-byte norm: what the codes do not already say about ‖x̂‖² and their own error, in 256 learned levels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.types import F32

NORM_LEVELS = 256


def with_error(norms: npt.NDArray[Any], errors: npt.NDArray[Any], share: float) -> F32:
    """‖x̂‖² (or what stands for it) and a share of ‖x − x̂‖², which is kept with it: (n,) float32 of (n,) each.

    ‖q − x‖² = ‖q − x̂‖² + ‖x − x̂‖² − 2⟨q − x̂, x − x̂⟩, and tables have the first term alone. That makes vectors that are
    badly coded too near: by the second term where q has nothing to do with the error; where q is next to x, the last
    term is twice the second, and they are too far instead. With half of the second term recall is higher on nearly all
    data tried (docs/encoding.md), and it takes no bits.
    """
    if not share:
        return norms.astype(np.float32, copy=False)
    return (norms.astype(np.float64) + share * errors.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class NormByte:
    """A per-vector term, ‖x̂‖² and a share of the error, as ``Σ_m offsets[m, code_m] + levels[byte]``.

    The offsets belong to codebook entries, so they cost no bits per vector and no time: they are added to the tables
    of a query. The byte holds only what is left over, the cross terms between entries and the error; on data whose
    norms vary much that is a small part of ‖x̂‖², and the byte so much the finer.

    Args:
        sizes: entries of each of the M codebooks.
        offsets: (ΣK,) float32, codebook after codebook.
        levels: (256,) float32, ascending.
        weighed: whether codes are to be chosen with the byte's error in mind (see
            :meth:`~annvq.quantizers.base.Quantizer.encode_for_byte`).
        error_share: of ‖x − x̂‖², which is kept with the norm (see :func:`with_error`); in [0, 1].
    """

    sizes: tuple[int, ...]
    offsets: F32
    levels: F32
    weighed: bool = False
    error_share: float = 0.0

    def explained(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Σ_m offsets[m, code_m] of codes (n, M), (n,) float64."""
        total = np.zeros(len(codes))
        first = 0
        for m, size in enumerate(self.sizes):
            total += self.offsets[first : first + size][codes[:, m]]
            first += size
        return total

    def encode(self, codes: npt.NDArray[Any], values: F32) -> npt.NDArray[np.uint8]:
        """The byte (n,) of vectors with these codes and values (n,): the nearest level, the lower of two as near."""
        levels = self.levels.astype(np.float64)
        middles = (levels[1:] + levels[:-1]) / 2
        left = values.astype(np.float64) - self.explained(codes)
        return np.searchsorted(middles, left, side="left").astype(np.uint8)

    def encode_vectors(
        self, codes: npt.NDArray[Any], norms: npt.NDArray[Any], errors: npt.NDArray[Any]
    ) -> npt.NDArray[np.uint8]:
        """The byte (n,) of vectors with these codes, ‖x̂‖² (or what stands for it) and ‖x − x̂‖², (n,) each."""
        return self.encode(codes, with_error(norms, errors, self.error_share))

    def decode(self, codes: npt.NDArray[Any], bytes: npt.NDArray[np.uint8]) -> F32:
        """The values (n,) that codes and bytes stand for."""
        return (self.explained(codes) + self.levels[bytes]).astype(np.float32)

    def table_offsets(self, K: int) -> F32:
        """The offsets, (M, K), for tables of K ≥ every codebook's size: what is added to them."""
        padded = np.zeros((len(self.sizes), K), np.float32)
        for m, part in enumerate(np.split(self.offsets, np.cumsum(self.sizes[:-1]))):
            padded[m, : len(part)] = part
        return padded
