"""annvq indexes as FAISS indexes and back: same ids, and to float rounding the same distances.

FAISS gives inner products as similarities where annvq gives their negative, and has no cosine metric: an index under
``cosine`` becomes one of inner products behind a normalisation, whose similarity is 1 − distance.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from annvq.indexes.base import Index, check_ids
from annvq.indexes.flat import FlatIndex
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.stored import StoreIndex
from annvq.norms import NORM_LEVELS, NormTerm
from annvq.quantizers.additive import AdditiveVQ
from annvq.quantizers.importing import load_faiss, quantizer_from_faiss, transform_from_faiss
from annvq.quantizers.maps import Transform
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.residual import ResidualVQ
from annvq.quantizers.sums import SumQuantizer
from annvq.quantizers.tables import TableQuantizer
from annvq.quantizers.transformed import Transformed
from annvq.types import F32, I64, Norm


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
    transform = transform_from_faiss(chain, inner.d)
    if isinstance(inner, faiss.IndexIVF):
        from annvq.indexes.faiss_lists import lists_from_faiss

        return lists_from_faiss(inner, metric, transform, ids)
    coded = _coded(inner, metric)
    if transform is not None:
        coded = behind(transform, coded, metric)
    n = len(coded.codes)
    own = FlatIndex(coded.quantizer, metric, coded.norm)
    store_rows(own, Rows(coded.codes, coded.norms, np.arange(n, dtype=np.int64) if ids is None else ids))
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


def why_not(index: Any) -> str:
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


def additive_part(index: Any) -> Any:
    """The quantizer of an additive index as its own class."""
    for name in ("prq", "plsq", "rq", "lsq"):
        if hasattr(index, name):
            return getattr(index, name)
    raise AssertionError(type(index))


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


# -- to FAISS --------------------------------------------------------------------------------------------------------


def to_faiss(index: Index, *, fastscan: bool = False) -> Any:
    """A FAISS index with the codes, ids and codebooks of an annvq one.

    Product codes become ``IndexPQ``, residual codes ``IndexResidualQuantizer``, additive codes
    ``IndexLocalSearchQuantizer`` (``IndexResidualQuantizer`` where codebooks differ in size), rotated ones these behind
    an ``IndexPreTransform``; ids other than 0 … n − 1 an ``IndexIDMap2`` around it all. See ``docs/faiss.md``.

    The one-byte norm of residual and additive codes stands for more in annvq than FAISS can express in a byte, so it
    is stored as a float there (``ST_norm_float``): 24 bits more per vector and the same distances. Levels that came
    from FAISS stay a byte. What norm-free codes have in place of ‖x̂‖² becomes such a float too.

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
        raise ValueError(f"{type(index).__name__} does not convert to FAISS; FlatIndex and IVFIndex do")
    index.require_fitted("to_faiss")
    if isinstance(index, IVFIndex):
        from annvq.indexes.faiss_lists import lists_to_faiss

        made, chain = lists_to_faiss(index, fastscan)
        return wrapped(made, chain, None)
    codes, norms, ids, _ = exported(index)
    order = np.argsort(ids, kind="stable")
    rows = Rows(codes[order], None if norms is None else norms[order], ids[order])
    chain, quantizer = taken_apart(index)
    if isinstance(quantizer, ProductVQ):
        made = _product_index(quantizer, index, rows, fastscan)
    else:
        made = _additive_index(quantizer, index, rows, fastscan)
    return wrapped(made, chain, rows.ids)


def metric_of(index: Index) -> int:
    faiss = load_faiss()
    return int(faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def taken_apart(index: Index) -> tuple[list[Any], TableQuantizer]:
    """FAISS transforms, in the order vectors pass them, and the quantizer behind them."""
    faiss = load_faiss()
    view = index.quantizer.scan_view()
    chain: list[Any] = []
    if index.metric == "cosine":
        chain.append(faiss.NormalizationTransform(index.dim, 2.0))
    if not isinstance(view, Transformed):
        return chain, view
    transform = view.transform
    # A shift stands in the way where FAISS would not see it: in inner products, norms and residuals.
    unshifted = index.metric != "l2" or view.needs_norm or (isinstance(index, IVFIndex) and index.residual)
    if not transform.orthogonal or (unshifted and transform.shift is not None):
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


def check_fastscan(nbits: int) -> None:
    """Raise ValueError unless FastScan knows codes of so many bits."""
    if nbits != 4:
        raise ValueError(f"fastscan needs nbits=4, got nbits={nbits}: FAISS' FastScan has tables of 16 entries")


def refuse_fastscan(fastscan: bool) -> None:
    """Raise ValueError where FastScan is wanted of codes that are not product ones."""
    if fastscan:
        raise ValueError("fastscan needs product codes with nbits=4; FAISS rounds the norms of additive FastScan codes")


def _product_index(quantizer: ProductVQ, index: Index, rows: Rows, fastscan: bool) -> Any:
    faiss = load_faiss()
    nbits = equal_bits(quantizer, "a product code")
    made = faiss.IndexPQ(quantizer.dim, quantizer.M, nbits, metric_of(index))
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
    local, shape = additive_shape(quantizer)
    cls = faiss.IndexLocalSearchQuantizer if local else faiss.IndexResidualQuantizer
    made = cls(quantizer.dim, *shape, metric_of(index), search_type)
    set_entries(additive_part(made), quantizer, levels)
    made.is_trained = True
    _fill(made, packed_additive(quantizer, rows.codes, norms))
    return made


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


def additive_shape(quantizer: TableQuantizer) -> tuple[bool, tuple[Any, ...]]:
    """Whether it becomes a local-search quantizer (else a residual one), and its bits as the constructor takes them."""
    nbits = quantizer.nbits
    if isinstance(quantizer, AdditiveVQ) and isinstance(nbits, int):
        return True, (quantizer.M, nbits)
    bits = load_faiss().UInt64Vector()
    for b in quantizer.bits_per_codebook:
        bits.push_back(b)
    return False, (bits,)


def set_entries(aq: Any, quantizer: TableQuantizer, levels: F32 | None) -> None:
    """Give a FAISS additive quantizer the codebooks of one of ours, and levels where its norm is a byte."""
    faiss = load_faiss()
    faiss.copy_array_to_vector(quantizer.codebooks_copy().ravel(), aq.codebooks)
    if levels is not None:
        aq.qnorm.add(levels.reshape(-1, 1))
    if isinstance(aq, faiss.ResidualQuantizer):
        aq.max_beam_size = quantizer.beam if isinstance(quantizer, ResidualVQ | AdditiveVQ) else 1
        aq.compute_codebook_tables()
    else:
        aq.nperts = min(aq.nperts, quantizer.M)  # FAISS refuses to add where it perturbs more than M
    aq.is_trained = True


def wrapped(made: Any, chain: list[Any], ids: I64 | None) -> Any:
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


# -- the store -------------------------------------------------------------------------------------------------------


def exported(index: StoreIndex) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, I64, I64]:
    """Codes, norms and ids list after list, and the sizes of the lists."""
    codes, norms, ids, sizes = index._store.export()
    # FAISS knows NumPy's long and not its long long, which has the same name.
    return codes, norms, ids.astype(np.dtype("l")), sizes


def store_rows(index: StoreIndex, rows: Rows, lists: npt.NDArray[np.int32] | None = None) -> None:
    """Put rows into an empty index."""
    if not len(rows.ids):
        return
    with index._changing:
        index._filled_store().append(np.ascontiguousarray(rows.codes), rows.norms, rows.ids, lists)
        index._next_id = int(rows.ids.max()) + 1
