"""Distance tables of codebooks, and the norms that squared distance needs beside them."""

from typing import Any, NamedTuple

import numpy as np

from annvq.arrays import check_vectors, chunks, like, normalized, to_numpy
from annvq.codebooks import Codebooks
from annvq.errors import NotFittedError
from annvq.kernels import LazyTables, squared_norms
from annvq.norms import NORM_LEVELS, TENSORS, NormTerm
from annvq.quantizers.coder import CodebookCoder
from annvq.threads import get_num_threads
from annvq.training.learn.norms import expected_offsets, fit_norm_byte
from annvq.types import F32, Array, Codes, Self

METRICS = ("l2", "ip", "cosine")
NORM_ROWS = 1 << 15  # vectors that are enough to learn how a norm is kept


class Tables(NamedTuple):
    """Distance tables of a batch of queries; lower scores are nearer.

    ``score(q, i) = ((luts[q, 0, c[0]] + luts[q, 1, c[1]]) + … + luts[q, M−1, c[M−1]]) + norm[i] + bias[q]``
    with ``c = codes[i]``, in float32 and in that order.
    """

    luts: F32  # (nq, M, K), padded with +inf where a codebook has fewer than K entries
    bias: F32  # (nq,)


def check_metric(metric: str) -> str:
    """``metric`` if it is one of :data:`METRICS`, else ValueError."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return metric


class TableCoder(CodebookCoder):
    """A coder with codebooks, so that distances are sums of table entries."""

    centred: Any
    """Whether norms are about :attr:`origin`, so that float32 holds them however far from zero the data lie; those of
    files before version 3, and of FAISS, are about zero."""

    def scan_view(self) -> "TableCoder":
        return self

    def _encode_rows(self, x: F32, term: NormTerm | None, centres: F32 | None) -> Codes:
        codes = self._own_codes(x)
        if term is None or term.levels is None or not term.weighed or not self._searches_natively:
            return codes
        # The norm is that of x̂, so codes are improved where x̂ is: among entries over all d dimensions.
        books, moved = self._about_origin(x) if centres is None else (self._now().about(False), x)
        encoder = books.whole.additive_encoder
        if not encoder.has_gram:
            return codes
        return encoder.norm_search(
            moved, codes, term.offsets, term.levels, error_share=term.error_share, centres=centres
        )

    # -- norms -----------------------------------------------------------------------------------------------------

    @property
    def _term_bits(self) -> int | None:
        """Bits of the norm term that these codes learn: 8, 0 for norm-free ones, None where tables alone do."""
        return 8 if self.needs_norm else None

    def _register_term(self) -> None:
        """Declare the norm term, by the names that files give its parts."""
        if self._term_bits is None:
            return
        shapes = {"norm_levels": (NORM_LEVELS,), "norm_offsets": (self.offsets[-1],)}
        for name in TENSORS[self._term_bits]:
            self._declare(name, "bool" if name == "weighs_norm" else "float32", shapes.get(name, ()))
        self._declare("centred", "bool", ())

    @property
    def norm_term(self) -> NormTerm | None:
        """What an index keeps beside these codes under l2, or, of norm-free codes, what the tables carry in its place;
        None where tables alone give the distance (product codes). Learned by ``fit`` or :meth:`fit_norms`."""
        if self._term_bits is None:
            return None
        tensors = {name: self._array(name) for name in TENSORS[self._term_bits]}
        return NormTerm.from_tensors(self.sizes, tensors)

    def take_norm_term(self, term: NormTerm, *, centred: bool | None = None) -> Self:
        """Keep norms as ``term`` says from now on.

        Args:
            centred: whether they are about :attr:`origin`, or about zero; None: as they were.

        Raises:
            ValueError: the term is of other codebooks, or of other bits than these codes have.
        """
        if term.sizes != self.sizes or term.bits != self._term_bits:
            raise ValueError(
                f"term must be of {self._term_bits} bits for codebooks of {self.sizes} entries, "
                f"got {term.bits} bits for {term.sizes}"
            )
        for name, value in term.tensors().items():
            self._put(name, value)
        if centred is not None:
            self._put("centred", centred)
        return self

    def forget_norms(self) -> None:
        """Forget how norms are kept, as codebooks have changed."""
        if self._term_bits is None:
            return
        for name in TENSORS[self._term_bits]:
            self._put(name, np.nan if name == "norm_levels" else 0)
        self._put("centred", True)

    def require_norm_term(self, what: str) -> NormTerm:
        """The byte or norm-free term of these codes; ``what`` is what needs it.

        Raises:
            ValueError: these codes need no norm (product codes).
            NotFittedError: it was never learned (``fit`` or ``fit_norms``).
        """
        term = self.norm_term
        if term is None:
            raise ValueError(f"{what} is for codes that need a norm, and {type(self).__name__} codes do not")
        if not term.learned:
            learned = "offsets" if term.levels is None else "norm levels"
            raise NotFittedError(f"{what} needs learned {learned}: call fit(x) or fit_norms(x) first")
        return term

    def fit_norms(self, x: Array, *, seed: int = 0, codes: Array | None = None) -> Self:
        """Learn how norms are kept from vectors, as ``fit`` does; for codebooks set by hand. Where a byte's error comes
        near the codes' own, codes will be chosen with it in mind (:class:`~annvq.norms.NormTerm`).

        Args:
            x: (n, d) vectors, n at least 1; at most 32,768 of them are used (50,000 where norms
                follow from codes), a seeded sample.
            codes: (n, M) of x, where these codebooks are a view of a quantizer that encodes otherwise; default: their
                own.
        """
        self.require_fitted("fit_norms")
        if self.needs_norm:
            sample, given = self._norm_sample(x, codes, NORM_ROWS, seed)
            coded = self.encode_rows(sample) if given is None else given
            start = expected_offsets(coded, self.norm_books().entries, self.sizes)
            norms, errors = self.norms_and_errors(sample, coded)
            self.take_norm_term(fit_norm_byte(coded, norms, self.sizes, start=start, code_error=errors))
        return self

    def _norm_sample(self, x: Array, codes: Array | None, count: int, seed: int) -> tuple[F32, Codes | None]:
        """At most ``count`` rows of ``x`` and their given codes, a seeded sample; ValueError where there are none."""
        x = check_vectors(x, self.dim, "x")
        n = int(x.shape[0])
        if n == 0:
            raise ValueError("x must have at least one row to learn norms from, got none")
        given = None if codes is None else self.check_codes(codes)
        if given is not None and len(given) != n:
            raise ValueError(f"codes must be of the {n} rows of x, got {len(given)}")
        rows = np.sort(np.random.default_rng(seed).permutation(n)[:count])
        sample = to_numpy(x if len(rows) == n else x[rows], self.dim)
        return sample, None if given is None else given[rows]

    def norms(self, codes: Array) -> Any:
        """What squared distance needs beside the tables, (n,) float32: ‖x̂ − o‖² of each code, with o for
        :attr:`origin`; None where tables alone give the distance (product codes)."""
        if not self.needs_norm:
            return None
        self.require_fitted("norms")
        return like(self._norms(self.check_codes(codes)), codes)

    def _norms(self, codes: Codes) -> F32:
        return _norms_of(self.norm_books(), codes)

    def norms_and_errors(self, x: F32, codes: Codes) -> tuple[F32, F32]:
        """‖x̂ − o‖² and ‖x − x̂‖² of checked rows (n, d) and their codes (n, M), (n,) each."""
        now, errors = self._now(), np.empty(len(codes), np.float32)
        for start, stop in chunks(len(codes), self.dim):
            errors[start:stop] = squared_norms(x[start:stop] - now.decode(codes[start:stop]))
        return _norms_of(now.about(self.about_origin), codes), errors

    def keep(self, term: NormTerm, x: F32, codes: Codes) -> Any:
        """What ``term`` stores beside codes (n, M) of checked rows (n, d), (n,)."""
        norms, errors = self.norms_and_errors(x, codes) if term.error_share else (self._norms(codes), None)
        return term.keep(codes, norms, errors)

    @property
    def origin(self) -> F32:
        """What norms are about, (d,) float32: the sum of the codebooks' centres (see :attr:`centred`).

        With o for it, ‖q − x̂‖² = ‖q − o‖² − 2⟨q − o, x̂ − o⟩ + ‖x̂ − o‖²: small terms, where those about zero are large
        and cancel on data far from zero.
        """
        return self._now().centre if self.about_origin else np.zeros(self.dim, np.float32)

    @property
    def about_origin(self) -> bool:
        """Whether norms are about :attr:`origin`, whatever it is; False for codes that keep none."""
        return bool(getattr(self, "centred", False))

    def norm_books(self) -> Codebooks:
        """Codebooks over all d dimensions whose sums are x̂ − :attr:`origin`."""
        books: Codebooks = self._now().about(self.about_origin).whole
        return books

    def _about_origin(self, x: F32) -> tuple[Codebooks, F32]:
        """Codebooks whose sums are x̂ − :attr:`origin`, and rows (n, d) less it."""
        now, origin = self._now(), self.about_origin
        return now.about(origin), x - now.centre if origin else x

    def squares(self) -> F32 | None:
        """(ΣK,): what each entry adds to ‖x̂‖², codebook after codebook; None where that is no sum over codebooks, as it
        is of product codes."""
        return self.books().squares

    # -- tables ----------------------------------------------------------------------------------------------------

    def tables(self, queries: Array, metric: str = "l2") -> Tables:
        """Distance tables of queries against the codebooks.

        Args:
            queries: (nq, d) vectors.
            metric: ``"l2"`` squared Euclidean distance, ``"ip"`` −⟨q, x̂⟩, ``"cosine"`` 1 − ⟨q/‖q‖, x̂⟩.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: wrong kind, dtype, shape, NaN or infinity, an unknown metric, a zero query under
                cosine, or queries so long that tables overflow.
        """
        self.require_fitted("tables")
        check_metric(metric)
        q = to_numpy(queries, self.dim, "queries", rows="nq")
        luts, bias = self.lazy_tables(normalized(q, "queries") if metric == "cosine" else q, metric)
        built = luts.build(get_num_threads())
        if not built.min(initial=0.0) > -np.inf:
            raise ValueError("queries must be shorter: products with codebook entries overflow float32")
        return Tables(built, bias)

    def lazy_tables(self, queries: F32, metric: str) -> tuple[LazyTables, F32]:
        """What :meth:`tables` gives of checked queries (of length one under cosine), its entries not built yet: a scan
        builds them as it goes, which is faster."""
        if metric == "l2" and self.sums:
            books = self.books()
            if self.about_origin:
                queries, books = queries - books.centre, books.centred
            return books.tables(queries, squared=False, scale=-2.0), squared_norms(queries)
        bias = np.ones(len(queries), np.float32) if metric == "cosine" else np.zeros(len(queries), np.float32)
        return self.books().tables(queries, squared=metric == "l2", scale=-1.0), bias

    def tables_and_squares(self, queries: F32, metric: str) -> tuple[tuple[LazyTables, F32], F32 | None]:
        """:meth:`lazy_tables` and :meth:`squares`, of the same codebooks."""
        return self.lazy_tables(queries, metric), self.squares()


def _norms_of(books: Codebooks, codes: Codes) -> F32:
    """Squared lengths of the sums of codes (n, M), (n,)."""
    out = np.empty(len(codes), dtype=np.float32)
    for start, stop in chunks(len(codes), books.dim):
        out[start:stop] = squared_norms(books.decode(codes[start:stop]))
    return out
