"""What every part of the bridge needs: the library, its metrics, what it does not know, and the rows of indexes."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annvq.indexes.coding import Encoded
from annvq.indexes.contract import Index
from annvq.indexes.stored import StoreIndex
from annvq.types import I32, I64, Codes


class Rows(NamedTuple):
    """What an index stores: codes (n, M), norms (n,) in the index's form or None, ids (n,)."""

    codes: npt.NDArray[Any]
    norms: npt.NDArray[Any] | None
    ids: I64


def load_faiss() -> Any:
    """The faiss module, loaded on first use; Any, as its type stubs leave out much of what is used here."""
    import faiss

    return faiss


def metric_of(index: Index) -> int:
    faiss = load_faiss()
    return int(faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def require_trained(trained: bool, source: Any) -> None:
    """Raise ValueError unless the FAISS object ``source`` is ``trained``."""
    if not trained:
        raise ValueError(f"the faiss {type(source).__name__} must be trained: its codebooks are empty")


def why_not(index: Any) -> str:
    """Why a FAISS index of this kind has no counterpart in annvq."""
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


def refuse_fastscan(fastscan: bool) -> None:
    """Raise ValueError where FastScan is wanted of codes that are not product ones."""
    if fastscan:
        raise ValueError("fastscan needs product codes with nbits=4; FAISS rounds the norms of additive FastScan codes")


def check_fastscan(nbits: int) -> None:
    """Raise ValueError unless FastScan knows codes of so many bits."""
    if nbits != 4:
        raise ValueError(f"fastscan needs nbits=4, got nbits={nbits}: FAISS' FastScan has tables of 16 entries")


def exported(index: StoreIndex) -> tuple[Codes, npt.NDArray[Any] | None, I64, I64]:
    """Codes, norms and ids list after list, and the sizes of the lists."""
    codes, norms, ids, sizes = index.export()
    # FAISS knows NumPy's long and not its long long, which has the same name.
    return codes, norms, ids.astype(np.dtype("l")), sizes


def store_rows(index: StoreIndex, rows: Rows, lists: I32 | None = None) -> None:
    """Put rows into an empty index, whose codes have the lengths that they come with."""
    index.coding.any_length = True
    if len(rows.ids):
        index.store(Encoded(np.ascontiguousarray(rows.codes), rows.norms, lists), rows.ids)
