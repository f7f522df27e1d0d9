"""What a user calls: sets by name or path, plain vectors by path, and splits of one's own vectors."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from annvq.arrays import check_vectors
from annvq.columns import exports_arrow, refuse_no_table
from annvq.datasets import builtin, cards, download, files, loading, tables
from annvq.datasets.dataset import Dataset, Vectors, as_vectors, check_metric, check_positive
from annvq.optional import needed_by
from annvq.paths import check_path

_BUILTIN = "patches"
_BUILTIN_ALIASES = {"builtin": _BUILTIN}


def names() -> list[str]:
    """The sets that :func:`load` knows by name: the built-in one, then those with a card."""
    return [_BUILTIN, *sorted(cards.all_cards())]


def info(name: str) -> dict[str, Any]:
    """What is known of a named set without loading it.

    Returns:
        name, aliases, metric, n, d, nq, bytes (of the download; 0 where unknown), licence, citation, urls,
        path (where the file is or will be; None for the built-in set), downloaded.

    Raises:
        ValueError: no set of that name; the message lists the known ones.
    """
    name = _resolve(name)
    if name == _BUILTIN:
        return {
            "name": _BUILTIN,
            "aliases": list(_BUILTIN_ALIASES),
            "metric": "l2",
            "n": builtin.N,
            "d": 64,
            "nq": builtin.NQ,
            "bytes": 0,
            "licence": builtin.PATCHES_LICENCE,
            "citation": "8×8 grey patches of scikit-learn's sample photographs",
            "urls": [],
            "path": None,
            "downloaded": True,
        }
    card = cards.all_cards()[name]
    return {**card.describe(), "path": str(card.path), "downloaded": card.path.is_file()}


@needed_by("annvq.datasets.get")
def get(name: str, *, progress: bool | None = None) -> Path | None:
    """Make sure that a named set is on disk, downloading it if need be, and return the file's path.

    The built-in set has no file: None.

    Raises:
        ValueError: no set of that name, or a file whose size or checksum is wrong.
        DownloadError: no address could be reached; the message says where to put the file by hand.
    """
    name = _resolve(name)
    return None if name == _BUILTIN else _fetch(name, progress)


@needed_by("annvq.datasets.load")
def load(
    name_or_path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    learn_size: int | None = None,
    k: int = 100,
    seed: int = 0,
    recompute: bool = False,
    progress: bool | None = None,
) -> Dataset:
    """A data set by name (downloaded on first use), or from a file or folder.

    Args:
        name_or_path: a name from :func:`names` or an alias; an HDF5 file of the ann-benchmarks layout; a
            folder with ``*_base.fvecs``, ``*_query.fvecs`` and perhaps ``*_learn.fvecs``,
            ``*_groundtruth.ivecs`` (or .ibin, and for vectors any format of :func:`load_vectors`).
        metric: ``"l2"``, ``"ip"`` or ``"cosine"``; None takes the set's own (``l2`` for a folder). Another
            than the set's own means that neighbours are computed.
        learn_size: at most so many training vectors, sampled with ``seed``; None takes all learn vectors of
            the set, or, where it has none, min(n, 100 000) base vectors (``learn_is_base_sample`` then says
            so).
        k: neighbours needed per query; where the file holds fewer, they are computed and cached.
        recompute: ignore the file's neighbours and compute them.
        progress: show progress bars; None shows them on a terminal.

    Raises:
        ValueError: an unknown name, a malformed file, a distance annvq does not know.
        FileNotFoundError: no such path.
        DownloadError: no address of the set could be reached.
    """
    given = check_path(name_or_path, "name_or_path")
    if metric is not None:
        check_metric(metric)
    options: dict[str, Any] = {
        "learn_size": learn_size,
        "k": k,
        "seed": seed,
        "recompute": recompute,
        "progress": progress,
    }
    if _is_path(name_or_path):
        return _load_path(Path(name_or_path), metric, options)
    name = _resolve(given)
    if name == _BUILTIN:
        base, learn, queries = builtin.patches()
        about = {"licence": builtin.PATCHES_LICENCE}
        return loading.assemble(
            name, metric or "l2", base, queries, learn=learn, source="scikit-learn", info=about, **options
        )
    path = _fetch(name, progress)
    return loading.from_hdf5(path, name=name, metric=metric, info=cards.all_cards()[name].describe(), **options)


@needed_by("annvq.datasets.load_vectors")
def load_vectors(path: str | os.PathLike[str], column: str | None = None) -> Vectors:
    """Vectors (n, d) from a file or from shards, read-only.

    Args:
        path: a file: .npy, .npz, .fvecs, .bvecs, .fbin, .u8bin, .i8bin, .hdf5 or .h5, .safetensors, .parquet, .arrow or
            .feather; or shards: a folder of files of one of these formats, or a pattern such as ``"shards/*.parquet"``,
            in the order of their names, without empty ones; of a folder that holds a data set, ``sift_base.fvecs``
            beside ``sift_query.fvecs``, the base. ``"table.parquet:text"`` says the column, too.
        column: which array, data set, tensor or column of the file, where it holds several. Left out: the only one of
            vectors; in an HDF5 file ``train``.

    Returns:
        A memory map where the format allows it. Of shards, Parquet and Arrow files, what has ``shape``, ``dtype`` and
        NumPy slicing and reads rows as they are asked for: a Parquet file one row group at a time. annvq takes it
        wherever it takes vectors, and ``numpy.asarray`` reads it whole.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a suffix annvq does not know, a malformed file, no such column or several that could be meant,
            shards of other dimensions than the first. Rows of a column that are null, or longer or shorter than the
            first, when they are read; the row is named.
        TypeError: the named column holds no vectors.
    """
    return files.read_vectors(check_path(path, "path"), column)


@needed_by("annvq.datasets.column")
def column(table: Any, name: str | None = None) -> Vectors:
    """Vectors (n, d) in a column of a table, read as they are asked for, from the table's own memory where it can be.

    Args:
        table: a table of pyarrow's, or what exports Arrow (polars, pandas, a DuckDB relation), or a Hugging Face data
            set (``datasets.Dataset``). The column holds lists of float16, float32, float64, int8 or uint8.
        name: of the column; left out: the only one that holds vectors.

    Raises:
        TypeError: no such table, or the named column holds no vectors.
        ValueError: no such column, or several that could be meant; a null, or a row that is longer or shorter than the
            first, when it is read.
    """
    return as_vectors(tables.table_rows(table, name, "table"), "table")


@needed_by("annvq.datasets.from_vectors")
def from_vectors(
    x: Vectors,
    *,
    name: str = "vectors",
    metric: str = "l2",
    nq: int = 1000,
    learn_size: int | None = None,
    k: int = 100,
    seed: int = 0,
    progress: bool | None = None,
) -> Dataset:
    """A data set from plain vectors: ``nq`` random rows become queries, held out of base.

    Args:
        x: (n, d) vectors; copied in part, never modified.
        nq: queries to hold out, at most half of the rows.
        learn_size, k, progress: as in :func:`load`.
        seed: of the choice of queries and of the learn sample.

    Raises:
        ValueError: too few rows, a shape or element type that vectors cannot have.
    """
    refuse_no_table(x, "x")
    x = as_vectors(np.asanyarray(check_vectors(x, None) if exports_arrow(x) else x), "x")
    check_positive("nq", nq)
    if 2 * nq > len(x):
        raise ValueError(f"nq={nq} queries are more than half of the {len(x)} vectors")
    held_out = np.zeros(len(x), bool)
    held_out[np.random.default_rng(seed).choice(len(x), nq, replace=False)] = True
    base, queries = np.ascontiguousarray(x[~held_out]), np.ascontiguousarray(x[held_out])
    return loading.assemble(name, metric, base, queries, k=k, learn_size=learn_size, seed=seed, progress=progress)


def gaussian(
    d: int,
    n: int = 10_000,
    n_learn: int = 10_000,
    nq: int = 1_000,
    *,
    correlation: float = 0.0,
    metric: str = "l2",
    k: int = 100,
    seed: int = 0,
) -> Dataset:
    """A data set of normal samples: independent components, or neighbouring ones correlated.

    Components have mean 0, variance 1 and correlation ``correlation ** |i − j|``. Neighbours are computed and
    cached.

    Raises:
        ValueError: a size that is not positive, or a correlation outside [0, 1).
    """
    base, learn, queries = builtin.normal(d, n, n_learn, nq, correlation=correlation, seed=seed)
    name = f"gaussian-{d}" + (f"-corr{correlation:g}" if correlation else "")
    return loading.assemble(name, metric, base, queries, learn=learn, source=f"normal samples, seed {seed}", k=k)


def _resolve(name: str) -> str:
    aliases = _aliases()
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    name = aliases.get(name, name)
    if name not in names():
        raise ValueError(cards.unknown(name, [*names(), *aliases]))
    return name


def _aliases() -> dict[str, str]:
    by_card = {alias: card.name for card in cards.all_cards().values() for alias in card.aliases}
    return {**_BUILTIN_ALIASES, **by_card}


def _is_path(given: str | os.PathLike[str]) -> bool:
    if not isinstance(given, str):
        return True
    if os.sep in given or files.split_column(given)[0].suffix.lower() in files.READERS:
        return True
    # A folder in the current one, unless it has a set's name.
    return Path(given).exists() and given not in (*names(), *_aliases())


def _load_path(path: Path, metric: str | None, options: dict[str, Any]) -> Dataset:
    path = path.expanduser()
    if path.is_dir() and not files.plain(path):
        return loading.from_folder(path, metric=metric, **options)
    if files.plain(path):
        raise ValueError(f"{path}: vectors without queries; load_vectors() reads it, from_vectors() splits it")
    return loading.from_hdf5(path, name=path.stem, metric=metric, info={}, **options)


def _fetch(name: str, progress: bool | None) -> Path:
    return download.fetch(cards.all_cards()[name], progress=progress)
