"""A network behind sums of entries, natively: what codes stand for, and codes chosen by that.

Sums have a fixed order, in float32: results never depend on the SIMD level, the number of threads or how rows are cut
into batches. Codes are ``(n, M)``, each below the size of its codebook.
"""

from typing import Any

import numpy as np

from annvq.kernels import _native
from annvq.kernels.encode import code_dtype, int_sizes, rows_of
from annvq.threads import get_num_threads
from annvq.types import F32, Codes


class NetworkCoder:
    """x̂ = s + U·relu(V·s + b), with s the sum of one entry of each codebook.

    What each entry adds to the hidden units is computed once, ``hidden / d`` times the memory of the entries.

    Args:
        entries: ``(sum(sizes), d)`` float32, codebook after codebook.
        plain: as ``entries``, those that choose which entries are tried.
        sizes: ``(M,)`` entries per codebook.
        inward: V, ``(hidden, d)``.
        bias: b, ``(hidden,)``.
        outward: U, ``(d, hidden)``.
    """

    def __init__(self, entries: F32, plain: F32, sizes: Any, inward: F32, bias: F32, outward: F32) -> None:
        sizes = int_sizes(sizes)
        self._native = _native.NetworkCoder(
            rows_of(entries, "entries"), rows_of(plain, "plain"), sizes, inward, bias, outward, get_num_threads()
        )
        self._dtype, self._none = code_dtype(sizes), np.zeros(len(bias), np.float32)

    def decode(self, codes: Codes) -> F32:
        """Vectors ``(n, d)`` of codes."""
        return self.decode_and_read(codes, self._none)[0]

    def decode_and_read(self, codes: Codes, weights: F32) -> tuple[F32, F32]:
        """Vectors ``(n, d)`` of codes, and sums of their hidden units by ``weights`` ``(hidden,)``, ``(n,)``."""
        out: tuple[F32, F32] = self._native.decode(_wide(codes), weights, get_num_threads())
        return out

    def hidden_units(self, codes: Codes) -> F32:
        """relu(V·s + b) of codes, ``(n, hidden)``."""
        units: F32 = self._native.hidden(_wide(codes), get_num_threads())
        return units

    def aim(self, x: F32, codes: Codes, reach: float) -> tuple[F32, F32]:
        """What sums should be for the network to come nearer to rows, and the squared errors of their codes.

        With J the derivative of what the network adds to s, r = x − x̂ and g = (1 + J)ᵀ·r, the direction in which the
        error falls most, that is s + g·‖g‖² / (reach·‖(1 + J)·g‖²). With ``reach`` 1 the error would be least there of
        all of this direction if the network were linear (the Cauchy point of Gauss and Newton's method).

        Args:
            x: ``(n, d)`` float32.
            codes: ``(n, M)``.
            reach: above zero; less goes further.

        Returns:
            ``(n, d)`` float32 and ``(n,)`` float32.
        """
        out: tuple[F32, F32] = self._native.aim(rows_of(x, "x"), _wide(codes), reach, get_num_threads())
        return out

    def sweep(self, x: F32, codes: Codes, *, candidates: int, sweeps: int) -> Codes:
        """Codes chosen anew, codebook after codebook, by what the network makes of them; no vector's error grows.

        Of each codebook the ``candidates`` entries are tried whose ``plain`` form comes nearest to what is left of x
        and the present one's.

        Args:
            x: ``(n, d)`` float32.
            codes: ``(n, M)`` codes to start from; they are not modified.
            candidates: at most 64.
            sweeps: over the codebooks.
        """
        found = self._native.sweep(rows_of(x, "x"), _wide(codes), candidates, sweeps, get_num_threads())
        return found.astype(self._dtype, copy=False)


def _wide(codes: Codes) -> Any:
    return np.ascontiguousarray(codes, dtype=np.uint16)
