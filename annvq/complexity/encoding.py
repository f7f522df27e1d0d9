"""Encoding one vector, and training, which is encoding over and over."""

from collections.abc import Sequence
from math import comb

from annvq.complexity.arguments import checked, one_of, positive, widths_of
from annvq.complexity.counts import OperationCounts, argmin, distance, mse, partial_sort

CONVENTIONS: tuple[str, ...] = ("full", "published")


def _product(dim: int, parts: Sequence[int], sizes: Sequence[int]) -> OperationCounts:
    total = OperationCounts(moves=2 * dim)
    for K, part in zip(sizes, parts, strict=True):
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
    sizes, width = checked(kind, dim, M, nbits, beam)
    published = one_of("convention", convention, CONVENTIONS) == "published"
    if published and len(set(sizes)) > 1:
        raise ValueError(f"nbits must be equal for all codebooks under convention='published', got {nbits!r}")
    if published and kind == "residual" and width != 1:
        raise ValueError(f"beam must be 1 for kind='residual' under convention='published', got {width}")
    if kind == "additive":
        return _additive(dim, sizes, width, clamp=not published)
    stages = sizes[1:] if published else sizes
    if kind == "product":
        return _product(dim, widths_of(kind, dim, M)[M - len(stages) :], stages)
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
        kind: ``"product"``, ``"residual"`` or ``"additive"``. dim: dimension of the vectors, at
        least ``M`` for product codes. M: number of codebooks. nbits: bits per codebook, 1 to 16: one number, or
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
    sizes, _ = checked("additive", dim, M, nbits, None)
    positive("rounds", rounds)
    positive("sweeps", sweeps)
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
    sizes, _ = checked("additive", dim, M, nbits, None)
    positive("rounds", rounds)
    if M == 1:
        return OperationCounts()
    K = round(sum(sizes) / M)
    kept = min(tried, K)
    pair = OperationCounts(additions=2 * (M - 2) * K + 3 * kept * K) + partial_sort(K, kept)
    unary = OperationCounts(additions=sum(sizes) * dim, multiplications=sum(sizes) * dim)
    return unary + rounds * pair


def network_search(
    *, dim: int, hidden: int, sizes: Sequence[int], tried: Sequence[int], sweeps: int
) -> OperationCounts:
    """Operations that choose a conditional code anew (:class:`~annvq.ConditionalVQ`).

    The present code is decoded; then each sweep ranks the entries of every codebook by their distance without the
    network, and puts the ``tried`` nearest of each through it. What the entries add to its hidden units is known.
    """
    total = OperationCounts()
    start = OperationCounts(additions=len(sizes) * (hidden + dim), branches=hidden) + linear_map(hidden, dim)
    for K, count in zip(sizes, tried, strict=True):
        pass_through = linear_map(hidden, dim) + mse(1, dim)
        pass_through += OperationCounts(additions=2 * (hidden + dim), branches=hidden)
        total += distance(K, dim) + partial_sort(K, count) + count * pass_through + argmin(count)
    return start + sweeps * total


def linear_map(dim_in: int, dim_out: int) -> OperationCounts:
    """A matrix times one vector: what a rotation before a quantizer adds per vector and per query."""
    positive("dim_in", dim_in)
    positive("dim_out", dim_out)
    return OperationCounts(additions=dim_out * (dim_in - 1), multiplications=dim_out * dim_in)


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
    positive("n", n)
    positive("passes", passes)
    one = encode_counts(kind, dim=dim, M=M, nbits=nbits, beam=beam)
    touched = dim if kind == "product" else M * dim
    return (n * passes) * (one + OperationCounts(additions=2 * touched, multiplications=touched, moves=touched))
