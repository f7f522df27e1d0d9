"""HDF5 files in the ann-benchmarks layout.

Datasets ``train``, ``test``, ``neighbors`` and ``distances``, and an attribute ``distance``; ``learn`` is
ours and optional. Vectors stored contiguously and uncompressed, as these files store them, are memory-mapped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import BFLOAT16
from annvq.datasets.dataset import Vectors, as_vectors
from annvq.datasets.vecs import require_file

SUFFIXES = (".hdf5", ".h5")

#: ann-benchmarks' names of a distance, and other files', → annvq's metrics.
_METRICS = {
    "euclidean": "l2",
    "l2": "l2",
    "angular": "cosine",
    "cosine": "cosine",
    "dot": "ip",
    "ip": "ip",
    "inner_product": "ip",
}


@dataclass(frozen=True)
class Contents:
    """What a file holds, its distances as stored; ``None`` where it has no such dataset."""

    metric: str | None
    base: Vectors
    queries: Vectors
    learn: Vectors | None
    neighbors: npt.NDArray[Any] | None
    distances: npt.NDArray[Any] | None


def read(path: str | Path) -> Contents:
    """Read a file of the ann-benchmarks layout.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not HDF5, ``train`` or ``test`` missing or of a wrong shape, a distance annvq does not
            know.
    """
    path = Path(path)
    with _open(path) as file:
        missing = [name for name in ("train", "test") if name not in file]
        if missing:
            raise ValueError(
                f"{path}: no dataset {' or '.join(map(repr, missing))} in it (it has {_names(file)}); "
                "expected ann-benchmarks' layout: train, test, optionally learn, neighbors and distances; "
                f"where one alone is meant, {str(path) + ':NAME'!r} names it"
            )
        return Contents(
            metric=_metric(path, file),
            base=_vectors(path, file, "train"),
            queries=_vectors(path, file, "test"),
            learn=_vectors(path, file, "learn") if "learn" in file else None,
            neighbors=_table(path, file, "neighbors"),
            distances=_table(path, file, "distances"),
        )


def read_vectors(path: str | Path, name: str | None = None) -> Vectors:
    """The vectors of an HDF5 file: the named dataset, else ``train``, or its only two-dimensional dataset.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not HDF5, no such dataset, or more than one that could be meant.
    """
    path = Path(path)
    with _open(path) as file:
        if name is not None and name not in file:
            raise ValueError(f"{path}: no dataset {name!r} in it; it has {_names(file)}")
        if name is not None:
            return _vectors(path, file, name)
        if "train" in file:
            return _vectors(path, file, "train")
        tables = [name for name in file if getattr(file[name], "ndim", 0) == 2]
        if len(tables) != 1:
            raise ValueError(
                f"{path}: expected a dataset 'train' or one two-dimensional dataset, it has {_names(file)}"
            )
        return _vectors(path, file, tables[0])


def vectors_alone(path: Path) -> bool:
    """Whether a file holds something, but neither queries nor learn vectors, and so no data set. One that cannot be
    read might."""
    try:
        with _open(path) as file:
            return len(file) > 0 and not any(name in file for name in ("test", "learn"))
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong


def stated_metric(path: Path) -> str | None:
    """The metric that the file's attribute ``distance`` says; None where it has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not HDF5, or a distance annvq does not know.
    """
    with _open(path) as file:
        return _metric(path, file)


def _open(path: Path) -> Any:
    import h5py

    require_file(path)
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file, or a truncated one ({error})") from error


def _names(file: Any) -> str:
    return ", ".join(map(repr, file)) or "nothing"


def _metric(path: Path, file: Any) -> str | None:
    stated = file.attrs.get("distance")
    if stated is None:
        return None
    if isinstance(stated, bytes):
        stated = stated.decode("utf-8", "replace")
    known = _METRICS.get(str(stated).lower())
    if known is None:
        raise ValueError(
            f"{path}: distance {str(stated)!r} is not supported; "
            "annvq knows euclidean (l2), angular (cosine) and dot (ip)"
        )
    return known


def _vectors(path: Path, file: Any, name: str) -> Vectors:
    import h5py

    stored = file[name]
    if not isinstance(stored, h5py.Dataset):
        raise ValueError(f"{path}: {name!r} is a group, not a dataset")
    return as_vectors(_map(path, stored), f"{path}: dataset {name!r}")


def _numbers(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type lie in a file as they lie in memory: numbers, or two bytes that are a bfloat16."""
    return dtype.kind in "fiu" or dtype == BFLOAT16


def _map(path: Path, stored: Any) -> npt.NDArray[Any]:
    # No offset: chunked, compressed or never written; external: the bytes are in another file.
    offset = stored.id.get_offset()
    if offset is None or stored.external or not _numbers(stored.dtype) or 0 in stored.shape:
        return np.asarray(stored[()])
    end = offset + stored.size * stored.dtype.itemsize
    if path.stat().st_size < end:
        raise ValueError(
            f"{path}: truncated: dataset {stored.name!r} ends at byte {end}, the file has {path.stat().st_size}"
        )
    return np.memmap(path, dtype=stored.dtype, mode="r", offset=offset, shape=stored.shape)


def _table(path: Path, file: Any, name: str) -> npt.NDArray[Any] | None:
    if name not in file:
        return None
    values = np.asarray(file[name][()])
    if values.ndim != 2 or len(values) != len(file["test"]) or values.shape[1] < 1:
        raise ValueError(
            f"{path}: dataset {name!r} must have one row per query, ({len(file['test'])}, k); "
            f"it has shape {values.shape}"
        )
    if values.dtype.kind not in ("iu" if name == "neighbors" else "f"):
        raise ValueError(f"{path}: dataset {name!r} holds {values.dtype} values")
    return values
