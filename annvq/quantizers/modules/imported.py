"""Quantizers over codebooks trained elsewhere: arrays and torch modules (for FAISS see annvq.interop.faiss)."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from annvq.arrays import to_numpy
from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.maps import Transform
from annvq.quantizers.modules.registry import make
from annvq.quantizers.modules.transformed import Transformed
from annvq.types import F32, Array

KINDS = ("product", "residual", "additive")


def from_codebooks(codebooks: Any, kind: str, *, transform: Transform | None = None, **options: Any) -> TableQuantizer:
    """A fitted quantizer over codebooks trained elsewhere, which encodes and searches as if trained here.

    For a one-byte norm (residual and additive codes under L2) call ``fit_norms(x)`` on it, or give an index
    ``norm="float32"``.

    Args:
        codebooks: one array (M, K, width); a sequence of M arrays (K_m, width); or a torch module that has them: an
            ``nn.Embedding``, a sequence of these, or a module with an attribute ``codebooks`` or ``codebook``. Values
            are copied; float64 is rounded to float32. Where K is no power of two, the last entry is repeated up to the
            next one.
        kind: ``"product"`` (x̂ is the entries side by side, d = M · width), ``"residual"`` or ``"additive"`` (x̂ is
            their sum, d = width; the two differ in how they encode).
        transform: a :class:`Rotation` or :class:`LinearMap` that vectors pass before.
        options: further arguments of the quantizer, such as ``beam``.

    Raises:
        TypeError, ValueError: an unknown kind; no codebooks; wrong kind or shape, NaN or infinity.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    books = _books(codebooks, "codebooks")
    if not books:
        raise ValueError("codebooks must hold at least one codebook, got none")
    width = int(books[0].shape[1])
    arrays = [to_numpy(book, width, f"codebooks[{m}]", rows="K") for m, book in enumerate(books)]
    for m, array in enumerate(arrays):
        if not 1 <= len(array) <= 1 << 16:
            raise ValueError(f"codebooks[{m}] must have between 1 and 65536 entries, got {len(array)}")
    bits = [max(1, (len(array) - 1).bit_length()) for array in arrays]
    dim = width * len(arrays) if kind == "product" else width
    quantizer = cast(TableQuantizer, make(kind, dim=dim, M=len(arrays), nbits=bits, **options))
    quantizer.set_codebooks([_filled(array, 1 << b) for array, b in zip(arrays, bits, strict=True)])
    quantizer.eval()
    return quantizer if transform is None else Transformed(transform, quantizer).eval()


def _filled(array: F32, size: int) -> F32:
    return array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _books(source: Any, name: str) -> list[Array]:
    """2-D arrays found in ``source``."""
    if isinstance(source, nn.Embedding):
        return _books(source.weight, name)
    if isinstance(source, nn.Module) and not isinstance(source, nn.ModuleList | nn.ParameterList | nn.Sequential):
        for attribute in ("codebooks", "codebook"):
            if hasattr(source, attribute):
                return _books(getattr(source, attribute), f"{name}.{attribute}")
        raise TypeError(
            f"{name} must have its entries in an attribute codebooks or codebook, but {type(source).__name__} has "
            f"neither; give the arrays themselves"
        )
    if isinstance(source, Tensor):
        source = source.detach().float() if source.is_floating_point() else source.detach()
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        if len(source.shape) == 3:
            return [source[m] for m in range(source.shape[0])]
        if len(source.shape) == 2:
            return [source]
        raise ValueError(f"{name} must have shape (M, K, width) or (K, width), got {tuple(source.shape)}")
    if isinstance(source, Sequence | nn.Module) and not isinstance(source, str | bytes):
        found: list[Array] = []
        for m, item in enumerate(cast(Sequence[Any], source)):
            found += _books(item, f"{name}[{m}]")
        widths = {int(book.shape[1]) for book in found}
        if len(widths) > 1:
            raise ValueError(f"{name} must all have entries of one width, got {sorted(widths)}")
        return found
    raise TypeError(f"{name} must be arrays (K, width) or a module that has them, got {type(source).__name__}")
