"""What an index stores of vectors, and the tables that score it.

All rows, targets and queries here are float32 (n, d) that have been checked, and normalised under cosine.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.codebooks import Codebooks
from annvq.indexes.lost import ASKING, NEAR_FEW, TOP, learned_share, nearest, stored_share, with_lost, worth
from annvq.kernels import LazyTables, squared_norms
from annvq.norms import Length, NormTerm
from annvq.quantizers.coder import Coder
from annvq.types import F32, I32, Codes, Norm

LENGTH_ROWS = 4096  # vectors that are enough to learn the length of codes
HELD_OUT = 1000  # of those that codebooks could be learned from; and so many stand for queries


class Encoded(NamedTuple):
    """What an index stores of vectors: codes (n, M), norms (n,) of the index's kind or None, lists (n,) or None."""

    codes: Codes
    norms: npt.NDArray[Any] | None
    lists: I32 | None = None


def joined(parts: Sequence[Encoded]) -> Encoded:
    """The parts, at least one, one after the other."""
    columns: Any = (None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True))
    return Encoded(*columns)


class Coding:
    """Codes of the vectors themselves, with what squared distance needs of their norms.

    Args:
        quantizer: of the codes.
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        norm: see :func:`resolve_norm`.

    Attributes:
        length: under cosine, the length that codes are chosen to have; None until :meth:`learn_length` or the first
            vectors, and for codes whose lengths are as they come.
        share: under cosine, in place of a length, the part of 1 − ‖x̂‖² that is added to ⟨q, x̂⟩ (see
            :func:`~annvq.indexes.lost.learned_share`), where ‖x̂‖² is a sum of table entries and that finds more; codes
            are those nearest to the vectors then.
        any_length: whether lengths are as they come: those of files before version 6, and of codes that are the first
            stages of longer ones.
    """

    residual: bool = False
    """Whether codes are of what coarse centroids leave over."""

    def __init__(self, quantizer: Coder, metric: str, norm: Norm) -> None:
        self.quantizer, self.metric = quantizer, metric
        self.norm = resolve_norm(norm, quantizer, metric, residual=self.residual)
        self.length: Length | None = None
        self.share: float | None = None
        self._kept_squares: tuple[F32, float, F32] | None = None  # of entries, a share, and a share of them
        self.any_length = metric != "cosine"

    # -- codes ---------------------------------------------------------------------------------------------------

    @property
    def centres(self) -> F32 | None:
        """What codes are relative to, one vector for each list, (lists, d), or None where it is zero."""
        return None

    def targets(self, rows: F32) -> tuple[I32 | None, F32]:
        """The list of each row (n,), None where there is but one, and what its code is to stand for, (n, d)."""
        return None, rows

    def encode(self, rows: F32) -> Encoded:
        """What is stored of rows."""
        lists, targets = self.targets(rows)
        if self._unlearned:
            self.length = expected_length(self.quantizer.scan_view().books(), self.centres)
        minded = self._minded
        # (With its norm in float32 a code is chosen for itself.)
        centres = None if minded is None or self.norm == "float32" else self._centres_of(lists)
        return self.encoded_as(targets, self.quantizer.encode_rows(targets, minded, centres), lists)

    @property
    def _unlearned(self) -> bool:
        """Whether neither a length nor a share is known where one must be."""
        return not self.any_length and self.length is None and self.share is None

    @property
    def _minded(self) -> NormTerm | Length | None:
        """What codes are chosen with in mind."""
        return self.term if self.any_length else self.length

    def _centres_of(self, lists: I32 | None) -> F32 | None:
        """What codes in these lists (n,) are relative to, (n, d)."""
        centres = self.centres
        return None if centres is None or lists is None else centres[lists]

    def encoded_as(self, targets: F32, codes: Codes, lists: I32 | None) -> Encoded:
        """What is stored of vectors in these lists with these codes, which stand for ``targets``."""
        term = self.term
        return Encoded(codes, None if term is None else self._kept(term, targets, codes, lists), lists)

    def decode(self, codes: Codes, lists: I32 | None) -> F32:
        """The vectors (n, d) that codes in these lists stand for."""
        return self.decode_with_errors(codes, lists)[0]

    def decode_with_errors(self, codes: Codes, lists: I32 | None) -> tuple[F32, F32 | None]:
        """:meth:`decode`, and the squared errors (n,) that are expected of such codes, where that is known."""
        return self.quantizer.decode_with_errors(codes)

    # -- lengths -------------------------------------------------------------------------------------------------

    def learn_length(self, targets: F32, lists: I32 | None, seed: int) -> None:
        """Take the length that codes of ``targets`` (n, d) in these lists (n,) have, or a share of what they leave over
        (:attr:`share`), where neither is known.

        Raises:
            ValueError: there are no targets.
        """
        if not self._unlearned:
            return
        if not len(targets):
            raise ValueError("x must have at least one row to learn the length of codes from, got none")
        order = np.random.default_rng(seed).permutation(len(targets))[:LENGTH_ROWS]
        some = np.sort(order)
        rows = np.ascontiguousarray(targets[some])
        xhat = self._scored(self.quantizer.encode_rows(rows))
        if (centres := self._centres_of(None if lists is None else lists[some])) is not None:
            xhat = xhat + centres
        self.length = _bounded_length(float(np.sqrt(squared_norms(xhat)).mean(dtype=np.float64)))
        if self.residual or len(rows) < ASKING or self.quantizer.scan_view().squares() is None:
            return
        asking = np.isin(some, order[:HELD_OUT])
        first = np.argsort(~asking, kind="stable")
        self.share = self._share_if_better(rows[first], xhat[first], int(asking.sum()))
        if self.share is not None:
            self.length = None

    def _share_if_better(self, rows: F32, xhat: F32, asking: int) -> float | None:
        """The share that is learned from rows and their x̂ (n, d), of which the first, so many, are queries for the
        others, where it finds at least as much as the length does (:func:`~annvq.indexes.lost.worth`); else None."""
        queries = rows[:asking]
        true = nearest(queries, rows, TOP, "cosine", others=True)
        share = learned_share(queries, rows, xhat, true[:, :NEAR_FEW])
        found = worth(true, nearest(*with_lost(queries, xhat, share), TOP, others=True))
        of_length = self._scored(self.quantizer.encode_rows(rows, self.length))
        return share if found >= worth(true, nearest(queries, of_length, TOP, others=True)) else None

    def _scored(self, codes: Codes) -> F32:
        """What tables score, (n, d), of codes (n, M)."""
        xhat: F32 = self.quantizer.scan_view().decode_rows(codes)
        return xhat

    def per_length(self, scores: F32) -> F32:
        """Inner products with parts of x̂ as parts of the cosine."""
        return scores if self.length is None else scores / np.float32(self.length.value)

    def length_to_stored(self) -> dict[str, Any]:
        """Config of a file: of the length or the share."""
        held = {"length": self.length and self.length.value, "error_share": self.share}
        return {name: value for name, value in held.items() if value is not None}

    def restore_length(self, config: Mapping[str, Any], stored: int) -> None:
        """Take the length or share of :meth:`length_to_stored`; where none was chosen for ``stored`` vectors, none is
        now.

        Raises:
            ValueError: no length, no share, both, or a share of codes whose ‖x̂‖² is not a sum of table entries.
        """
        value = config.get("length")
        if value is not None and (not isinstance(value, float) or not 0 < value <= 1 or self.metric != "cosine"):
            raise ValueError(f"its length must be a number in (0, 1] under cosine, got {value!r}")
        # (Of residual codes under l2 this key is their norm byte's.)
        share = None if self.residual else stored_share(config.get("error_share"), self.metric)
        if share is not None and (value is not None or self.quantizer.scan_view().squares() is None):
            raise ValueError("its error_share is for codes without a length, of codebooks over dimensions of their own")
        self.length, self.share = None if value is None else Length(value), share
        self.any_length = self.any_length or (value is None and share is None and stored > 0)

    # -- norms ---------------------------------------------------------------------------------------------------

    @property
    def term(self) -> NormTerm | None:
        """What is stored beside codes, or None.

        Raises:
            NotFittedError: it was not learned.
        """
        if self.norm is None:
            return None
        view = self.quantizer.scan_view()
        return NormTerm.exact(view.sizes) if self.norm == "float32" else view.require_norm_term('norm="uint8"')

    def _kept(self, term: NormTerm, targets: F32, codes: Codes, lists: I32 | None) -> Any:
        """What ``term`` stores beside codes, which stand for ``targets``."""
        return self.quantizer.scan_view().keep(term, targets, codes)

    def norm_levels(self) -> F32 | None:
        """The values (256,) that stored uint8 norms stand for, or None where none are stored."""
        term = self.term
        return None if term is None else term.levels

    # -- tables --------------------------------------------------------------------------------------------------

    def tables(self, queries: F32) -> tuple[LazyTables, F32, F32 | None]:
        """Tables of queries as the stored norms want them, biases (nq,), and :meth:`norm_levels`."""
        view = self.quantizer.scan_view()
        if self.share is not None:  # 1 − ⟨q, x̂⟩ − share·(1 − ‖x̂‖²)
            (luts, bias), squares = view.tables_and_squares(queries, self.metric)
            return luts.plus(self._share_of(squares, self.share)), bias - np.float32(self.share), None
        luts, bias = view.lazy_tables(queries, self.metric)
        if self.length is not None:
            luts = luts.scaled(1 / self.length.value)
            if len(bias) != 1 or bias.item() != 1:  # as it is for single queries, which feel three operations more
                bias = 1 + self.per_length(bias - 1)
        return self._with_term(luts, bias)

    def _share_of(self, squares: F32, share: float) -> F32:
        """A share of what entries add to ‖x̂‖² (ΣK,), as (M, K)."""
        kept = self._kept_squares
        if kept is None or kept[0] is not squares or kept[1] != share:  # (the same array for as long as they hold)
            term = NormTerm.free(self.quantizer.sizes, squares * np.float32(share))
            self._kept_squares = kept = squares, share, term.table_offsets()
        return kept[2]

    def _with_term(self, luts: LazyTables, bias: F32) -> tuple[LazyTables, F32, F32 | None]:
        """Tables with what the norm byte leaves to them, biases, and the byte's levels."""
        term = self.term
        if term is None or term.levels is None:
            return luts, bias, None
        return luts.plus(term.table_offsets()), bias, term.levels

    def fingerprint(self) -> tuple[Any, ...]:
        """What was trained beside the quantizer, to compare."""
        return self.residual, self.length, self.share


def expected_length(books: Codebooks, centres: F32 | None) -> Length:
    """The length of x̂ if entries of codebooks came equally often and independently, beside centres (lists, d)."""
    squared = float(np.square(books.centre, dtype=np.float64).sum()) + sum(books.energies)
    if centres is not None:
        squared += float(squared_norms(centres).mean(dtype=np.float64))
    return _bounded_length(squared**0.5)


def _bounded_length(value: float) -> Length:
    """A length of x̂ that vectors of length one can have, whatever the codebooks were learned from."""
    return Length(min(max(value, 0.1), 1.0))


def resolve_norm(norm: Norm, quantizer: Coder, metric: str, *, residual: bool = False) -> Norm:
    """The norm that is stored: ``"uint8"``, ``"float32"`` or None.

    ``"auto"`` stores none where none is needed (product and norm-free codes, ip, cosine) and one byte otherwise. Codes
    of ``residual``s, what coarse centroids leave over, need one under l2 whatever they are.

    Raises:
        ValueError: an unknown norm; None for L2 on codes that need one; a norm where none is used.
    """
    if norm not in ("auto", "uint8", "float32", None):
        raise ValueError(f"norm must be 'auto', 'uint8', 'float32' or None, got {norm!r}")
    needed = (quantizer.needs_norm or residual) and metric == "l2"
    if norm == "auto":
        return "uint8" if needed else None
    if needed and norm is None:
        raise ValueError(
            f"norm must not be None for metric 'l2' on {type(quantizer).__name__} codes: "
            f"squared distance needs ‖x̂‖² ('uint8' stores it in one byte; codes of a quantizer made with "
            f"norm_free=True need none)"
        )
    if not needed and norm is not None:
        raise ValueError(
            f"norm={norm!r} would never be read: metric {metric!r} on {type(quantizer).__name__} codes needs none"
        )
    return norm
