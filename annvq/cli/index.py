"""``annvq train``, ``annvq search``."""

import inspect
import os
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(dir_okay=False, path_type=Path)
_THREADS = click.option("--threads", type=click.IntRange(min=1), help="Threads [default: all cores].")
_METRIC = click.option("--metric", type=click.Choice(["l2", "ip", "cosine"]), help="[default: the data set's, else l2]")


def _use(threads: int | None) -> None:
    if threads is not None:
        from annvq import set_num_threads

        set_num_threads(threads)


def _is_named(data: str) -> bool:

    return not Path(data).exists() and "/" not in data and not Path(data).suffix


def _vectors(data: str, part: str) -> Any:
    """The vectors of a file, or ``part`` of a named data set."""
    from annvq import datasets

    if _is_named(data):
        return getattr(datasets.load(data), part)
    path = Path(data)
    if part == "learn" and path.suffix in (".hdf5", ".h5"):
        return datasets.load(data).learn
    if part == "queries" and path.suffix in (".hdf5", ".h5"):
        return datasets.load(data).queries
    return datasets.load_vectors(path)


def _make(kind: str, dim: int, bits: int, nbits: int, norm_bits: int, beam: int | None) -> Any:
    from annvq.bits import codebook_bits
    from annvq.quantizers import make
    from annvq.quantizers.registry import quantizer_class

    per_codebook = codebook_bits(kind, dim, bits - norm_bits, nbits)
    equal = len(set(per_codebook)) == 1
    extra = {} if beam is None else {"beam": beam}
    if extra and "beam" not in inspect.signature(quantizer_class(kind)).parameters:
        raise click.UsageError(f"--beam is for residual and additive codes, {kind!r} has none")
    return make(kind, dim=dim, M=len(per_codebook), nbits=per_codebook[0] if equal else per_codebook, **extra)


@click.command()
@click.argument("data")
@click.option("--out", type=_FILE, required=True, help="File of the quantizer.")
@click.option("--kind", default="additive", show_default=True, help="product, rotated-product, residual, additive, …")
@click.option("--bits", type=click.IntRange(min=1), default=64, show_default=True, help="Bits per vector in all.")
@click.option("--nbits", type=click.IntRange(1, 16), default=8, show_default=True, help="At most, per codebook.")
@click.option("--beam", type=click.IntRange(min=1), help="Beam width of residual and additive codes.")
@_METRIC
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_THREADS
def train(
    data: str,
    out: Path,
    kind: str,
    bits: int,
    nbits: int,
    beam: int | None,
    metric: str | None,
    seed: int,
    threads: int | None,
) -> None:
    """Learn a quantizer from DATA (the learn vectors of a data set, or a file of vectors).

    Under l2, residual and additive codes pay one byte of BITS for the norm that an index stores.
    """
    import numpy as np

    from annvq.arrays import normalized
    from annvq.quantizers.registry import pays_norm

    if not os.access(out.parent, os.W_OK):  # training may take long
        raise OSError(f"cannot write {out}: no folder {out.parent} that can be written to")
    _use(threads)
    x = _vectors(data, "learn")
    charged = 8 if pays_norm(kind, metric or "l2") else 0
    quantizer = _make(kind, int(x.shape[1]), bits, nbits, charged, beam)
    if metric == "cosine":
        x = normalized(np.asarray(x, dtype=np.float32))
    quantizer.fit(x, seed=seed, progress=True)
    quantizer.save(out)
    click.echo(f"wrote {out}: {kind}, {quantizer.bits} bits a code, learned from {len(x):,} vectors")


@click.command()
@click.argument("index", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("queries")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Neighbours per query.")
@click.option("--out", type=_FILE, help="Write .npz (ids and distances) or .ivecs (ids) instead of a table.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first LIMIT queries.")
@click.option("--nprobe", type=click.IntRange(min=1), help="Lists to scan [default: as measured when it was built].")
@click.option("--shortlist", type=click.IntRange(min=1), help="Vectors to re-rank [default: as measured].")
@click.option(
    "--allow",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=".npy file of the ids that may be found, or of one bool for each id.",
)
@_THREADS
def search(
    index: Path,
    queries: str,
    k: int,
    out: Path | None,
    limit: int | None,
    nprobe: int | None,
    shortlist: int | None,
    allow: Path | None,
    threads: int | None,
) -> None:
    """Search INDEX for the nearest neighbours of QUERIES (a file of vectors or a named data set).

    Without --out, prints the results of the first ten queries.
    """
    import numpy as np

    from annvq.datasets.vecs import read_array
    from annvq.indexes import load_index

    if out is not None and out.suffix not in (".npz", ".ivecs"):
        raise click.UsageError(f"--out must end in .npz or .ivecs, got {out.name!r}")
    _use(threads)
    loaded = load_index(index, mmap=True)
    asked = _vectors(queries, "queries")[:limit]
    if out is None:
        asked = asked[: limit or 10]
    settings = _settings(loaded, nprobe=nprobe, shortlist=shortlist)
    filter = None if allow is None else read_array(allow)
    distances, ids = loaded.search(np.ascontiguousarray(asked), k, filter=filter, **settings)
    if out is None:
        for number, (row, values) in enumerate(zip(ids, distances, strict=True)):
            click.echo(f"query {number}: " + "  ".join(f"{i}:{v:.6g}" for i, v in zip(row, values, strict=True)))
        return
    if out.suffix == ".npz":
        np.savez(out, ids=ids, distances=distances)
    else:
        if len(ids) and int(ids.max()) > np.iinfo(np.int32).max:
            raise ValueError(".ivecs holds 32-bit ids and some are larger; write .npz")
        counts = np.full((len(ids), 1), ids.shape[1], dtype=np.int32)
        np.hstack([counts, ids.astype(np.int32)]).astype("<i4").tofile(out)
    click.echo(f"wrote {out}: {len(ids):,} queries, k = {k}")


def _settings(index: Any, **given: int | None) -> dict[str, int]:
    """What was given of an index's own search settings; UsageError for what it does not have."""
    known = inspect.signature(index.search).parameters
    asked = {name: value for name, value in given.items() if value is not None}
    for name in asked.keys() - known.keys():
        raise click.UsageError(f"--{name} means nothing to an index of kind {index.kind!r}")
    return asked
