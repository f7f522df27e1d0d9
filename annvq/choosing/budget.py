"""Forms of a budget: bits or bytes a vector, or the memory that so many vectors may take."""

from typing import Any

from annvq.arrays import positive_int

ID_BITS = 32
"""What an index keeps in memory of a vector besides its code: its id."""
RESERVED = 1.03
"""What an index of many vectors reserves in memory, beside what it fills."""


def bits_of(
    *, bits: int | None = None, bytes_per_vector: int | None = None, memory: int | None = None, n: int | None = None
) -> int:
    """Bits per vector in all, from one form of the budget.

    Args:
        bits: itself.
        bytes_per_vector: so many bytes.
        memory: bytes for ``n`` vectors in memory: each takes its id too (four bytes) and a share of what is reserved
            (3 %). What is left is rounded down to whole bytes.

    Raises:
        TypeError, ValueError: not exactly one form; not positive integers; memory that leaves no byte for a code.
    """
    given = {"bits": bits, "bytes_per_vector": bytes_per_vector, "memory": memory}
    held = {name: value for name, value in given.items() if value is not None}
    if len(held) != 1:
        raise ValueError(f"give one of bits, bytes_per_vector and memory; got {', '.join(held) or 'none'}")
    ((name, value),) = held.items()
    amount = positive_int(value, name)
    if (name == "memory") != (n is not None):
        raise ValueError(
            f"memory and n, how many vectors it is for, go together; got {name} {'without' if n is None else 'and'} n"
        )
    if name == "bits":
        return amount
    if name == "bytes_per_vector":
        return 8 * amount
    count = positive_int(n, "n")
    left = int((8 * amount / count / RESERVED - ID_BITS) // 8)
    if left < 1:
        raise ValueError(
            f"memory={amount} leaves no byte for a code: {count:,} vectors take {count * ID_BITS // 8:,} bytes of ids"
        )
    return 8 * left


def parse_bytes(text: str) -> int:
    """``"8GB"``, ``"7.5 GiB"``, ``"500MB"`` or a plain number in bytes.

    Raises:
        ValueError: it is none of these, or not positive.
    """
    units: dict[str, float] = {"": 1, "b": 1}
    for power, letter in enumerate("kmgt", 1):
        units |= {letter: 1000**power, f"{letter}b": 1000**power, f"{letter}ib": 1024**power}
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(number) :].strip().lower()
    try:
        size = float(number) * units[unit]
        amount = int(size)
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"expected a size such as 8GB, 500MB or 7.5GiB, got {text!r}") from None
    if amount < 1:
        raise ValueError(f"expected a positive size, got {text!r}")
    return amount


def parse_count(text: str) -> int:
    """A number of vectors, also as ``"100e6"``.

    Raises:
        ValueError: no positive whole number.
    """
    value: Any
    try:
        value = float(text)
        whole = int(value)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a number of vectors such as 1000000 or 1e6, got {text!r}") from None
    if whole != value or whole < 1:
        raise ValueError(f"expected a positive whole number of vectors, got {text!r}")
    return whole
