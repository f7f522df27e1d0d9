"""How a vector is shared out: its bits over codebooks and to the norm, its dimensions over sub-spaces."""

NORM_BITS: dict[str | None, int] = {None: 0, "uint8": 8, "float32": 32}
"""Bits of each way to store a norm."""


def even_widths(dim: int, count: int) -> tuple[int, ...]:
    """``dim`` dimensions shared out over ``count`` sub-spaces as evenly as can be, the wider ones last."""
    low, more = divmod(dim, count)
    return (low,) * (count - more) + (low + 1,) * more


def split_bits(bits: int, nbits: int) -> tuple[int, ...]:
    """``bits`` shared out as evenly as can be over the fewest codebooks of at most ``nbits`` bits. (Product codes, too:
    more codebooks of fewer bits find less, also where their number divides the dimensions and the fewest do not.)

    Raises:
        ValueError: no bits to share.
    """
    if bits < 1:
        raise ValueError(f"bits: nothing is left for the code after the norm ({bits} bits)")
    least = -(-bits // nbits)
    low, more = divmod(bits, least)
    return (low + 1,) * more + (low,) * (least - more)
