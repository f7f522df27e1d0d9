"""Operation counts: what encoding, searching, re-ranking and training cost, counted rather than timed.

Two conventions count the encoding of one vector:

``"full"`` (the default)
    every one of the ``M`` stages, no more candidates kept than there are, codebooks of unequal size and
    beam search for residual codes.
``"published"``
    the count of Vali and Bäckström, "Stochastic Optimization of Vector Quantization Methods in Application
    to Speech and Image Processing" (ICASSP 2023), bit for bit, so that figures can be compared with theirs.
    Its product and residual loops run over ``M - 1`` stages, and its sort goes negative where the beam
    exceeds the candidates; neither is mended.

Counts are weighted as the ITU-T software tool library does (G.191) and divided by 1e6: WMOPS. The weights
of single precision are the ones behind the published figures. See ``docs/complexity.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

KINDS: tuple[str, ...] = ("product", "residual", "additive")
CONVENTIONS: tuple[str, ...] = ("full", "published")
METRICS: tuple[str, ...] = ("l2", "ip", "cosine")
NORM_BITS: dict[str | None, int] = {None: 0, "uint8": 8, "float32": 32}

# The beam of the paper's figure 4, used when none is given.
ADDITIVE_BEAM = 16


class Weights(NamedTuple):
    """What one operation of each sort weighs."""

    addition: int
    multiplication: int
    move: int
    branch: int


WEIGHTS: dict[str, Weights] = {"single": Weights(1, 1, 1, 4), "double": Weights(2, 2, 2, 4)}


@dataclass(frozen=True)
class OperationCounts:
    """Additions (subtractions and comparisons among them), multiplications, moves and branches."""

    additions: int = 0
    multiplications: int = 0
    moves: int = 0
    branches: int = 0

    def __add__(self, other: "OperationCounts") -> "OperationCounts":
        return OperationCounts(
            self.additions + other.additions,
            self.multiplications + other.multiplications,
            self.moves + other.moves,
            self.branches + other.branches,
        )

    def __mul__(self, times: int) -> "OperationCounts":
        return OperationCounts(
            self.additions * times, self.multiplications * times, self.moves * times, self.branches * times
        )

    __rmul__ = __mul__

    def wmops(self, precision: str = "single") -> float:
        """Weighted operations in millions.

        Raises:
            ValueError: an unknown ``precision``.
        """
        weights = WEIGHTS[_one_of("precision", precision, tuple(WEIGHTS))]
        total = (
            weights.addition * self.additions
            + weights.multiplication * self.multiplications
            + weights.move * self.moves
            + weights.branch * self.branches
        )
        return total / 1e6


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


# The paper's primitives ------------------------------------------------------------------------------------


def distance(n: int, dim: int, times: int = 1) -> OperationCounts:
    """Squared Euclidean distances from ``times`` vectors to ``n`` entries."""
    return OperationCounts(additions=times * n * (2 * dim - 1), multiplications=times * n * dim)


def argmin(n: int) -> OperationCounts:
    """The least of ``n`` values."""
    return OperationCounts(additions=n - 1, moves=n - 1)


def partial_sort(n: int, keep: int, times: int = 1) -> OperationCounts:
    """The ``keep`` least of ``n`` values by repeated argmin, ``times`` over."""
    steps = times * (keep * (n - 1) - keep * (keep - 1) // 2)
    return OperationCounts(additions=steps, moves=steps)


def mse(pairs: int, dim: int) -> OperationCounts:
    """Mean squared errors of ``pairs`` reconstructions."""
    return OperationCounts(additions=pairs * (2 * dim - 1), multiplications=pairs * (dim + 1))


# Encoding --------------------------------------------------------------------------------------------------


def _product(dim: int, part: int, sizes: Sequence[int]) -> OperationCounts:
    total = OperationCounts(moves=2 * dim)
    for K in sizes:
        total += distance(K, part) + argmin(K) + OperationCounts(moves=part)
    return total


def _residual(dim: int, sizes: Sequence[int], beam: int) -> OperationCounts:
    total, kept = OperationCounts(), 1
    for m, K in enumerate(sizes):
        last = m == len(sizes) - 1
        candidates = kept * K
        total += distance(K, dim, kept)
        kept = 1 if last else min(beam, candidates)
        total += partial_sort(candidates, kept)
        total += OperationCounts(moves=kept * dim, additions=0 if last else kept * dim)
    return total


def _additive(dim: int, sizes: Sequence[int], beam: int, *, clamp: bool) -> OperationCounts:
    M = len(sizes)

    def within(candidates: int) -> int:
        return min(beam, candidates) if clamp else beam

    left = sorted(sizes)
    paths = within(sum(left)) if M > 1 else 1
    total = distance(sum(left), dim) + partial_sort(sum(left), paths) + OperationCounts(moves=paths)
    for i in range(1, M):
        # Unequal sizes: the smallest codebooks are taken first, which is the dearest order.
        entries = sum(left[i:])
        each = within(entries)
        total += OperationCounts(moves=i * paths * dim, additions=i * paths * dim, branches=comb(M, i) - 1) + distance(
            entries, dim, paths
        )
        pairs = paths * each
        total += partial_sort(entries, each, paths) + OperationCounts(
            moves=pairs + pairs * dim, additions=pairs * i * dim
        )
        total += mse(pairs, dim)
        if i == M - 1:
            total += argmin(pairs)
        else:
            paths = within(pairs)
            total += partial_sort(pairs, paths) + OperationCounts(moves=paths)
    return total


def encode_counts(
    kind: str,
    *,
    dim: int,
    M: int,
    nbits: int | Sequence[int] = 8,
    beam: int | None = None,
    convention: str = "full",
) -> OperationCounts:
    """Operations that encode one vector. Arguments and errors as in :func:`wmops`."""
    sizes, width = _checked(kind, dim, M, nbits, beam)
    published = _one_of("convention", convention, CONVENTIONS) == "published"
    if published and len(set(sizes)) > 1:
        raise ValueError(f"nbits must be equal for all codebooks under convention='published', got {nbits!r}")
    if published and kind == "residual" and width != 1:
        raise ValueError(f"beam must be 1 for kind='residual' under convention='published', got {width}")
    if kind == "additive":
        return _additive(dim, sizes, width, clamp=not published)
    stages = sizes[1:] if published else sizes
    if kind == "product":
        return _product(dim, dim // M, stages)
    return _residual(dim, stages, width) + OperationCounts(additions=(M - 1) * dim)


def wmops(
    kind: str,
    *,
    dim: int,
    M: int,
    nbits: int | Sequence[int] = 8,
    beam: int | None = None,
    convention: str = "full",
    precision: str = "single",
) -> float:
    """Cost of encoding one vector, in WMOPS (millions of weighted operations; not a logarithm).

    Args:
        kind: ``"product"``, ``"residual"`` or ``"additive"``. dim: dimension of the vectors; a multiple of
        ``M`` for product codes. M: number of codebooks. nbits: bits per codebook, 1 to 16: one number, or
        one per codebook. beam: beam width of the encoder; ``None`` is 1 for residual and 16 for additive
        codes. Product codes have none. convention: ``"full"`` or ``"published"``, see the head of this
        module. precision: ``"single"`` or ``"double"``: the weights of 32-bit or 64-bit arithmetic.

    Raises:
        ValueError: an argument out of its range, named in the message.
        TypeError: a number that is not an integer.
    """
    return encode_counts(kind, dim=dim, M=M, nbits=nbits, beam=beam, convention=convention).wmops(precision)


def local_search(
    *, dim: int, M: int, nbits: int | Sequence[int] = 8, rounds: int = 16, sweeps: int = 4
) -> OperationCounts:
    """Operations that encode one vector by iterated local search (LSQ, Martinez et al., ECCV 2016).

    Distances of the vector to all entries once, then ``rounds`` × ``sweeps`` passes over the codebooks; a
    pass re-decides each code among its entries from one look-up per other codebook. The look-up tables
    between codebooks belong to the batch, not to the vector, and are not counted. The defaults are FAISS'
    ``encode_ils_iters`` and ``icm_iters``.
    """
    sizes, _ = _checked("additive", dim, M, nbits, None)
    _positive("rounds", rounds)
    _positive("sweeps", sweeps)
    sweep = OperationCounts()
    for K in sizes:
        sweep += OperationCounts(additions=(M - 1) * K) + argmin(K)
    score = OperationCounts(additions=M * dim + 2 * dim - 1, multiplications=dim, branches=1)
    unary = OperationCounts(additions=sum(sizes) * dim, multiplications=sum(sizes) * dim)
    return unary + rounds * (sweeps * sweep + score)


def norm_search(*, dim: int, M: int, nbits: int | Sequence[int] = 8, rounds: int, tried: int = 16) -> OperationCounts:
    """Operations that fit one vector's code to its norm byte, beyond those of encoding it.

    The vector's products with all entries once more, then ``rounds`` pairs of codebooks, each counted as a mean
    pair: entries of both scored against the codes that stay, the ``tried`` best of the first set beside every entry
    of the second. Looking the byte up is left out: it happens for the few candidates that may win. Tables between
    codebooks belong to the batch, as in :func:`local_search`. With one codebook there is nothing to search.
    """
    sizes, _ = _checked("additive", dim, M, nbits, None)
    _positive("rounds", rounds)
    if M == 1:
        return OperationCounts()
    K = round(sum(sizes) / M)
    kept = min(tried, K)
    pair = OperationCounts(additions=2 * (M - 2) * K + 3 * kept * K) + partial_sort(K, kept)
    unary = OperationCounts(additions=sum(sizes) * dim, multiplications=sum(sizes) * dim)
    return unary + rounds * pair


def linear_map(dim_in: int, dim_out: int) -> OperationCounts:
    """A matrix times one vector: what a rotation before a quantizer adds per vector and per query."""
    _positive("dim_in", dim_in)
    _positive("dim_out", dim_out)
    return OperationCounts(additions=dim_out * (dim_in - 1), multiplications=dim_out * dim_in)


# Searching, re-ranking, training, memory -------------------------------------------------------------------


def tables(kind: str, *, dim: int, M: int, nbits: int | Sequence[int] = 8, metric: str = "l2") -> OperationCounts:
    """Operations that build one query's look-up tables.

    Product codes compare each part of the query with its own codebook, ``K·d`` work in all; residual and
    additive codes compare the whole query with every entry, ``M·K·d``, and for ``l2`` add the query's own
    squared norm.
    """
    sizes, _ = _checked(kind, dim, M, nbits, None)
    _one_of("metric", metric, METRICS)
    entries, width = sum(sizes), dim // M if kind == "product" else dim
    products = OperationCounts(additions=entries * (width - 1), multiplications=entries * width)
    # Once per query: its squared norm, and its scaling (by -2 for l2, to unit length for cosine).
    query = OperationCounts(additions=dim - 1, multiplications=2 * dim)
    if metric == "ip":
        return products
    if metric == "l2" and kind == "product":
        return distance(entries, width)
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
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``. norm: the term stored per vector: ``"auto"``
        (``"uint8"`` for l2 on residual and additive codes, else none),
            ``"uint8"``, ``"float32"`` or ``None``.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """
    sizes, _ = _checked(kind, dim, M, nbits, None)
    norm_bits = _norm_bits(kind, metric, norm)
    return SearchCosts(
        tables=tables(kind, dim=dim, M=M, nbits=nbits, metric=metric),
        table_bytes=4 * M * max(sizes),
        lookups=M + (norm_bits == 8),
        additions=M - 1 + (norm_bits > 0) + 1,
        bits=sum(_bits(M, nbits)) + norm_bits,
    )


def rerank(*, dim: int, shortlist: int, k: int, M: int = 0) -> OperationCounts:
    """Operations that re-rank ``shortlist`` results of one query by exact distance and keep the best ``k``.

    ``M`` is the number of codebook entries summed to rebuild each vector first: 0 for raw vectors, 1 for
    product codes.
    """
    _positive("dim", dim)
    _positive("shortlist", shortlist)
    _positive("k", k)
    if k > shortlist:
        raise ValueError(f"k must not exceed shortlist={shortlist}, got {k}")
    if isinstance(M, bool) or not isinstance(M, int) or M < 0:
        raise ValueError(f"M must be a non-negative integer, got {M!r}")
    rebuild = OperationCounts(additions=max(M - 1, 0) * dim, moves=dim if M else 0)
    return shortlist * rebuild + distance(shortlist, dim) + partial_sort(shortlist, k)


def training(
    kind: str,
    *,
    dim: int,
    M: int,
    nbits: int | Sequence[int] = 8,
    beam: int | None = None,
    n: int,
    passes: int,
) -> OperationCounts:
    """An estimate of training: ``passes`` over ``n`` learn vectors, each encoded and added to its entries.

    Holds for k-means, its residual form and stochastic optimisation alike, whose updates cost about one
    gradient per entry used; it leaves out what does not grow with ``n`` (a least-squares solve, codebook
    replacement).
    """
    _positive("n", n)
    _positive("passes", passes)
    one = encode_counts(kind, dim=dim, M=M, nbits=nbits, beam=beam)
    touched = dim if kind == "product" else M * dim
    return (n * passes) * (one + OperationCounts(additions=2 * touched, multiplications=touched, moves=touched))


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
    sizes, _ = _checked(kind, dim, M, nbits, None)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"n must be a non-negative integer, got {n!r}")
    norm_bits = _norm_bits(kind, metric, norm)
    entry = 4 * (dim // M if kind == "product" else dim)
    return Memory(
        codes=(n * sum(_bits(M, nbits)) + 7) // 8,
        norms=n * norm_bits // 8,
        codebooks=sum(sizes) * entry + (4 * 256 if norm_bits == 8 else 0),
        ids=8 * n if ids else 0,
    )


# Arguments -------------------------------------------------------------------------------------------------


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def _positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")


def _bits(M: int, nbits: int | Sequence[int]) -> tuple[int, ...]:
    _positive("M", M)
    per_codebook = tuple(nbits) if isinstance(nbits, Sequence) else (nbits,) * M
    if len(per_codebook) != M:
        raise ValueError(f"nbits must be one number or one per codebook (M={M}), got {nbits!r}")
    for bits in per_codebook:
        _positive("nbits", bits)
        if bits > 16:
            raise ValueError(f"nbits must be between 1 and 16, got {bits!r}")
    return per_codebook


def _checked(kind: str, dim: int, M: int, nbits: int | Sequence[int], beam: int | None) -> tuple[tuple[int, ...], int]:
    """Sizes of the codebooks and the beam width, after checking all arguments."""
    _one_of("kind", kind, KINDS)
    _positive("dim", dim)
    bits = _bits(M, nbits)
    if kind == "product" and dim % M:
        raise ValueError(f"dim must be a multiple of M={M} for kind='product', got {dim}")
    if beam is not None:
        _positive("beam", beam)
        if kind == "product" and beam != 1:
            raise ValueError(f"beam must be None for kind='product', which has no beam search, got {beam}")
    default = ADDITIVE_BEAM if kind == "additive" else 1
    return tuple(2**b for b in bits), default if beam is None else beam


def _norm_bits(kind: str, metric: str, norm: str | None) -> int:
    _one_of("metric", metric, METRICS)
    if norm == "auto":
        return 8 if metric == "l2" and kind != "product" else 0
    if norm not in NORM_BITS:
        raise ValueError(f"norm must be 'auto', 'uint8', 'float32' or None, got {norm!r}")
    return NORM_BITS[norm]
