"""Codebooks as arrays, with what is made of them once: centres, table builders, encoders."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from annvq.forks import made_once
from annvq.kernels import LazyTables, _native, book_centres, squared_norms
from annvq.kernels.encode import AdditiveEncoder, ProductEncoder, code_dtype, decode_additive
from annvq.threads import get_num_threads
from annvq.types import F32, I64, Codes


class Group(NamedTuple):
    """Codebooks over the same dimensions."""

    columns: slice  # of codes
    dims: slice  # of vectors
    books: "Codebooks"  # over these dimensions alone


@dataclass(frozen=True, eq=False)
class Codebooks:
    """M codebooks, whose entries are summed (each over its own dimensions) to vectors.

    A value: nobody changes the entries, so what is made of them holds as long as they do.

    Args:
        entries: (ΣK, width) float32, codebook after codebook; zero where a codebook has fewer dimensions than the
            widest, whose next dimensions are another's.
        sizes: K_m, entries of each of the M codebooks.
        starts: first dimension of the vector that each codebook covers.
        dim: d of the vectors.
    """

    entries: F32
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    dim: int

    @property
    def width(self) -> int:
        """Dimensions of an entry of the widest codebook."""
        return self.entries.shape[1]

    @made_once
    def widths(self) -> tuple[int, ...]:
        """(M,) dimensions of each codebook: up to the next one that begins elsewhere."""
        ends = [*(start for start in sorted(set(self.starts)) if start), self.dim]
        return tuple(ends[bisect.bisect_right(ends, start)] - start for start in self.starts)

    @property
    def space_widths(self) -> list[int]:
        """Dimensions of each sub-space, in their order."""
        return [width for _, width in sorted(set(zip(self.starts, self.widths, strict=True)))]

    @made_once
    def offsets(self) -> tuple[int, ...]:
        """(M + 1,) where each codebook begins among the entries, and where the last one ends."""
        return (0, *itertools.accumulate(self.sizes))

    def split(self) -> list[F32]:
        """M views (K_m, width)."""
        return np.split(self.entries, self.offsets[1:-1])

    @made_once
    def groups(self) -> tuple[Group, ...]:
        """Codebooks that share dimensions, group after group: one for sums of entries, one for each of product codes,
        and several of several for products of additive codes."""
        changes = [m for m in range(1, len(self.sizes)) if self.starts[m] != self.starts[m - 1]]
        found = []
        for a, b in itertools.pairwise([0, *changes, len(self.sizes)]):
            start, width = self.starts[a], self.widths[a]
            entries = np.ascontiguousarray(self.entries[self.offsets[a] : self.offsets[b], :width])
            books = Codebooks(entries, self.sizes[a:b], (0,) * (b - a), width)
            found.append(Group(slice(a, b), slice(start, start + width), books))
        return tuple(found)

    # -- where they lie --------------------------------------------------------------------------------------------

    @made_once
    def centres(self) -> F32:
        """(M, width): the mean of each codebook, without entries that code outliers."""
        return book_centres(self.entries, self.sizes)

    @made_once
    def centred(self) -> "Codebooks":
        """These less their centres."""
        return self._with(self.entries - np.repeat(self.centres, self.sizes, axis=0))

    @made_once
    def centre(self) -> F32:
        """(d,): the sum of the centres."""
        if self.width == self.dim:
            total: F32 = self.centres.sum(axis=0)
            return total
        out = np.zeros(self.dim, np.float32)
        for start, centre in zip(self.starts, self.centres, strict=True):
            out[start : start + self.width] += centre
        return out

    @made_once
    def energies(self) -> tuple[float, ...]:
        """Variance of each codebook's entries, summed over the dimensions."""
        return tuple(float(book.var(axis=0, dtype=np.float64).sum()) for book in self.split())

    @made_once
    def squares(self) -> F32 | None:
        """(ΣK,): what each entry adds to ‖x̂‖²; None where that is no sum of such numbers, as codebooks share
        dimensions."""
        return self.squares_after(np.zeros(self.dim, np.float32))

    def squares_after(self, shift: F32) -> F32 | None:
        """(ΣK,): what each entry adds to ‖x̂ + shift‖², ``shift`` (d,); None as for :attr:`squares`."""
        if any(len(group.books.sizes) > 1 for group in self.groups):
            return None
        return np.concatenate([squared_norms(group.books.entries + shift[group.dims]) for group in self.groups])

    @made_once
    def whole(self) -> "Codebooks":
        """The same codebooks over all d dimensions, zero where an entry has no part."""
        if self.width == self.dim:
            return self
        entries = np.zeros((len(self.entries), self.dim), np.float32)
        for start, (first, last) in zip(self.starts, itertools.pairwise(self.offsets), strict=True):
            entries[first:last, start : start + self.width] = self.entries[first:last]
        return Codebooks(entries, self.sizes, (0,) * len(self.sizes), self.dim)

    def mapped(self, by: Callable[[F32], F32]) -> "Codebooks":
        """Codebooks over all d dimensions whose entries (ΣK, d) a linear map has changed."""
        return self.whole._with(by(self.whole.entries))

    def about(self, origin: bool) -> "Codebooks":
        """Codebooks whose sums are vectors less :attr:`centre`, or, not about the origin, the vectors themselves."""
        return self.centred if origin else self

    def _with(self, entries: F32) -> "Codebooks":
        return Codebooks(entries, self.sizes, self.starts, self.dim)

    # -- vectors and codes -----------------------------------------------------------------------------------------

    def decode(self, codes: Codes) -> F32:
        """Vectors (n, d) of codes (n, M), entries added in codebook order."""
        if self.width == self.dim:
            return decode_additive(codes, self.entries, self.sizes)
        out = np.zeros((len(codes), self.dim), np.float32)
        for m, (first, start) in enumerate(zip(self.offsets, self.starts, strict=False)):
            out[:, start : start + self.width] += self.entries[first + codes[:, m].astype(np.int64)]
        return out

    def search(self, x: F32, encode: Callable[["Codebooks", F32, slice], Codes]) -> Codes:
        """Codes (n, M) of vectors (n, d), group by group.

        Args:
            encode: of a group's codebooks, its part of the vectors, and the columns of codes that are its own.
        """
        if len(self.groups) == 1:
            return encode(self, x, slice(0, len(self.sizes)))
        codes = np.empty((len(x), len(self.sizes)), code_dtype(self.sizes))
        for columns, dims, books in self.groups:
            codes[:, columns] = encode(books, np.ascontiguousarray(x[:, dims]), columns)
        return codes

    @made_once
    def spread(self) -> I64 | None:
        """(d,): the column of each dimension where sub-spaces of unequal width share them, and each has as many
        columns as the widest; None where columns are dimensions."""
        widths = self.space_widths
        shared = sum(widths) == self.dim and max(widths) == self.width
        if not shared or min(widths) == self.width:
            return None
        return np.concatenate([np.arange(width) + at * self.width for at, width in enumerate(widths)])

    def _laid_out(self, x: F32) -> F32:
        """Vectors (n, d) in columns as :attr:`spread` says, zero where a sub-space has fewer."""
        if self.spread is None:
            return x
        out = np.zeros((len(x), len(self._places) * self.width), np.float32)
        out[:, self.spread] = x
        return out

    @made_once
    def _places(self) -> dict[int, int]:
        """First columns, as :meth:`_laid_out` has them, by first dimensions."""
        return {start: at * self.width for at, start in enumerate(sorted(set(self.starts)))}

    @property
    def _columns(self) -> list[int]:
        """(M,) first column of each codebook, as :meth:`_laid_out` has them."""
        return list(self.starts) if self.spread is None else [self._places[start] for start in self.starts]

    def nearest(self, x: F32) -> Codes:
        """The nearest entry of every codebook to its part of vectors (n, d): product codes (n, M)."""
        return self._product_encoder.encode(self._laid_out(x))

    @made_once
    def _product_encoder(self) -> ProductEncoder:
        return ProductEncoder(self.entries, self.sizes, self._columns)

    @made_once
    def additive_encoder(self) -> AdditiveEncoder:
        """Searches for sums of entries over all d dimensions. Its Gram matrix takes 4·(ΣK)² bytes, at most 256 MiB."""
        return AdditiveEncoder(self.whole.entries, self.sizes)

    # -- tables ----------------------------------------------------------------------------------------------------

    @made_once
    def table_builder(self) -> _native.TableBuilder:
        """Builds distance tables of queries."""
        places = np.asarray(self.sizes, np.int32), np.asarray(self._columns, np.int32)
        return _native.TableBuilder(self.entries, *places)

    def tables(self, queries: F32, *, squared: bool, scale: float = 1.0) -> LazyTables:
        """Tables (nq, M, K) of queries (nq, d); see :class:`~annvq.kernels.LazyTables`."""
        return LazyTables(self.table_builder, self._laid_out(queries), squared, scale)


class KeptCodebooks:
    """The :class:`Codebooks` of a parameter that training may change in place: the same object for as long as the
    values stay the same, bit for bit. They are compared at every call, as values can change in more ways than PyTorch
    counts.

    A copy (or unpickling) of one starts empty.
    """

    def __init__(self) -> None:
        self._books: Codebooks | None = None
        self._seen: tuple[Any, int, F32] | None = None  # a tensor, where its data lie, and a view of them

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptCodebooks, ()

    def of(self, weight: Any, sizes: Sequence[int], starts: Sequence[int], dim: int) -> Codebooks:
        """The codebooks that lie in a torch tensor (ΣK, width) now."""
        entries, books = self._view(weight), self._books
        if (
            books is None
            or (books.sizes is not sizes and books.sizes != sizes)  # as a rule they are the same tuples
            or (books.starts is not starts and books.starts != starts)
            or not books.table_builder.holds(entries)
        ):
            self._books = books = Codebooks(entries.copy(), tuple(sizes), tuple(starts), dim)
        return books

    def _view(self, weight: Any) -> F32:
        """A torch tensor as an array, over the same memory where it can be."""
        seen = self._seen
        if seen is None or seen[0] is not weight or seen[1] != weight.data_ptr():
            entries = np.ascontiguousarray(weight.detach().cpu().numpy(), np.float32)
            if entries.ctypes.data != weight.data_ptr():  # a copy: it would not follow the tensor
                return entries
            # The view keeps the memory, so that its address is no other tensor's.
            self._seen = seen = (weight, weight.data_ptr(), entries)
        return seen[2]


class RowProducts:
    """``x @ rows.T`` of any x (n, d) and the same rows (r, d), which nobody changes, in float32: the same for a row of
    x in every batch, with any number of threads."""

    def __init__(self, rows: Any) -> None:
        self.rows = np.ascontiguousarray(rows, dtype=np.float32)
        self._books = Codebooks(self.rows, (len(self.rows),), (0,), self.rows.shape[1])

    def __call__(self, x: Any) -> F32:
        tables = self._books.tables(np.ascontiguousarray(x, dtype=np.float32), squared=False)
        return tables.build(get_num_threads())[:, 0]

    def holds(self, rows: F32) -> bool:
        """Whether these are the rows, bit for bit."""
        return bool(self._books.table_builder.holds(rows))


def row_products(x: Any, rows: Any) -> F32:
    """``x @ rows.T``, see :class:`RowProducts`."""
    return RowProducts(rows)(x)
