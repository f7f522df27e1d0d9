"""Indexes without lists to FAISS and back."""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.indexes.contract import Index
from annvq.indexes.flat import FlatIndex
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
    equal_bits,
    product_dim,
    set_centroids,
    set_entries,
    taken_apart,
)
from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.maps import Transform
from annvq.quantizers.modules.product import ProductVQ
from annvq.types import I64


def flat_from_faiss(index: Any, metric: str, transform: Transform | None, ids: I64 | None) -> FlatIndex:
    """The annvq index of a FAISS one without lists, behind ``transform`` and under ``ids`` where there are such."""
    coded = _coded(index, metric)
    if transform is not None:
        coded = behind(transform, coded, metric)
    n = len(coded.codes)
    own = FlatIndex(coded.quantizer, metric, coded.norm)
    store_rows(own, Rows(coded.codes, coded.norms, np.arange(n, dtype=np.int64) if ids is None else ids))
    return own


def _coded(index: Any, metric: str) -> Coded:
    """Quantizer, codes and norms of a FAISS index of codes."""
    faiss = load_faiss()
    if isinstance(index, faiss.IndexPQ):
        return coded_product(index, faiss.vector_to_array(index.codes).reshape(index.ntotal, index.code_size))
    if isinstance(index, faiss.IndexPQFastScan):
        return coded_product(index, unpacked_blocks(index, faiss.vector_to_array(index.codes), int(index.ntotal)))
    additive = (
        faiss.IndexResidualQuantizer,
        faiss.IndexLocalSearchQuantizer,
        faiss.IndexProductResidualQuantizer,
        faiss.IndexProductLocalSearchQuantizer,
    )
    if isinstance(index, additive):
        packed = faiss.vector_to_array(index.codes).reshape(index.ntotal, index.code_size)
        return coded_additive(additive_part(index), packed, metric)
    raise ValueError(f"{type(index).__name__} does not convert: {why_not(index)}")


# -- to FAISS --------------------------------------------------------------------------------------------------------


def flat_to_faiss(index: FlatIndex, fastscan: bool) -> tuple[Any, list[Any], I64]:
    """A FAISS index without lists, the transforms to put before it, and the ids of its rows."""
    codes, norms, ids, _ = exported(index)
    order = np.argsort(ids, kind="stable")
    rows = Rows(codes[order], None if norms is None else norms[order], ids[order])
    chain, quantizer = taken_apart(index)
    if isinstance(quantizer, ProductVQ):
        return _product_index(quantizer, index, rows, fastscan), chain, rows.ids
    return _additive_index(quantizer, index, rows, fastscan), chain, rows.ids


def _product_index(quantizer: ProductVQ, index: Index, rows: Rows, fastscan: bool) -> Any:
    faiss = load_faiss()
    nbits = equal_bits(quantizer, "a product code")
    made = faiss.IndexPQ(product_dim(quantizer), quantizer.M, nbits, metric_of(index))
    set_centroids(made.pq, quantizer)
    made.is_trained = True
    _fill(made, faiss.pack_bitstrings(rows.codes, nbits))
    if not fastscan:
        return made
    check_fastscan(nbits)
    return faiss.IndexPQFastScan(made)


def _fill(made: Any, packed: npt.NDArray[np.uint8]) -> None:
    load_faiss().copy_array_to_vector(np.ascontiguousarray(packed).ravel(), made.codes)
    made.ntotal = len(packed)


def _additive_index(quantizer: TableQuantizer, index: Index, rows: Rows, fastscan: bool) -> Any:
    faiss = load_faiss()
    refuse_fastscan(fastscan)
    kinds = faiss.AdditiveQuantizer
    levels = plain_levels(index)
    if levels is not None:
        search_type, norms = kinds.ST_norm_cqint8, rows.norms
    elif index.norm is not None or (index.metric == "l2" and not quantizer.needs_norm):
        search_type, norms = kinds.ST_norm_float, norm_values(index, rows.codes, rows.norms)
    else:
        search_type, norms = kinds.ST_LUT_nonorm, None
    name, shape = additive_form(quantizer)
    made = getattr(faiss, f"Index{name}")(quantizer.dim, *shape, metric_of(index), search_type)
    set_entries(additive_part(made), quantizer, levels)
    made.is_trained = True
    _fill(made, packed_additive(quantizer, rows.codes, norms))
    return made
