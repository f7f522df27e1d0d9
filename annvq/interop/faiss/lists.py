"""Inverted lists to FAISS and back; see :mod:`annvq.interop.faiss.convert`.

Where codes are of residuals r = x − C, FAISS' distance is ‖q − C‖² − 2⟨q − C, r̂⟩ + ‖r̂‖² with the norm of the residual
stored; annvq's is ‖q − C‖² − 2⟨q, r̂⟩ + t with t = ‖r̂‖² + 2⟨C, r̂⟩ stored. One follows from the other, as a float.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from annvq.indexes.ids import check_ids
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.ivf.coding import residual_terms
from annvq.interop.faiss.codes import (
    Coded,
    behind,
    coded_additive,
    coded_product,
    norm_values,
    packed_additive,
    plain_levels,
    unpacked_blocks,
)
from annvq.interop.faiss.common import (
    Rows,
    check_fastscan,
    exported,
    load_faiss,
    metric_of,
    refuse_fastscan,
    store_rows,
    why_not,
)
from annvq.interop.faiss.quantizers import (
    additive_form,
    additive_part,
    check_transform,
    equal_bits,
    product_dim,
    set_centroids,
    set_entries,
    taken_apart,
)
from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.maps import Transform
from annvq.quantizers.modules.product import ProductVQ
from annvq.quantizers.modules.transformed import Transformed
from annvq.types import F32, I32, I64, Norm


def lists_from_faiss(index: Any, metric: str, transform: Transform | None, outer_ids: I64 | None) -> IVFIndex:
    """The annvq index of a FAISS one with inverted lists; ``outer_ids`` where those in the lists count into it."""
    faiss = load_faiss()
    if index.quantizer.metric_type != index.metric_type:
        raise ValueError(
            f"the coarse quantizer of {type(index).__name__} must have the index's metric: annvq probes by that one"
        )
    packed, ids, lists = _rows(index)
    if outer_ids is not None:
        ids = outer_ids[ids]
    ids = check_ids(ids, None, f"the ids of {type(index).__name__}")
    if len(np.unique(ids)) != len(ids):
        raise ValueError(f"the ids of {type(index).__name__} must differ from one another; some repeat")
    if hasattr(index, "pq"):
        coded = coded_product(index, packed)
    else:
        coded = coded_additive(additive_part(index), packed, metric)
    theirs, residual = coded.norms, bool(index.by_residual)
    if coded.quantizer.about_origin:  # annvq's own norms, and exact: FAISS keeps none
        theirs = None
    elif coded.norm == "uint8":
        theirs = coded.quantizer.require_norm_term('norm="uint8"').values(coded.codes, coded.norms)
    centroids: F32 = faiss.downcast_index(index.quantizer).reconstruct_n(0, index.nlist)
    if transform is not None:
        with torch.no_grad():
            centroids = transform.invert(torch.from_numpy(centroids)).numpy()
        coded = _behind(transform, coded, metric) if residual else behind(transform, coded, metric)
    norm: Norm = "float32" if residual and metric == "l2" else coded.norm
    own = IVFIndex(coded.quantizer, index.nlist, metric, norm, residual=residual, nprobe=min(index.nprobe, index.nlist))
    own.set_centroids(centroids)
    norms = _terms(own, coded.codes, lists, theirs) if residual and metric == "l2" else coded.norms
    store_rows(own, Rows(coded.codes, norms, ids), lists)
    return own


def _behind(transform: Transform, coded: Coded, metric: str) -> Coded:
    """``coded`` of residuals behind a transform, whose shift the centroids have: residuals are differences."""
    check_transform(transform, metric)
    linear = type(transform).from_matrix(transform.matrix().detach().cpu().numpy())
    return coded._replace(quantizer=Transformed(linear, coded.quantizer).eval())


def _rows(index: Any) -> tuple[npt.NDArray[np.uint8], I64, I32]:
    """Packed codes (n, code_size), ids (n,) and lists (n,)."""
    faiss = load_faiss()
    supported = (
        faiss.IndexIVFPQ,
        faiss.IndexIVFPQFastScan,
        faiss.IndexIVFResidualQuantizer,
        faiss.IndexIVFLocalSearchQuantizer,
        faiss.IndexIVFProductResidualQuantizer,
        faiss.IndexIVFProductLocalSearchQuantizer,
    )
    if not isinstance(index, supported) or isinstance(index, faiss.IndexIVFPQR):
        raise ValueError(f"{type(index).__name__} does not convert: {why_not(index)}")
    fastscan = isinstance(index, faiss.IndexIVFPQFastScan)
    width = int(index.pq.code_size) if fastscan else int(index.code_size)
    codes, ids, lists, invlists = [np.empty((0, width), np.uint8)], [np.empty(0, np.int64)], [], index.invlists
    for number in range(index.nlist):
        size = invlists.list_size(number)
        lists.append(size)
        if size == 0:
            continue
        ids.append(faiss.rev_swig_ptr(invlists.get_ids(number), size).copy())
        if fastscan:
            packer = index.get_CodePacker()
            taken = -(-size // packer.nvec) * packer.block_size
            blocks = faiss.rev_swig_ptr(invlists.get_codes(number), taken).copy()
            codes.append(unpacked_blocks(index, blocks, size))
        else:
            codes.append(faiss.rev_swig_ptr(invlists.get_codes(number), size * width).reshape(size, width).copy())
    numbers = np.repeat(np.arange(index.nlist, dtype=np.int32), lists)
    return np.concatenate(codes), np.concatenate(ids), numbers


def _terms(own: IVFIndex, codes: npt.NDArray[Any], lists: I32, theirs: F32 | None) -> F32:
    """‖r̂‖² + 2⟨C, r̂⟩, (n,), with ``theirs`` (n,) for ‖r̂‖² where FAISS has it rounded."""
    exact = _exact(own, codes, lists)
    if theirs is None:
        return exact
    return (exact.astype(np.float64) + (theirs.astype(np.float64) - _squared(own, codes))).astype(np.float32)


def _exact(index: IVFIndex, codes: npt.NDArray[Any], lists: I32) -> F32:
    """‖r̂‖² + 2⟨C, r̂⟩ of codes in these lists, (n,)."""
    centroids = index.coding.trained("to_faiss").centroids
    return residual_terms(index.quantizer.scan_view(), codes, centroids, lists)[0]


def _squared(index: IVFIndex, codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """‖r̂‖² of codes, (n,)."""
    r = index.quantizer.decode(codes)
    return np.einsum("ij,ij->i", r, r, dtype=np.float64)


# -- to FAISS --------------------------------------------------------------------------------------------------------


def lists_to_faiss(index: IVFIndex, fastscan: bool) -> tuple[Any, list[Any]]:
    """A FAISS index with inverted lists, and the transforms to put before it."""
    faiss = load_faiss()
    codes, norms, ids, sizes = exported(index)
    lists = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    chain, quantizer = taken_apart(index)
    centroids = index.coding.per_length(index.centroids)
    for step in chain:
        if not isinstance(step, faiss.NormalizationTransform):  # centroids are of normalised vectors already
            centroids = step.apply(centroids)
    coarse = faiss.IndexFlat(centroids.shape[1], metric_of(index))
    coarse.add(centroids)
    if isinstance(quantizer, ProductVQ):
        made, packed = _product_lists(index, quantizer, coarse, codes)
    else:
        refuse_fastscan(fastscan)
        made, packed = _additive_lists(index, quantizer, coarse, codes, norms, lists)
    made.own_fields = True
    coarse.this.disown()
    made.is_trained = True
    made.by_residual = index.residual
    made.nprobe = index.nprobe
    stops = np.cumsum(sizes)
    for number, (start, stop) in enumerate(zip(stops - sizes, stops, strict=True)):
        if stop > start:
            part, names = np.ascontiguousarray(packed[start:stop]), np.ascontiguousarray(ids[start:stop])
            made.invlists.add_entries(number, int(stop - start), faiss.swig_ptr(names), faiss.swig_ptr(part))
    made.ntotal = len(ids)
    if isinstance(quantizer, ProductVQ) and index.residual and index.metric == "l2":
        made.precompute_table()
    if fastscan:
        check_fastscan(equal_bits(quantizer, "a product code"))
        made = faiss.IndexIVFPQFastScan(made)
        made.nprobe = index.nprobe
    return made, chain


def _product_lists(index: IVFIndex, quantizer: ProductVQ, coarse: Any, codes: npt.NDArray[Any]) -> tuple[Any, Any]:
    faiss = load_faiss()
    nbits = equal_bits(quantizer, "a product code")
    made = faiss.IndexIVFPQ(coarse, product_dim(quantizer), coarse.ntotal, quantizer.M, nbits, metric_of(index))
    set_centroids(made.pq, quantizer)
    return made, faiss.pack_bitstrings(codes, nbits)


def _additive_lists(
    index: IVFIndex,
    quantizer: TableQuantizer,
    coarse: Any,
    codes: npt.NDArray[Any],
    norms: npt.NDArray[Any] | None,
    lists: I32,
) -> tuple[Any, Any]:
    faiss = load_faiss()
    kinds, levels = faiss.AdditiveQuantizer, None
    if index.norm is None and (index.metric != "l2" or quantizer.needs_norm):
        search_type, stored = kinds.ST_LUT_nonorm, None
    elif index.residual:
        search_type, stored = kinds.ST_norm_float, _residual_norms(index, codes, norms, lists)
    elif (levels := plain_levels(index)) is not None:
        search_type, stored = kinds.ST_norm_cqint8, norms
    else:
        search_type, stored = kinds.ST_norm_float, norm_values(index, codes, norms)
    name, shape = additive_form(quantizer)
    cls = getattr(faiss, f"IndexIVF{name}")
    made = cls(coarse, quantizer.dim, coarse.ntotal, *shape, metric_of(index), search_type)
    set_entries(additive_part(made), quantizer, levels)
    return made, packed_additive(quantizer, codes, stored)


def _residual_norms(index: IVFIndex, codes: npt.NDArray[Any], norms: npt.NDArray[Any] | None, lists: I32) -> F32:
    """‖r̂‖² as FAISS needs it, (n,), from what this index stores, ‖r̂‖² + 2⟨C, r̂⟩."""
    assert norms is not None
    term = index.coding.term
    assert term is not None
    terms, exact = term.values(codes, norms), _exact(index, codes, lists).astype(np.float64)
    return (terms.astype(np.float64) - exact + _squared(index, codes)).astype(np.float32)
