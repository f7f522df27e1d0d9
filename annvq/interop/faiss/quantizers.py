"""Quantizers and transforms to FAISS and back."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from annvq.indexes.contract import Index
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.stored import StoreIndex
from annvq.interop.faiss.common import load_faiss, require_trained
from annvq.norms import Length
from annvq.quantizers.modules.additive import AdditiveVQ
from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.imported import from_codebooks
from annvq.quantizers.modules.maps import ORTHOGONAL_TOLERANCE, LinearMap, Rotation, Transform
from annvq.quantizers.modules.product import ProductVQ
from annvq.quantizers.modules.product_additive import ProductAdditiveVQ
from annvq.quantizers.modules.residual import ResidualVQ
from annvq.quantizers.modules.transformed import Transformed
from annvq.types import F32

# -- from FAISS ------------------------------------------------------------------------------------------------------


def quantizer_from_faiss(source: Any) -> TableQuantizer:
    """A fitted quantizer with the codebooks of a trained FAISS one, over the same codes.

    ``ProductQuantizer`` becomes :class:`ProductVQ`, ``ResidualQuantizer`` :class:`ResidualVQ` with its beam,
    ``LocalSearchQuantizer`` :class:`AdditiveVQ`, products of either :class:`ProductAdditiveVQ`, a group for each. Codes
    of new vectors may differ from FAISS' where the search differs (product codes: only in ties).

    Raises:
        TypeError, ValueError: another kind of quantizer, or an untrained one.
    """
    faiss = load_faiss()
    if isinstance(source, faiss.ProductQuantizer):
        centroids = faiss.vector_to_array(source.centroids)
        require_trained(bool(centroids.any()), source)  # before training they are zero
        return from_codebooks(centroids.reshape(source.M, source.ksub, source.dsub), "product")
    if not isinstance(source, faiss.AdditiveQuantizer):
        raise TypeError(
            "quantizer must be a faiss ProductQuantizer, ResidualQuantizer, LocalSearchQuantizer or a product of the "
            f"latter two, got {type(source).__name__}"
        )
    require_trained(source.is_trained, source)
    bits = [int(b) for b in faiss.vector_to_array(source.nbits)]
    if isinstance(source, faiss.ProductAdditiveQuantizer):
        groups = int(source.nsplits)
        made = ProductAdditiveVQ(source.d, len(bits), bits, groups=groups)
        entries = faiss.vector_to_array(source.codebooks).reshape(-1, source.d // groups)
        return made.set_codebooks(np.split(entries, made.offsets[1:-1])).eval()
    entries = faiss.vector_to_array(source.codebooks).reshape(-1, source.d)
    books = np.split(entries[: sum(1 << b for b in bits)], np.cumsum([1 << b for b in bits])[:-1])
    if isinstance(source, faiss.ResidualQuantizer):
        return from_codebooks(books, "residual", beam=max(1, int(source.max_beam_size)))
    return from_codebooks(books, "additive")


def additive_part(index: Any) -> Any:
    """The quantizer of an additive index as its own class."""
    for name in ("prq", "plsq", "rq", "lsq"):
        if hasattr(index, name):
            return getattr(index, name)
    raise AssertionError(type(index))


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
        require_trained(step.is_trained, step)
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


def check_transform(transform: Transform, metric: str) -> None:
    """Raise ValueError where FAISS' distances behind ``transform`` are not those of the vectors themselves."""
    if not transform.orthogonal:
        raise ValueError(
            "IndexPreTransform with a transform that does not keep distances: FAISS compares queries with codes after "
            "it, so that its distances are not those of the vectors, which annvq's are; only orthogonal ones (OPQ, "
            "rotations, PCA without whitening) convert"
        )
    if metric != "l2" and transform.shift is not None:
        raise ValueError(
            "IndexPreTransform with an offset under inner product: FAISS takes the inner product of offset vectors, "
            "annvq that of the vectors; only transforms without an offset convert"
        )


# -- to FAISS --------------------------------------------------------------------------------------------------------


def taken_apart(index: Index) -> tuple[list[Any], TableQuantizer]:
    """FAISS transforms, in the order vectors pass them, and the quantizer behind them."""
    chain, quantizer = _chain_and_quantizer(index)
    places = quantizer.books().spread if isinstance(quantizer, ProductVQ) else None
    if places is not None:  # FAISS' sub-spaces are of one width: zeros fill them up, here and in the codebooks
        source = np.full(product_dim(quantizer), -1, np.int32)
        source[places] = np.arange(quantizer.dim)
        faiss = load_faiss()
        chain.append(faiss.RemapDimensionsTransform(quantizer.dim, len(source), faiss.swig_ptr(source)))
    return chain, quantizer


def product_dim(quantizer: TableQuantizer) -> int:
    """Dimensions of product codes in FAISS: as many for each codebook as the widest has."""
    return quantizer.M * quantizer.width


def _chain_and_quantizer(index: Index) -> tuple[list[Any], TableQuantizer]:
    """The same, over the dimensions that codes see."""
    faiss = load_faiss()
    if isinstance(index, StoreIndex) and index.coding.share is not None:
        raise ValueError(
            "index must score by inner products alone: its distances under cosine count a share of what coding took "
            "away, which FAISS cannot. FlatIndex(quantizer.fit(x), 'cosine').add(x), without a fit of the index, or an "
            "IVFIndex with residual=True have codes of one length instead, which convert"
        )
    view = index.quantizer.scan_view()
    chain: list[Any] = []
    if index.dim != index.dims:
        chain.append(faiss.RemapDimensionsTransform(index.dim, index.dims, False))
    if index.metric == "cosine":
        chain.append(faiss.NormalizationTransform(index.dims, 2.0))
    length = index.coding.length if isinstance(index, StoreIndex) else None
    if not isinstance(view, Transformed):
        return chain, _of_length_one(_in_faiss(view), length)
    transform = view.transform
    # A shift stands in the way where FAISS would not see it: in inner products, norms and residuals.
    unshifted = index.metric != "l2" or view.needs_norm or (isinstance(index, IVFIndex) and index.residual)
    if not transform.orthogonal or (unshifted and transform.shift is not None):
        # FAISS compares behind a transform, which would be another distance: codebooks over all dimensions instead.
        return chain, _of_length_one(_flattened(view), length)
    if transform.shift is not None:
        center = faiss.CenteringTransform(index.dims)
        faiss.copy_array_to_vector(transform.shift.cpu().numpy().astype(np.float32), center.mean)
        center.is_trained = True
        chain.append(center)
    linear = faiss.LinearTransform(index.dims, index.dims, False)
    with torch.no_grad():
        faiss.copy_array_to_vector(np.ascontiguousarray(transform.matrix().cpu().numpy()).ravel(), linear.A)
    linear.set_is_orthonormal()
    linear.is_trained = True
    chain.append(linear)
    return chain, _of_length_one(_in_faiss(view.quantizer), length)


def _flattened(view: TableQuantizer) -> AdditiveVQ:
    """The additive quantizer over all dimensions with the codebooks of another, over the same codes."""
    books = view.books().whole.split()
    return AdditiveVQ(view.dim, view.M, list(view.bits_per_codebook)).set_codebooks(books).eval()


def _in_faiss(view: TableQuantizer) -> TableQuantizer:
    """``view``, or, of products of additive codes that FAISS has none like, the additive quantizer with their codebooks
    over all dimensions."""
    if not isinstance(view, ProductAdditiveVQ):
        return view
    alike = view.groups > 1 and view.dim % view.groups == 0 and isinstance(view.nbits, int)
    return view if alike else _flattened(view)


@torch.no_grad()
def _of_length_one(quantizer: TableQuantizer, length: Length | None) -> TableQuantizer:
    """A quantizer whose x̂ have length one, where codes were chosen for another: inner products are cosines then."""
    if length is None:
        return quantizer
    scaled = copy.deepcopy(quantizer)
    scaled.weight.div_(length.value)
    return scaled


def equal_bits(quantizer: TableQuantizer, what: str) -> int:
    """The bits of every codebook; ValueError where they differ."""
    nbits = quantizer.nbits
    if not isinstance(nbits, int):
        raise ValueError(f"{what} in FAISS has as many bits in every codebook, this one has nbits={nbits}")
    return nbits


def set_centroids(pq: Any, quantizer: ProductVQ) -> None:
    """Give a FAISS ProductQuantizer the codebooks of a product quantizer."""
    load_faiss().copy_array_to_vector(quantizer.codebooks_copy().ravel(), pq.centroids)
    pq.compute_sdc_table()


def additive_form(quantizer: TableQuantizer) -> tuple[str, tuple[Any, ...]]:
    """The FAISS quantizer that it becomes, by name, and M and bits as the constructors of it and its indexes take
    them."""
    nbits = quantizer.nbits
    if isinstance(quantizer, ProductAdditiveVQ):
        return "ProductLocalSearchQuantizer", (quantizer.groups, quantizer.M // quantizer.groups, nbits)
    if isinstance(quantizer, AdditiveVQ) and isinstance(nbits, int):
        return "LocalSearchQuantizer", (quantizer.M, nbits)
    bits = load_faiss().UInt64Vector()
    for b in quantizer.bits_per_codebook:
        bits.push_back(b)
    return "ResidualQuantizer", (bits,)


def set_entries(aq: Any, quantizer: TableQuantizer, levels: F32 | None) -> None:
    """Give a FAISS additive quantizer the codebooks of one of ours, and levels where its norm is a byte."""
    faiss = load_faiss()
    faiss.copy_array_to_vector(quantizer.codebooks_copy().ravel(), aq.codebooks)
    if levels is not None:
        aq.qnorm.add(levels.reshape(-1, 1))
    if isinstance(aq, faiss.ResidualQuantizer):
        aq.max_beam_size = quantizer.beam if isinstance(quantizer, ResidualVQ | AdditiveVQ) else 1
        aq.compute_codebook_tables()
    elif isinstance(quantizer, ProductAdditiveVQ):
        for g, (_, _, books) in enumerate(quantizer.books().groups):
            part = faiss.downcast_AdditiveQuantizer(aq.subquantizer(g))
            faiss.copy_array_to_vector(books.entries.ravel(), part.codebooks)
            _search_among(part, len(books.sizes))
    else:
        _search_among(aq, quantizer.M)
    aq.is_trained = True


def _search_among(lsq: Any, M: int) -> None:
    lsq.nperts = min(lsq.nperts, M)  # FAISS refuses to add where it perturbs more than M
    lsq.is_trained = True
