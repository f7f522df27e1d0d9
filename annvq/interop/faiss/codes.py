"""Codes and their norms to FAISS and back."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.indexes.contract import Index
from annvq.interop.faiss.common import load_faiss
from annvq.interop.faiss.quantizers import check_transform, quantizer_from_faiss
from annvq.norms import NORM_LEVELS, NormTerm
from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.maps import Transform
from annvq.quantizers.modules.sums import SumQuantizer
from annvq.quantizers.modules.transformed import Transformed
from annvq.types import F32, Norm


class Coded(NamedTuple):
    """A FAISS index's codes as annvq has them, and how their distances come about."""

    quantizer: TableQuantizer
    codes: npt.NDArray[Any]
    norm: Norm
    norms: npt.NDArray[Any] | None


# -- from FAISS ------------------------------------------------------------------------------------------------------


def coded_product(index: Any, packed: npt.NDArray[np.uint8]) -> Coded:
    faiss = load_faiss()
    search_type = getattr(index, "search_type", faiss.IndexPQ.ST_PQ)
    if search_type not in (faiss.IndexPQ.ST_PQ, faiss.IndexPQ.ST_polysemous):
        raise ValueError(
            f"IndexPQ with search_type {search_type}: it compares codes with codes; annvq's distances are those of "
            "the query itself (ST_PQ)"
        )
    quantizer = quantizer_from_faiss(index.pq)
    codes = faiss.unpack_bitstrings(np.ascontiguousarray(packed), int(index.pq.M), int(index.pq.nbits))
    return Coded(quantizer, codes.astype(quantizer.code_dtype), None, None)


def unpacked_blocks(index: Any, blocks: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.uint8]:
    """Codes (n, code_size) as IndexPQ packs them, from the blocks of a FastScan index or of one of its lists."""
    faiss = load_faiss()
    packer = index.get_CodePacker()
    count = -(-n // packer.nvec)
    flat = np.empty((count * packer.nvec, packer.code_size), np.uint8)
    for b in range(count):
        block = blocks[b * packer.block_size : (b + 1) * packer.block_size]
        part = flat[b * packer.nvec : (b + 1) * packer.nvec]
        packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(part))
    return flat[:n, : int(index.pq.code_size)]


def coded_additive(aq: Any, packed: npt.NDArray[np.uint8], metric: str) -> Coded:
    """Codes and norms of packed additive codes (n, code_size) of the FAISS quantizer ``aq``."""
    faiss = load_faiss()
    quantizer = quantizer_from_faiss(aq)
    norm_bits = {32: [16, 16], 8: [8], 4: [4], 0: []}[int(aq.norm_bits)]
    fields = faiss.unpack_bitstrings(np.ascontiguousarray(packed), [*quantizer.bits_per_codebook, *norm_bits])
    codes = np.ascontiguousarray(fields[:, : quantizer.M]).astype(quantizer.code_dtype)
    if metric != "l2":
        return Coded(quantizer, codes, None, None)
    if aq.search_type == faiss.AdditiveQuantizer.ST_LUT_nonorm:
        raise ValueError(
            f"{type(aq).__name__} with ST_LUT_nonorm under METRIC_L2: FAISS leaves ‖x̂‖² out of its distances, annvq "
            "does not; use another search_type, or METRIC_INNER_PRODUCT"
        )
    if not norm_bits:  # ST_decompress, ST_norm_from_LUT: FAISS computes the norm at search time
        return Coded(quantizer, codes, "float32", quantizer.norms(codes))
    quantizer.centred.fill_(False)  # FAISS keeps norms about zero
    if len(norm_bits) == 2:
        bits = fields[:, -2].astype(np.uint32) | fields[:, -1].astype(np.uint32) << np.uint32(16)
        return Coded(quantizer, codes, "float32", bits.view(np.float32))
    levels = _norm_levels(aq)
    order = np.argsort(levels, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ascending = np.full(NORM_LEVELS, levels[order[-1]], np.float32)
    ascending[: len(levels)] = levels[order]
    no_offsets = np.zeros(sum(quantizer.sizes), np.float32)
    quantizer.take_norm_term(NormTerm.byte(quantizer.sizes, no_offsets, ascending))
    return Coded(quantizer, codes, "uint8", rank[fields[:, -1]].astype(np.uint8))


def _norm_levels(aq: Any) -> F32:
    """What each norm code of a FAISS additive quantizer stands for, (256,) or (16,)."""
    faiss = load_faiss()
    kinds = faiss.AdditiveQuantizer
    if aq.search_type in (kinds.ST_norm_qint8, kinds.ST_norm_qint4):
        count = 1 << int(aq.norm_bits)
        low, high = np.float32(aq.norm_min), np.float32(aq.norm_max)
        return ((np.arange(count) + 0.5) / count * (high - low) + low).astype(np.float32)
    levels: F32 = faiss.rev_swig_ptr(aq.qnorm.get_xb(), aq.qnorm.ntotal).copy()
    return levels


def behind(transform: Transform, coded: Coded, metric: str) -> Coded:
    """``coded`` with vectors and queries passing ``transform`` first, as IndexPreTransform does."""
    check_transform(transform, metric)
    quantizer = Transformed(transform, coded.quantizer)
    if quantizer.needs_norm and metric == "l2":
        if transform.shift is not None and coded.norms is not None:
            # FAISS keeps the norms of shifted vectors; ‖x̂‖² = ‖ŷ‖² + 2⟨ŷ, …⟩ + ‖shift‖² must be computed anew.
            if coded.norm == "uint8":
                raise ValueError(
                    "IndexPreTransform with an offset before codes with a one-byte norm: the byte stands for the norm "
                    "of the offset vector; use a transform without an offset, or ST_norm_float"
                )
            exact = quantizer.eval().norms(coded.codes)
            return Coded(quantizer.eval(), coded.codes, "float32", exact)
        inner = coded.quantizer
        if inner.norm_term is not None:
            quantizer.take_norm_term(inner.norm_term, centred=inner.about_origin)
    return coded._replace(quantizer=quantizer.eval())


# -- to FAISS --------------------------------------------------------------------------------------------------------


def plain_levels(index: Index) -> F32 | None:
    """The levels of a one-byte norm that is nothing but its levels, as FAISS' are; else None."""
    if index.norm != "uint8":
        return None
    view = index.quantizer.scan_view()
    byte: NormTerm = view.require_norm_term('norm="uint8"')
    plain = byte.levels is not None and not view.origin.any() and not byte.offsets.any()
    return np.ascontiguousarray(byte.levels) if plain else None


def norm_values(index: Index, codes: npt.NDArray[Any], norms: npt.NDArray[Any] | None) -> F32:
    """Stored norms as annvq's distances have them, but about zero, as FAISS' are: (n,) float32."""
    view = index.quantizer.scan_view()
    own: TableQuantizer = view
    if norms is None:
        own = view.quantizer if isinstance(view, Transformed) else view
        assert isinstance(own, SumQuantizer)
        norms = own.offset_norms(codes)
    elif index.norm == "uint8":
        norms = view.require_norm_term('norm="uint8"').values(codes, norms)
    # ‖x̂‖² − ‖x̂ − o‖² = 2⟨o, x̂⟩ − ‖o‖²
    origin = own.origin.astype(np.float64)
    moved = 2 * (own.decode(codes) @ origin) - origin @ origin
    return (norms.astype(np.float64) + moved).astype(np.float32)


def packed_additive(
    quantizer: TableQuantizer, codes: npt.NDArray[Any], norms: npt.NDArray[Any] | None
) -> npt.NDArray[np.uint8]:
    """Codes (n, M) and norms (n,), uint8 or float32 or None, as FAISS packs them: (n, code_size)."""
    columns, bits = [codes.astype(np.int32)], list(quantizer.bits_per_codebook)
    if norms is not None and norms.dtype == np.uint8:
        columns.append(norms.astype(np.int32)[:, None])
        bits.append(8)
    elif norms is not None:
        halves = np.ascontiguousarray(norms, dtype=np.float32).view(np.uint32)
        columns += [(halves & 0xFFFF).astype(np.int32)[:, None], (halves >> 16).astype(np.int32)[:, None]]
        bits += [16, 16]
    packed: npt.NDArray[np.uint8] = load_faiss().pack_bitstrings(np.concatenate(columns, axis=1), bits)
    return packed
