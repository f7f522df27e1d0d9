"""annvq indexes as FAISS indexes and back: same ids, and to float rounding the same distances.

FAISS gives inner products as similarities where annvq gives their negative, and has no cosine metric: an index under
``cosine`` becomes one of inner products behind a normalisation, whose similarity is 1 − distance.
"""

from typing import Any

import numpy as np

from annvq.indexes.contract import Index
from annvq.indexes.flat import FlatIndex
from annvq.indexes.ids import check_ids
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.rerank import RerankIndex
from annvq.interop.faiss.common import load_faiss
from annvq.interop.faiss.flat import flat_from_faiss, flat_to_faiss
from annvq.interop.faiss.lists import lists_from_faiss, lists_to_faiss
from annvq.interop.faiss.quantizers import quantizer_from_faiss, transform_from_faiss
from annvq.types import I64

# -- from FAISS ------------------------------------------------------------------------------------------------------


def from_faiss(index: Any) -> Any:
    """An annvq index with the codes, ids and codebooks of a trained FAISS index; or a quantizer from a FAISS quantizer.

    Taken: ``IndexPQ``, ``IndexPQFastScan``, ``IndexResidualQuantizer``, ``IndexLocalSearchQuantizer`` and the products
    of the latter two, each alone, behind square linear transforms (``IndexPreTransform``, such as OPQ) and under ids
    (``IndexIDMap``, ``IndexIDMap2``). See ``docs/faiss.md`` for what each becomes.

    Args:
        index: a FAISS index, with vectors or without; it is not changed and shares no memory with the result. A
            ``ProductQuantizer``, ``ResidualQuantizer``, ``LocalSearchQuantizer`` or a product of these gives the
            quantizer alone.

    Raises:
        TypeError: not a FAISS index.
        ValueError: an index that annvq has no equal for, untrained, or with ids that repeat or are negative; the
            message says why.
    """
    faiss = load_faiss()
    if isinstance(index, faiss.ProductQuantizer | faiss.AdditiveQuantizer):
        return quantizer_from_faiss(index)
    if not isinstance(index, faiss.Index):
        raise TypeError(f"index must be a faiss Index or quantizer, got {type(index).__name__}")
    ids, chain, inner = _unwrapped(index)
    if not inner.is_trained:
        raise ValueError(f"the faiss {type(inner).__name__} must be trained")
    metric = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}.get(inner.metric_type)
    if metric is None:
        raise ValueError(f"metric_type must be METRIC_L2 or METRIC_INNER_PRODUCT, got {inner.metric_type}")
    if chain and isinstance(chain[0], faiss.NormalizationTransform):
        metric = _cosine(chain.pop(0), metric)
    transform = transform_from_faiss(chain, inner.d)
    converted = lists_from_faiss if isinstance(inner, faiss.IndexIVF) else flat_from_faiss
    return converted(inner, metric, transform, ids)


def _unwrapped(index: Any) -> tuple[I64 | None, list[Any], Any]:
    """User ids or None, transforms in the order vectors pass them, and the index that holds codes."""
    faiss = load_faiss()
    ids, chain = None, []
    index = faiss.downcast_index(index)
    while True:
        if isinstance(index, faiss.IndexIDMap):  # IndexIDMap2 is one
            if ids is not None:
                raise ValueError(f"{type(index).__name__} within another one: which ids to keep is not clear")
            ids = check_ids(faiss.vector_to_array(index.id_map), None, f"the ids of {type(index).__name__}")
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f"the ids of {type(index).__name__} must differ from one another; some repeat")
        elif isinstance(index, faiss.IndexPreTransform):
            chain += [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        else:
            return ids, chain, index
        index = faiss.downcast_index(index.index)


def _cosine(step: Any, metric: str) -> str:
    if step.norm != 2.0 or metric != "ip":
        raise ValueError(
            f"NormalizationTransform with norm={step.norm:g} under metric {metric!r} is not the cosine metric, for "
            "which annvq needs norm=2 and inner product"
        )
    return "cosine"


# -- to FAISS --------------------------------------------------------------------------------------------------------


def to_faiss(index: Index, *, fastscan: bool = False) -> Any:
    """A FAISS index with the codes, ids and codebooks of an annvq one.

    Product codes become ``IndexPQ``, residual codes ``IndexResidualQuantizer``, additive codes
    ``IndexLocalSearchQuantizer`` (``IndexResidualQuantizer`` where codebooks differ in size), rotated ones these behind
    an ``IndexPreTransform``; ids other than 0 … n − 1 an ``IndexIDMap2`` around it all. See ``docs/faiss.md``.

    The one-byte norm of residual and additive codes stands for more in annvq than FAISS can express in a byte, so it
    is stored as a float there (``ST_norm_float``): 24 bits more per vector and the same distances. Levels that came
    from FAISS stay a byte. What norm-free codes have in place of ‖x̂‖² becomes such a float too.

    Of conditional codes FAISS gets what an index scans, sums of entries: the same distances, without the network that
    decodes and encodes here.

    Args:
        index: a trained index, with vectors or without; it is not changed and shares no memory with the result.
        fastscan: make an ``IndexPQFastScan`` of product codes with nbits=4; its tables are rounded to 8 bits, so its
            distances are approximate.

    Raises:
        TypeError: not an annvq index.
        ValueError: an index that FAISS has no equal for, or untrained; the message says why.
    """
    if not isinstance(index, Index):
        raise TypeError(f"index must be an annvq Index, got {type(index).__name__}")
    if not isinstance(index, FlatIndex | IVFIndex):
        hint = ": convert what it scans, index.index" if isinstance(index, RerankIndex) else ""
        raise ValueError(f"{type(index).__name__} does not convert to FAISS; FlatIndex and IVFIndex do{hint}")
    index.require_fitted("to_faiss")
    if isinstance(index, IVFIndex):
        return _wrapped(*lists_to_faiss(index, fastscan), None)
    return _wrapped(*flat_to_faiss(index, fastscan))


def _wrapped(made: Any, chain: list[Any], ids: I64 | None) -> Any:
    """``made`` behind transforms and under ids; the result owns its parts."""
    faiss = load_faiss()
    for step in reversed(chain):
        if isinstance(made, faiss.IndexPreTransform):
            made.prepend_transform(step)
        else:
            inner, made = made, faiss.IndexPreTransform(step, made)
            inner.this.disown()
            made.own_fields = True
        step.this.disown()
    if ids is None or np.array_equal(ids, np.arange(len(ids))):
        return made
    made.ntotal = 0  # FAISS puts ids around empty indexes only
    mapped = faiss.IndexIDMap2(made)
    made.ntotal = len(ids)
    made.this.disown()
    mapped.own_fields = True
    faiss.copy_array_to_vector(ids, mapped.id_map)
    mapped.ntotal = len(ids)
    mapped.construct_rev_map()
    return mapped
