"""Codes chosen so that their x̂ has a length, by any quantizer."""

from collections.abc import Callable

import numpy as np

from annvq.norms import Length
from annvq.types import F32, Codes

LENGTH_TRIES, LENGTH_TOLERANCE = 3, 0.005  # each further try of the three brought less


def codes_of_length(
    x: F32,
    length: Length,
    centres: F32 | None,
    encode: Callable[[F32, F32 | None], Codes],
    decode: Callable[[Codes], F32],
    again: Callable[[F32, Codes], Codes] | None = None,
) -> Codes:
    """Codes of a chunk of rows whose x̂ has about this length.

    A longer vector has a longer x̂, and under cosine a vector's length says nothing: so codes of the vector made longer
    or shorter are tried, until x̂ has the length to :data:`LENGTH_TOLERANCE`, a few times at most, and the one is taken
    that is best by error and length together.

    Args:
        x: (n, d).
        centres: (n, d) that x and x̂ are about, or None.
        encode: codes (n, M) of rows (n, d) about centres (n, d) or None.
        decode: x̂ (n, d) of codes.
        again: codes of rows (n, d) from those of the same rows at another length, in less time than ``encode`` takes;
            None: there is no such way.
    """
    codes = encode(x, centres)
    found = codes.copy()
    tried, least = length.measured(x, decode(codes), centres)
    factor, left = np.ones(len(x), np.float32), np.arange(len(x))
    for _ in range(LENGTH_TRIES):
        off = np.abs(tried - 1) > LENGTH_TOLERANCE
        left, tried, found = left[off], tried[off], found[off]
        if not len(left):
            break
        factor[left] /= np.maximum(tried, 0.1).astype(np.float32)
        stretched, about = x[left], None if centres is None else centres[left]
        if about is None:
            stretched *= factor[left, None]
        else:
            stretched = (stretched + about) * factor[left, None] - about
        found = encode(stretched, about) if again is None else again(stretched, found)
        del stretched
        tried, costs = length.measured(x[left], decode(found), about)
        better = costs < least[left]
        codes[left[better]], least[left[better]] = found[better], costs[better]
    return codes
