"""``annvq train``, ``annvq search``."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import annvq
from annvq.cli.shared import FILE, METRIC, THREADS, make_quantizer, require_writable, use_threads, vectors

Command = TypeVar("Command", bound=Callable[..., Any])

_LEARNING = (
    click.argument("data"),
    click.option("--out", type=FILE, required=True, help="File of the quantizer."),
    click.option(
        "--kind", default="additive", show_default=True, help="product, rotated-product, residual, additive, …"
    ),
    click.option("--bits", type=click.IntRange(min=1), default=64, show_default=True, help="Bits per vector in all."),
    click.option("--nbits", type=click.IntRange(1, 16), default=8, show_default=True, help="At most, per codebook."),
    click.option("--beam", type=click.IntRange(min=1), help="Beam width of residual and additive codes."),
    click.option("--dims", type=click.IntRange(min=1), help="Only the first DIMS dimensions of each vector."),
    METRIC,
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    THREADS,
)


def learning(command: Command) -> Command:
    """Give a command the argument and options of what it learns, and from what."""
    for option in reversed(_LEARNING):
        command = option(command)
    return command


@click.command()
@learning
def train(out: Path, seed: int, threads: int | None, **what: Any) -> None:
    """Learn a quantizer from DATA (the learn vectors of a data set, or a file of vectors).

    Under l2, residual and additive codes pay one byte of BITS for the norm that an index stores. `torchrun -m
    annvq.train` does the same over several processes.
    """
    require_writable(out)  # training may take long
    use_threads(threads)
    quantizer, x = learner(**what)
    quantizer.fit(x, seed=seed, progress=True)
    save_learned(quantizer, out, x)


def learner(
    data: str, kind: str, bits: int, nbits: int, beam: int | None, dims: int | None, metric: str | None
) -> tuple[Any, Any]:
    """The quantizer that options say, untrained, and the vectors to learn from as it sees them."""
    from annvq.arrays import normalized
    from annvq.indexes.learning import ComparedRows
    from annvq.quantizers.modules.registry import pays_norm

    x = vectors(data, "learn")
    if dims is not None and dims > x.shape[1]:
        raise click.UsageError(f"--dims must be at most {x.shape[1]}, the vectors' dimension, got {dims}")
    seen = dims or int(x.shape[1])
    charged = 8 if pays_norm(kind, metric or "l2") else 0
    quantizer = make_quantizer(kind, seen, bits, nbits, charged, beam)
    if dims is not None or metric == "cosine":

        def compared(rows: Any, name: str, start: int) -> Any:
            return normalized(rows[:, :seen], name, start) if metric == "cosine" else rows[:, :seen]

        x = ComparedRows(x, seen, compared)
    return quantizer, x


def save_learned(quantizer: Any, out: Path, x: Any) -> None:
    """Write a quantizer that was learned from vectors x, and say so."""
    quantizer.save(out)
    click.echo(f"wrote {out}: {quantizer.kind}, {quantizer.bits} bits a code, learned from {len(x):,} vectors")


@click.command()
@click.argument("index", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("queries")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Neighbours per query.")
@click.option("--out", type=FILE, help="Write .npz (ids or keys, and distances) or .ivecs (ids) instead of a table.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first LIMIT queries.")
@click.option("--nprobe", type=click.IntRange(min=1), help="Lists to scan [default: as measured when it was built].")
@click.option("--shortlist", type=click.IntRange(min=1), help="Vectors to re-rank [default: as measured].")
@click.option(
    "--allow",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=".npy file of the ids (or keys) that may be found, or of one bool for each id.",
)
@THREADS
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

    if out is not None and out.suffix not in (".npz", ".ivecs"):
        raise click.UsageError(f"--out must end in .npz or .ivecs, got {out.name!r}")
    if out is not None:
        require_writable(out)
    use_threads(threads)
    loaded = annvq.load_index(index, mmap=True)
    keyed = isinstance(loaded, annvq.KeyedIndex)
    if keyed and out is not None and out.suffix == ".ivecs":
        raise ValueError(f"{out}: .ivecs holds numbers and this index finds keys; write .npz")
    asked = vectors(queries, "queries")[:limit]
    if out is None:
        asked = asked[: limit or 10]
    settings = _settings(loaded, nprobe=nprobe, shortlist=shortlist)
    filter = None if allow is None else read_array(allow)
    distances, ids = loaded.search(np.ascontiguousarray(asked), k, filter=filter, **settings)
    if keyed:
        ids = np.array([_text(key) for key in ids.ravel().tolist()]).reshape(ids.shape)
    if out is None:
        for number, (row, values) in enumerate(zip(ids, distances, strict=True)):
            click.echo(f"query {number}: " + "  ".join(f"{i}:{v:.6g}" for i, v in zip(row, values, strict=True)))
        return
    if out.suffix == ".npz":
        np.savez(out, distances=distances, **{"keys" if keyed else "ids": ids})
    else:
        if len(ids) and int(ids.max()) > np.iinfo(np.int32).max:
            raise ValueError(".ivecs holds 32-bit ids and some are larger; write .npz")
        counts = np.full((len(ids), 1), ids.shape[1], dtype=np.int32)
        np.hstack([counts, ids.astype(np.int32)]).astype("<i4").tofile(out)
    click.echo(f"wrote {out}: {len(ids):,} queries, k = {k}")


def _text(key: Any) -> str:
    """A key as text: bytes in hexadecimal, nothing for None."""
    return "" if key is None else key.hex() if isinstance(key, bytes) else str(key)


def _settings(index: Any, **given: int | None) -> dict[str, int]:
    """What was given of an index's own search settings; UsageError for what it does not have."""
    index = index.index if isinstance(index, annvq.KeyedIndex) else index
    known = inspect.signature(index.search).parameters
    asked = {name: value for name, value in given.items() if value is not None}
    for name in asked.keys() - known.keys():
        raise click.UsageError(f"--{name} means nothing to an index of kind {index.kind!r}")
    return asked
