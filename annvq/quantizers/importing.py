"""Codebooks trained elsewhere as quantizers: arrays, torch modules, FAISS quantizers and transforms."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from annvq.arrays import to_numpy
from annvq.quantizers.maps import ORTHOGONAL_TOLERANCE, LinearMap, Rotation, Transform
from annvq.quantizers.registry import make
from annvq.quantizers.tables import TableQuantizer
from annvq.quantizers.transformed import Transformed
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


# -- FAISS -----------------------------------------------------------------------------------------------------------


def load_faiss() -> Any:
    """The faiss module, loaded on first use; Any, as its type stubs leave out much of what is used here."""
    import faiss

    return faiss


def quantizer_from_faiss(source: Any) -> TableQuantizer:
    """A fitted quantizer with the codebooks of a trained FAISS one, over the same codes.

    ``ProductQuantizer`` becomes :class:`ProductVQ`, ``ResidualQuantizer`` :class:`ResidualVQ` with its beam,
    ``LocalSearchQuantizer`` :class:`AdditiveVQ`; products of residual or local-search quantizers become
    :class:`AdditiveVQ` too, with entries that are zero outside their own sub-space. Codes of new vectors may differ
    from FAISS' where the search differs (product codes: only in ties).

    Raises:
        TypeError, ValueError: another kind of quantizer, or an untrained one.
    """
    faiss = load_faiss()
    if isinstance(source, faiss.ProductQuantizer):
        centroids = faiss.vector_to_array(source.centroids)
        _require_trained(bool(centroids.any()), source)  # before training they are zero
        return from_codebooks(centroids.reshape(source.M, source.ksub, source.dsub), "product")
    if not isinstance(source, faiss.AdditiveQuantizer):
        raise TypeError(
            "quantizer must be a faiss ProductQuantizer, ResidualQuantizer, LocalSearchQuantizer or a product of the "
            f"latter two, got {type(source).__name__}"
        )
    _require_trained(source.is_trained, source)
    bits = [int(b) for b in faiss.vector_to_array(source.nbits)]
    if isinstance(source, faiss.ProductAdditiveQuantizer):
        return from_codebooks(_padded(source, bits), "additive")
    entries = faiss.vector_to_array(source.codebooks).reshape(-1, source.d)
    books = np.split(entries[: sum(1 << b for b in bits)], np.cumsum([1 << b for b in bits])[:-1])
    if isinstance(source, faiss.ResidualQuantizer):
        return from_codebooks(books, "residual", beam=max(1, int(source.max_beam_size)))
    return from_codebooks(books, "additive")


def _padded(source: Any, bits: list[int]) -> list[F32]:
    """Codebooks of a product of additive quantizers over all d dimensions."""
    faiss = load_faiss()
    flat, books, at = faiss.vector_to_array(source.codebooks), [], 0
    splits = int(source.nsplits)
    width = source.d // splits
    for m, b in enumerate(bits):
        start = m // (len(bits) // splits) * width
        book = np.zeros((1 << b, source.d), np.float32)
        book[:, start : start + width] = flat[at : at + book.shape[0] * width].reshape(-1, width)
        at += book.shape[0] * width
        books.append(book)
    return books


def _require_trained(trained: bool, source: Any) -> None:
    if not trained:
        raise ValueError(f"the faiss {type(source).__name__} must be trained: its codebooks are empty")


def transform_from_faiss(chain: Sequence[Any], dim: int) -> Transform | None:
    """One transform for a chain of trained FAISS ones (in the order vectors pass them), or None for an empty chain.

    Raises:
        ValueError: a kind that is not affine and invertible, such as a projection to fewer dimensions.
    """
    faiss = load_faiss()
    if not chain:
        return None
    matrix, offset = np.eye(dim), np.zeros(dim)  # y = matrix · x + offset
    for step in chain:
        name = type(step).__name__
        if step.d_in != step.d_out:
            raise ValueError(
                f"{name} maps {step.d_in} to {step.d_out} dimensions: distances to what it drops or pads are not those "
                f"of the original vectors, which annvq's distances are; use a square transform"
            )
        _require_trained(step.is_trained, step)
        if isinstance(step, faiss.CenteringTransform):
            offset = offset - faiss.vector_to_array(step.mean)
        elif isinstance(step, faiss.LinearTransform):
            a = faiss.vector_to_array(step.A).reshape(dim, dim).astype(np.float64)
            bias = faiss.vector_to_array(step.b).astype(np.float64) if step.have_bias else np.zeros(dim)
            matrix, offset = a @ matrix, a @ offset + bias
        else:
            raise ValueError(f"{name} is not a linear transform, and annvq has none like it")
    shift = -np.linalg.solve(matrix, offset) if offset.any() else None
    orthogonal = np.abs(matrix @ matrix.T - np.eye(dim)).max() <= ORTHOGONAL_TOLERANCE
    cls = Rotation if orthogonal else LinearMap
    return cls.from_matrix(matrix.astype(np.float32), None if shift is None else shift.astype(np.float32))
