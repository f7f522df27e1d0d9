"""How codes are searched: all of them or in lists, and by what a shortlist is re-ranked."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from annvq.bits import split_bits

LISTS_FROM = 100_000
"""Vectors that inverted lists are worth while for."""
_LEAST_SPLIT = 128  # bits that are shared out between a scanned and a second code
_LEAST_SCANNED = 32  # bits that are scanned beside vectors that are kept
_IN_LISTS = ("product", "rotated-product", "residual", "additive")  # learned anew from what centroids leave over


@dataclass(frozen=True)
class Second:
    """A second code.

    Attributes:
        kind, nbits: of its quantizer; for ``"stages"`` of the scanned code and the second together.
        refines: what it is of, see :class:`annvq.RerankIndex`.
    """

    kind: str
    nbits: tuple[int, ...]
    refines: Literal["rest", "stages"]


@dataclass(frozen=True)
class Form:
    """How codes are searched.

    Attributes:
        lists: in inverted lists, as many as is usual for the vectors; else all are scanned.
        residual: codes in lists are of what centroids leave over.
        by: what a shortlist is re-ranked by: a second code, or the type that the vectors are kept in. (What codes stand
            for takes no bits and is no form: see :attr:`annvq.choosing.Candidate.decoded`.)
    """

    lists: bool = False
    residual: bool = False
    by: Second | str | None = None

    @property
    def label(self) -> str:
        """What is said of it behind a code; nothing where all codes are scanned and ranked by themselves."""
        lists = ", in lists" * self.lists + " of residuals" * self.residual
        if self.by is None:
            return lists
        if isinstance(self.by, str):
            return f"{lists}, re-ranked by {self.by} vectors"
        if self.by.refines == "stages":
            return f"{lists}, re-ranked by all {len(self.by.nbits)} stages"
        return f"{lists}, re-ranked by {self.by.kind} {books(self.by.nbits)} of the rest"

    def bits(self, scanned: Sequence[int], dim: int) -> int:
        """Bits a vector that only re-ranking reads, beside the codebooks of the ``scanned`` code."""
        if isinstance(self.by, Second):
            return sum(self.by.nbits) - (sum(scanned) if self.by.refines == "stages" else 0)
        return 0 if self.by is None else KEPT_BITS[self.by] * dim

    def refine(self) -> dict[str, Any]:
        """Keys of a recipe's ``[refine]``; none where nothing re-ranks."""
        if isinstance(self.by, Second):
            return {"kind": self.by.kind, **quantizer_keys(self.by.nbits), "refines": self.by.refines}
        return {} if self.by is None else {"vectors": self.by}


PLAIN = Form()
"""All codes are scanned, and ranked by themselves."""
KEPT_BITS = {"uint8": 8, "int8": 8, "float16": 16}
"""Bits a dimension of vectors that are kept."""


def books(nbits: Sequence[int]) -> str:
    """Codebooks in short, as many as have the same bits together: ``8x8``, ``6x8+2x7``."""
    return "+".join(f"{len(list(alike))}x{bits}" for bits, alike in groupby(nbits))


def quantizer_keys(nbits: Sequence[int]) -> dict[str, Any]:
    """M and nbits as quantizers take them."""
    return {"M": len(nbits), "nbits": nbits[0] if len(set(nbits)) == 1 else list(nbits)}


def kept_type(bits: int, dim: int, metric: str, whole: bool) -> str | None:
    """The finest type that vectors of ``dim`` dimensions can be kept in beside a scanned code, within ``bits``; None
    where none fits. ``whole``: they are whole numbers from 0 to 255."""
    fits = ["uint8"] if whole else ["float16", *(["int8"] if metric == "cosine" else [])]
    return next((kept for kept in fits if KEPT_BITS[kept] * dim + _LEAST_SCANNED <= bits), None)


def forms_of(
    kind: str, nbits: tuple[int, ...], norm: str | None, norm_free: bool, metric: str, n: int
) -> list[tuple[tuple[int, ...], Form]]:
    """Other forms of a code for ``n`` vectors, as (scanned codebooks, form); its own bits are not exceeded."""
    found: list[tuple[tuple[int, ...], Form]] = []
    many = n >= LISTS_FROM
    if many:
        found.append((nbits, Form(lists=True)))
    if kind == "residual" and not norm_free and len(nbits) >= 4:
        found.append((nbits[: len(nbits) // 2], Form(by=Second(kind, nbits, "stages"))))
    if many and kind in _IN_LISTS and not norm_free and (metric != "l2" or norm is not None):
        found.append((nbits, Form(lists=True, residual=True)))
    return found


def split_forms(bits: int, dim: int, metric: str, whole: bool, n: int) -> list[tuple[tuple[int, ...], Form]]:
    """Forms that share out ``bits`` between product codes that are scanned and what re-ranks them, as (scanned
    codebooks, form)."""
    found: list[tuple[tuple[int, ...], Form]] = []
    many = n >= LISTS_FROM

    kept = kept_type(bits, dim, metric, whole)
    if kept is not None:
        scanned = split_bits(min(bits - KEPT_BITS[kept] * dim, max(_LEAST_SCANNED, dim)) // 8 * 8, 8)
        found += [(scanned, Form(lists=lists, by=kept)) for lists in ([False, True] if many else [False])]
    if bits >= _LEAST_SPLIT:
        for share in (4, 2):
            scanned = split_bits(bits // share // 8 * 8, 8)
            found.append((scanned, Form(by=Second("product", split_bits(bits - sum(scanned), 8), "rest"))))
    return [(nbits, form) for nbits, form in found if _has_dimensions(nbits, form, dim)]


def _has_dimensions(nbits: Sequence[int], form: Form, dim: int) -> bool:
    second = len(form.by.nbits) if isinstance(form.by, Second) else 0
    return max(len(nbits), second) <= dim
