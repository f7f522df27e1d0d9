"""Searching, re-ranking, and the memory of an index."""

from collections.abc import Sequence
from dataclasses import dataclass

from annvq.complexity.arguments import METRICS, bits_of, checked, norm_bits_of, one_of, positive, widths_of
from annvq.complexity.counts import OperationCounts, distance, partial_sort


@dataclass(frozen=True)
class SearchCosts:
    """What exact ADC search costs: once per query, and once per vector scanned.

    ``tables`` counts the building of one query's look-up tables and ``table_bytes`` is their size
    (float32). ``lookups`` and ``additions`` are per scanned vector; ``bits`` is what is stored and read per
    vector (code and norm), ``bytes_read`` the same in bytes.
    """

    tables: OperationCounts
    table_bytes: int
    lookups: int
    additions: int
    bits: int

    @property
    def bytes_read(self) -> float:
        """Bytes read per scanned vector when codes are packed to their bits."""
        return self.bits / 8


@dataclass(frozen=True)
class Memory:
    """Bytes an index holds: ``codes``, ``norms`` and ``ids`` grow with n, ``codebooks`` do not."""

    codes: int
    norms: int
    codebooks: int
    ids: int

    @property
    def total(self) -> int:
        return self.codes + self.norms + self.codebooks + self.ids


def tables(kind: str, *, dim: int, M: int, nbits: int | Sequence[int] = 8, metric: str = "l2") -> OperationCounts:
    """Operations that build one query's look-up tables.

    Product codes compare each part of the query with its own codebook, ``K·d`` work in all; residual and
    additive codes compare the whole query with every entry, ``M·K·d``, and for ``l2`` add the query's own
    squared norm.
    """
    sizes, _ = checked(kind, dim, M, nbits, None)
    one_of("metric", metric, METRICS)
    numbers = sum(K * width for K, width in zip(sizes, widths_of(kind, dim, M), strict=True))
    products = OperationCounts(additions=numbers - sum(sizes), multiplications=numbers)
    # Once per query: its squared norm, and its scaling (by -2 for l2, to unit length for cosine).
    query = OperationCounts(additions=dim - 1, multiplications=2 * dim)
    if metric == "ip":
        return products
    if metric == "l2" and kind == "product":
        return OperationCounts(additions=2 * numbers - sum(sizes), multiplications=numbers)
    return products + query


def search(
    kind: str,
    *,
    dim: int,
    M: int,
    nbits: int | Sequence[int] = 8,
    metric: str = "l2",
    norm: str | None = "auto",
) -> SearchCosts:
    """What an exhaustive scan costs per query and per vector.

    Args:
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``.
        norm: the term stored per vector: ``"auto"`` (``"uint8"`` for l2 on residual and additive codes, else none),
            ``"uint8"``, ``"float32"`` or ``None``.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """
    sizes, _ = checked(kind, dim, M, nbits, None)
    norm_bits = norm_bits_of(kind, metric, norm)
    return SearchCosts(
        tables=tables(kind, dim=dim, M=M, nbits=nbits, metric=metric),
        table_bytes=4 * M * max(sizes),
        lookups=M + (norm_bits == 8),
        additions=M - 1 + (norm_bits > 0) + 1,
        bits=sum(bits_of(M, nbits)) + norm_bits,
    )


def rerank(*, dim: int, shortlist: int, k: int, M: int = 0) -> OperationCounts:
    """Operations that re-rank ``shortlist`` results of one query by exact distance and keep the best ``k``.

    ``M`` is the number of codebook entries summed to rebuild each vector first: 0 for raw vectors, 1 for
    product codes.
    """
    positive("dim", dim)
    positive("shortlist", shortlist)
    positive("k", k)
    if k > shortlist:
        raise ValueError(f"k must not exceed shortlist={shortlist}, got {k}")
    if isinstance(M, bool) or not isinstance(M, int) or M < 0:
        raise ValueError(f"M must be a non-negative integer, got {M!r}")
    rebuild = OperationCounts(additions=max(M - 1, 0) * dim, moves=dim if M else 0)
    return shortlist * rebuild + distance(shortlist, dim) + partial_sort(shortlist, k)


def memory(
    kind: str,
    *,
    dim: int,
    M: int,
    nbits: int | Sequence[int] = 8,
    n: int,
    metric: str = "l2",
    norm: str | None = "auto",
    ids: bool = False,
) -> Memory:
    """Bytes of an index over ``n`` vectors, packed to its bits; ``ids`` adds eight bytes a vector."""
    sizes, _ = checked(kind, dim, M, nbits, None)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"n must be a non-negative integer, got {n!r}")
    norm_bits = norm_bits_of(kind, metric, norm)
    entries = 4 * sum(K * width for K, width in zip(sizes, widths_of(kind, dim, M), strict=True))
    return Memory(
        codes=(n * sum(bits_of(M, nbits)) + 7) // 8,
        norms=n * norm_bits // 8,
        codebooks=entries + (4 * 256 if norm_bits == 8 else 0),
        ids=8 * n if ids else 0,
    )
