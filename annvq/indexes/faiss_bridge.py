"""annvq indexes as FAISS indexes and back: same ids, and to float rounding the same distances.

FAISS gives inner products as similarities where annvq gives their negative, and has no cosine metric: an index under
``cosine`` becomes one of inner products behind a normalisation, whose similarity is 1 − distance.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from annvq.arrays import F32, I64
from annvq.indexes.base import Index, Norm, check_ids
from annvq.indexes.flat import FlatIndex
from annvq.indexes.stored import StoreIndex
from annvq.quantizers.additive import AdditiveVQ
from annvq.quantizers.base import TableQuantizer
from annvq.quantizers.importing import load_faiss, quantizer_from_faiss, transform_from_faiss
from annvq.quantizers.norms import NORM_LEVELS
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.residual import ResidualVQ
from annvq.quantizers.transform import Transform, Transformed


class Rows(NamedTuple):
    """What an index stores: codes (n, M), norms (n,) in the index's form or None, ids (n,)."""

    codes: npt.NDArray[Any]
    norms: npt.NDArray[Any] | None
    ids: I64


class Coded(NamedTuple):
    """A FAISS index's codes as annvq has them, and how their distances come about."""

    quantizer: TableQuantizer
    codes: npt.NDArray[Any]
    norm: Norm
    norms: npt.NDArray[Any] | None


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
    coded = _coded(inner, metric)
    transform = transform_from_faiss(chain, inner.d)
    if transform is not None:
        coded = _behind(transform, coded, metric)
    n = len(coded.codes)
    own = FlatIndex(coded.quantizer, metric, coded.norm)
    _store_rows(own, Rows(coded.codes, coded.norms, np.arange(n, dtype=np.int64) if ids is None else ids))
    return own


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


def _behind(transform: Transform, coded: Coded, metric: str) -> Coded:
    """``coded`` with vectors and queries passing ``transform`` first, as IndexPreTransform does."""
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
        quantizer.norm_levels.copy_(inner.norm_levels)
        quantizer.norm_offsets.copy_(inner.norm_offsets)
    return coded._replace(quantizer=quantizer.eval())


def _coded(index: Any, metric: str) -> Coded:
    """Quantizer, codes and norms of a FAISS index of codes."""
    faiss = load_faiss()
    if isinstance(index, faiss.IndexPQ):
        return _coded_product(index, faiss.vector_to_array(index.codes).reshape(index.ntotal, index.code_size))
    if isinstance(index, faiss.IndexPQFastScan):
        return _coded_product(index, _unpacked_blocks(index))
    additive = (
        faiss.IndexResidualQuantizer,
        faiss.IndexLocalSearchQuantizer,
        faiss.IndexProductResidualQuantizer,
        faiss.IndexProductLocalSearchQuantizer,
    )
    if isinstance(index, additive):
        packed = faiss.vector_to_array(index.codes).reshape(index.ntotal, index.code_size)
        return coded_additive(_additive_quantizer(index), packed, metric)
    raise ValueError(f"{type(index).__name__} does not convert: {_why_not(index)}")


def _why_not(index: Any) -> str:
    name = type(index).__name__
    if "Refine" in name:
        return "it re-ranks with a second index; convert its base_index"
    if "Flat" in name or "HNSW" in name or "NSG" in name:
        return "it holds raw vectors or a graph over them, annvq's indexes hold codes; build one from the vectors"
    if "ScalarQuantizer" in name or "SQ" in name or "RaBitQ" in name or "LSH" in name:
        return "annvq has no scalar, binary or lattice codes"
    if "FastScan" in name:
        return "its norms are folded into its tables, rounded; convert the index without FastScan"
    return "its codes are not product, residual or additive ones"


def _additive_quantizer(index: Any) -> Any:
    """The quantizer of an additive index as its own class."""
    for name in ("prq", "plsq", "rq", "lsq"):
        if hasattr(index, name):
            return getattr(index, name)
    raise AssertionError(type(index))


def _coded_product(index: Any, packed: npt.NDArray[np.uint8]) -> Coded:
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


def _unpacked_blocks(index: Any) -> npt.NDArray[np.uint8]:
    """Codes (n, code_size) of a FastScan index as IndexPQ packs them."""
    faiss = load_faiss()
    packer, blocks = index.get_CodePacker(), faiss.vector_to_array(index.codes)
    count = -(-index.ntotal // packer.nvec)
    flat = np.empty((count * packer.nvec, packer.code_size), np.uint8)
    for b in range(count):
        block = blocks[b * packer.block_size : (b + 1) * packer.block_size]
        part = flat[b * packer.nvec : (b + 1) * packer.nvec]
        packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(part))
    return flat[: index.ntotal, : int(index.pq.code_size)]


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
    if len(norm_bits) == 2:
        bits = fields[:, -2].astype(np.uint32) | fields[:, -1].astype(np.uint32) << np.uint32(16)
        return Coded(quantizer, codes, "float32", bits.view(np.float32))
    levels = _norm_levels(aq)
    order = np.argsort(levels, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    ascending = np.full(NORM_LEVELS, levels[order[-1]], np.float32)
    ascending[: len(levels)] = levels[order]
    with torch.no_grad():
        quantizer.norm_levels.copy_(torch.from_numpy(ascending))
        quantizer.norm_offsets.zero_()
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


# -- to FAISS --------------------------------------------------------------------------------------------------------


def to_faiss(index: Index, *, fastscan: bool = False) -> Any:
    """A FAISS index with the codes, ids and codebooks of an annvq one.

    Product codes become ``IndexPQ``, residual codes ``IndexResidualQuantizer``, additive codes
    ``IndexLocalSearchQuantizer`` (``IndexResidualQuantizer`` where codebooks differ in size), rotated ones these behind
    an ``IndexPreTransform``; ids other than 0 … n − 1 an ``IndexIDMap2`` around it all. See ``docs/faiss.md``.

    The one-byte norm of residual and additive codes stands for more in annvq than FAISS can express in a byte, so it
    is stored as a float there (``ST_norm_float``): 24 bits more per vector and the same distances. Levels that came
    from FAISS stay a byte.

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
    if not isinstance(index, FlatIndex):
        raise ValueError(f"{type(index).__name__} does not convert to FAISS; FlatIndex does")
    index.require_fitted("to_faiss")
    rows = _rows_of(index)
    order = np.argsort(rows.ids, kind="stable")
    rows = Rows(rows.codes[order], None if rows.norms is None else rows.norms[order], rows.ids[order])
    chain, quantizer = _taken_apart(index)
    if isinstance(quantizer, ProductVQ):
        made = _product_index(quantizer, index, rows, fastscan)
    elif fastscan:
        raise ValueError("fastscan needs product codes with nbits=4; FAISS rounds the norms of additive FastScan codes")
    else:
        made = _additive_index(quantizer, index, rows)
    return _wrapped(made, chain, rows.ids)


def _metric_of(index: Index) -> int:
    faiss = load_faiss()
    return int(faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def _taken_apart(index: Index) -> tuple[list[Any], TableQuantizer]:
    """FAISS transforms, in the order vectors pass them, and the quantizer behind them."""
    faiss = load_faiss()
    view = index.quantizer.scan_view()
    chain: list[Any] = []
    if index.metric == "cosine":
        chain.append(faiss.NormalizationTransform(index.dim, 2.0))
    if not isinstance(view, Transformed):
        return chain, view
    transform = view.transform
    if not transform.orthogonal or (index.metric != "l2" and transform.shift is not None) or (
        view.needs_norm and transform.shift is not None
    ):  # fmt: skip
        # FAISS compares behind a transform, which would be another distance: codebooks over all dimensions instead.
        return chain, _flattened(view)
    if transform.shift is not None:
        center = faiss.CenteringTransform(index.dim)
        faiss.copy_array_to_vector(transform.shift.cpu().numpy().astype(np.float32), center.mean)
        center.is_trained = True
        chain.append(center)
    linear = faiss.LinearTransform(index.dim, index.dim, False)
    with torch.no_grad():
        faiss.copy_array_to_vector(np.ascontiguousarray(transform.matrix().cpu().numpy()).ravel(), linear.A)
    linear.set_is_orthonormal()
    linear.is_trained = True
    chain.append(linear)
    return chain, view.quantizer


def _flattened(view: Transformed) -> AdditiveVQ:
    """The additive quantizer with the codebooks of a transformed one, over the same codes."""
    with torch.no_grad():
        books = [book.cpu().numpy() for book in view.codebooks]
    return AdditiveVQ(view.dim, view.M, list(view.bits_per_codebook)).set_codebooks(books).eval()


def _equal_bits(quantizer: TableQuantizer, what: str) -> int:
    nbits = quantizer.nbits
    if not isinstance(nbits, int):
        raise ValueError(f"{what} in FAISS has as many bits in every codebook, this one has nbits={nbits}")
    return nbits


def _product_index(quantizer: ProductVQ, index: Index, rows: Rows, fastscan: bool) -> Any:
    faiss = load_faiss()
    nbits = _equal_bits(quantizer, "a product code")
    made = faiss.IndexPQ(quantizer.dim, quantizer.M, nbits, _metric_of(index))
    faiss.copy_array_to_vector(quantizer.codebooks_copy().ravel(), made.pq.centroids)
    made.pq.compute_sdc_table()
    made.is_trained = True
    _fill(made, faiss.pack_bitstrings(rows.codes, nbits))
    if not fastscan:
        return made
    if nbits != 4:
        raise ValueError(f"fastscan needs nbits=4, got nbits={nbits}: FAISS' FastScan has tables of 16 entries")
    return faiss.IndexPQFastScan(made)


def _fill(made: Any, packed: npt.NDArray[np.uint8]) -> None:
    faiss = load_faiss()
    faiss.copy_array_to_vector(np.ascontiguousarray(packed).ravel(), made.codes)
    made.ntotal = len(packed)


def _additive_index(quantizer: TableQuantizer, index: Index, rows: Rows) -> Any:
    faiss = load_faiss()
    search_type, levels = _search_type(index)
    made, aq = _empty_additive(quantizer, _metric_of(index), search_type)
    if levels is not None:
        aq.qnorm.add(levels.reshape(-1, 1))
    faiss.copy_array_to_vector(quantizer.codebooks_copy().ravel(), aq.codebooks)
    aq.is_trained = made.is_trained = True
    if isinstance(aq, faiss.ResidualQuantizer):
        aq.compute_codebook_tables()
    columns, bits = [rows.codes.astype(np.int32)], list(quantizer.bits_per_codebook)
    if levels is not None and rows.norms is not None:
        columns.append(rows.norms.astype(np.int32)[:, None])
        bits.append(8)
    elif index.norm is not None:
        halves = np.ascontiguousarray(_float_norms(index, rows)).view(np.uint32)
        columns += [(halves & 0xFFFF).astype(np.int32)[:, None], (halves >> 16).astype(np.int32)[:, None]]
        bits += [16, 16]
    _fill(made, faiss.pack_bitstrings(np.ascontiguousarray(np.concatenate(columns, axis=1)), bits))
    return made


def _search_type(index: Index) -> tuple[int, F32 | None]:
    """How FAISS shall get at the norm, and levels where it is a byte."""
    faiss = load_faiss()
    kinds = faiss.AdditiveQuantizer
    if index.norm is None:
        return int(kinds.ST_LUT_nonorm), None
    if index.norm == "uint8":
        byte = index.quantizer.scan_view().norm_byte
        if not byte.offsets.any():
            return int(kinds.ST_norm_cqint8), np.ascontiguousarray(byte.levels)
    return int(kinds.ST_norm_float), None


def _float_norms(index: Index, rows: Rows) -> F32:
    """The norms as annvq's distances have them."""
    assert rows.norms is not None
    if index.norm == "float32":
        return rows.norms.astype(np.float32)
    return index.quantizer.scan_view().norm_byte.decode(rows.codes, rows.norms)


def _empty_additive(quantizer: TableQuantizer, metric: int, search_type: int) -> tuple[Any, Any]:
    faiss = load_faiss()
    nbits = quantizer.nbits
    if isinstance(quantizer, AdditiveVQ) and isinstance(nbits, int):
        made: Any = faiss.IndexLocalSearchQuantizer(quantizer.dim, quantizer.M, nbits, metric, search_type)
        made.lsq.nperts = min(made.lsq.nperts, quantizer.M)  # FAISS refuses to add where it perturbs more than M
        return made, made.lsq
    bits = faiss.UInt64Vector()
    for b in quantizer.bits_per_codebook:
        bits.push_back(b)
    made = faiss.IndexResidualQuantizer(quantizer.dim, bits, metric, search_type)
    made.rq.max_beam_size = quantizer.beam if isinstance(quantizer, ResidualVQ | AdditiveVQ) else 1
    return made, made.rq


def _wrapped(made: Any, chain: list[Any], ids: I64) -> Any:
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
    if np.array_equal(ids, np.arange(len(ids))):
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


# -- the store -------------------------------------------------------------------------------------------------------


def _rows_of(index: StoreIndex) -> Rows:
    codes, norms, ids, _ = index._store.export()
    # astype, as FAISS knows NumPy's long and not its long long, which have the same name.
    return Rows(codes, norms, ids.astype(np.dtype("l")) if ids.dtype.itemsize == np.dtype("l").itemsize else ids)


def _store_rows(index: StoreIndex, rows: Rows) -> None:
    if not len(rows.ids):
        return
    with index._changing:
        index._filled_store().append(np.ascontiguousarray(rows.codes), rows.norms, rows.ids)
        index._next_id = int(rows.ids.max()) + 1
