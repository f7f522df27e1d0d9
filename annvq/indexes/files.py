"""A code store in a file: as superblocks that are scanned where they lie, or as rows packed to their bits.

``blocks``: where codes fill their bytes (codebooks of 256 entries, or an even number of 16, two to a byte) and
norms are bytes or absent. Tensor ``codes`` holds list after list; of each list the whole superblocks of 512 rows,
``[column][512]``, then the rest as ``[column][n % 512]``; the last column holds the norms' levels, their four low bits
reversed and on top. It takes no more bytes than rows do, and a memory map of it is scanned in place. Tensor ``relabel``
(M, 256), where there is one, says which byte stands for each code.

``rows``: everything else. ``codes`` holds rows as a stream of bits, ``norms`` (n,) their norms.

Both: ``ids`` (n,), left out where they are consecutive from ``first_id``; ``list_sizes`` where there are several lists.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import positive_int
from annvq.indexes.ids import check_distinct
from annvq.kernels.store import CodeStore
from annvq.packing import pack, packed_bytes, unpack

Arrays = dict[str, npt.NDArray[Any]]


def store_to_stored(store: CodeStore, bits: Sequence[int]) -> tuple[dict[str, Any], Arrays]:
    """Config and tensors of a store."""
    tensors: Arrays = {}
    if store.has_blocks:
        layout = "blocks"
        tensors["codes"], ids, counts = store.export_blocks()
        if store.relabel is not None:
            tensors["relabel"] = store.relabel
    else:
        layout = "rows"
        codes, norms, ids, counts = store.export()
        tensors["codes"] = pack(codes, bits)
        if norms is not None:
            tensors["norms"] = norms
    config: dict[str, Any] = {"layout": layout, "n": len(ids)}
    if len(ids) and ids[-1] - ids[0] == len(ids) - 1 and (ids[1:] > ids[:-1]).all():
        config["first_id"] = int(ids[0])
    else:
        tensors["ids"] = ids
    if store.lists > 1:
        tensors["list_sizes"] = counts
    return config, tensors


def store_from_stored(
    config: dict[str, Any], tensors: Arrays, empty: CodeStore, bits: Sequence[int], *, mapped: bool
) -> CodeStore:
    """The inverse of :func:`store_to_stored`; takes the tensors it knows out of ``tensors``.

    Args:
        empty: a store of the shape that the index says.
        mapped: leave codes and ids where they are, and do not read them now.

    Raises:
        KeyError, TypeError, ValueError: something is missing or does not fit.
    """
    layout = config.get("layout", "rows")  # files of version 1 do not say
    if layout not in ("blocks", "rows"):
        raise ValueError(f"its layout is {layout!r}, expected 'blocks' or 'rows'")
    n = positive_int(config["n"], "n", low=0, high=1 << 48)
    blocks = layout == "blocks"
    if blocks and not empty.has_blocks:
        raise ValueError("its codes cannot lie in blocks")
    in_codes = [*bits, 8] if blocks and empty.norm else bits
    expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "codes": (np.dtype(np.uint8), (packed_bytes(n, in_codes),))
    }
    if "ids" in tensors or "first_id" not in config:
        expected["ids"] = (np.dtype(np.int64), (n,))
    if not blocks and ("norms" in tensors or empty.norm is not None):
        expected["norms"] = (np.dtype(empty.norm or np.uint8), (n if empty.norm else 0,))
    if "relabel" in tensors:
        expected["relabel"] = (np.dtype(np.uint8), (empty.M, 256))
    if empty.lists > 1:
        expected["list_sizes"] = (np.dtype(np.int64), (empty.lists,))
    found = {name: (tensors[name].dtype, tensors[name].shape) for name in expected if name in tensors}
    if found != expected:
        raise ValueError(f"its tensors are {found}, expected {expected}")
    taken = {name: tensors.pop(name) for name in expected}
    counts = taken.get("list_sizes", np.array([n], np.int64))
    if counts.min() < 0 or counts.max() > n or counts.sum() != n:
        raise ValueError(f"its list sizes must add up to {n}, got {counts.sum()} with a least of {counts.min()}")
    first = None
    if "ids" not in taken:
        first = positive_int(config["first_id"], "first_id", low=0, high=np.iinfo(np.int64).max - n)
    elif not mapped:
        check_distinct(taken["ids"])
    if blocks:
        ids = taken["ids"] if first is None else first
        return empty.filled_from_blocks(taken["codes"], ids, counts, taken.get("relabel"), mapped=mapped)
    codes = unpack(taken["codes"], n, bits, empty.code_dtype)
    ids = np.arange(first, first + n, dtype=np.int64) if first is not None else np.array(taken["ids"])
    check_distinct(ids)
    lists = np.repeat(np.arange(empty.lists, dtype=np.int32), counts) if empty.lists > 1 else None
    empty.append(codes, taken.get("norms") if empty.norm else None, ids, lists, known_new=True)
    return empty
