"""How a vector is shared out: its bits over codebooks and to the norm, its dimensions over sub-spaces."""

NORM_BITS: dict[str | None, int] = {None: 0, "uint8": 8, "float32": 32}
"""Bits of each way to store a norm."""


def even_widths(dim: int, count: int) -> tuple[int, ...]:
    """``dim`` dimensions shared out over ``count`` sub-spaces as evenly as can be, the wider ones last."""
    low, more = divmod(dim, count)
    return (low,) * (count - more) + (low + 1,) * more


def split_bits(bits: int, nbits: int, dim: int = 1) -> tuple[int, ...]:
    """``bits`` shared out as evenly as can be over the fewest codebooks of at most ``nbits`` bits.

    Args:
        dim: of vectors that codebooks divide among them: then their number divides it, where some number up to twice
            the fewest, and up to ``bits``, does. 1: codebooks over all dimensions.

    Raises:
        ValueError: no bits to share.
    """
    if bits < 1:
        raise ValueError(f"bits: nothing is left for the code after the norm ({bits} bits)")
    least = -(-bits // nbits)
    M = next((m for m in range(least, min(dim, bits, 2 * least) + 1) if dim % m == 0), least)
    low, more = divmod(bits, M)
    return (low + 1,) * more + (low,) * (M - more)


def codebook_bits(kind: str, dim: int, bits: int, nbits: int) -> tuple[int, ...]:
    """:func:`split_bits` for annvq's quantizer of this kind, whose codebooks share out the dimensions or do not."""
    return split_bits(bits, nbits, dim if kind.endswith("product") else 1)
