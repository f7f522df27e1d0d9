"""Arguments of the counts: what each may be, and errors that name it."""

from collections.abc import Sequence

from annvq.bits import NORM_BITS, even_widths

KINDS: tuple[str, ...] = ("product", "residual", "additive")
METRICS: tuple[str, ...] = ("l2", "ip", "cosine")

# The beam of the paper's figure 4, used when none is given.
ADDITIVE_BEAM = 16


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    """``value``, or a ValueError that names the argument where it is not among ``known``."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def positive(name: str, value: int) -> None:
    """TypeError or ValueError naming the argument unless it is a positive integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")


def bits_of(M: int, nbits: int | Sequence[int]) -> tuple[int, ...]:
    """Bits of each of M codebooks."""
    positive("M", M)
    per_codebook = tuple(nbits) if isinstance(nbits, Sequence) else (nbits,) * M
    if len(per_codebook) != M:
        raise ValueError(f"nbits must be one number or one per codebook (M={M}), got {nbits!r}")
    for bits in per_codebook:
        positive("nbits", bits)
        if bits > 16:
            raise ValueError(f"nbits must be between 1 and 16, got {bits!r}")
    return per_codebook


def checked(kind: str, dim: int, M: int, nbits: int | Sequence[int], beam: int | None) -> tuple[tuple[int, ...], int]:
    """Sizes of the codebooks and the beam width, after checking all arguments."""
    one_of("kind", kind, KINDS)
    positive("dim", dim)
    bits = bits_of(M, nbits)
    if kind == "product" and dim < M:
        raise ValueError(f"M must be at most dim={dim} for kind='product', got {M}")
    if beam is not None:
        positive("beam", beam)
        if kind == "product" and beam != 1:
            raise ValueError(f"beam must be None for kind='product', which has no beam search, got {beam}")
    default = ADDITIVE_BEAM if kind == "additive" else 1
    return tuple(2**b for b in bits), default if beam is None else beam


def widths_of(kind: str, dim: int, M: int) -> tuple[int, ...]:
    """Dimensions of each of M codebooks: all, or of product codes a share."""
    return even_widths(dim, M) if kind == "product" else (dim,) * M


def norm_bits_of(kind: str, metric: str, norm: str | None) -> int:
    """Bits of the term that is stored per vector; ``"auto"`` as :func:`annvq.complexity.search` says."""
    one_of("metric", metric, METRICS)
    if norm == "auto":
        return 8 if metric == "l2" and kind != "product" else 0
    if norm not in NORM_BITS:
        raise ValueError(f"norm must be 'auto', 'uint8', 'float32' or None, got {norm!r}")
    return NORM_BITS[norm]
