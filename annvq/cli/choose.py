"""``annvq choose``."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import annvq
from annvq.cli.console import wide_console
from annvq.cli.shared import FILE, METRIC, THREADS, command_line, require_writable
from annvq.replacing import replacing


@click.command()
@click.argument("data")
@click.option(
    "--bits", type=click.IntRange(min=1), help="Bits per vector in all [default: 64, unless --recall alone is given]."
)
@click.option("--bytes-per-vector", type=click.IntRange(min=1), help="Instead of --bits: bytes per vector in all.")
@click.option("--memory", metavar="SIZE", help="Instead of --bits: memory (8GB) for --n vectors, their ids included.")
@click.option(
    "--n",
    "count",
    metavar="COUNT",
    help="Vectors that the index will hold (100e6): --memory is for these, and recall is predicted among them "
    "[default: those of DATA].",
)
@METRIC
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Time to spend: codes that would not end within it are not measured.",
)
@click.option(
    "--query-us",
    type=click.FloatRange(min=0, min_open=True),
    help="Microseconds that a query may take among --n vectors, about.",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="k-recall@k among --n vectors that is enough: the quickest code that is expected to reach it. Without --bits, "
    "--bytes-per-vector and --memory: the fewest bytes that do.",
)
@click.option(
    "--train-s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that learning the code from --n vectors may take, about.",
)
@click.option(
    "--k",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Results that are asked for: codes are ranked by k-recall@k.",
)
@click.option("--exhaustive", is_flag=True, help="Every code on the whole sample, whatever time it takes.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that what is measured is kept in: the same command goes on from there.",
)
@click.option("--fresh", is_flag=True, help="Forget what the folder of --keep holds.")
@click.option("--sample", type=click.IntRange(min=1), default=50_000, show_default=True, help="Vectors measured on.")
@click.option(
    "--queries", "nq", type=click.IntRange(min=1), default=500, show_default=True, help="Held out as queries."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@THREADS
@click.option(
    "-o",
    "--out",
    type=FILE,
    help="Write the recipe, a .toml file that `annvq build` takes, and a page beside it (.html).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def choose(
    data: str,
    bits: int | None,
    bytes_per_vector: int | None,
    memory: str | None,
    count: str | None,
    metric: str | None,
    seconds: float,
    query_us: float | None,
    recall: float | None,
    train_s: float | None,
    k: int,
    exhaustive: bool,
    keep: Path | None,
    fresh: bool,
    sample: int,
    nq: int,
    seed: int,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure codes of so many bits per vector on a sample of your vectors and recommend one.

    \b
    annvq choose vectors.npy --bits 64 -o choice.toml
    annvq choose vectors.npy --recall 0.9            the fewest bytes that reach it
    annvq build choice.toml vectors.npy index.annvq

    DATA is a file of vectors, or a data set by name or path. Queries are held out of the sample; a set's
    own queries are not used. Every stored bit is charged: the norm of residual and additive codes comes out
    of the budget.

    Codes are screened on a part of the sample with very short training, the cheapest first, the best again on
    as much of it as time allows; the table says which rows are estimates, and which codes there was no time
    for. Then the best are tried in lists and re-ranked, and recall among --n vectors is predicted. More
    --sample and --seconds measure more closely.
    """
    from annvq import choosing  # with PyTorch
    from annvq.choosing import budget, webpage
    from annvq.cli.progress import Bar

    if out is not None and out.suffix != ".toml":
        raise click.UsageError(f"--out must end in .toml, got {out}")
    n = None if count is None else budget.parse_count(count)
    amount = None if memory is None else budget.parse_bytes(memory)
    if bits is bytes_per_vector is amount is recall is None:
        bits = 64
    if fresh and keep is None:
        raise click.UsageError("--fresh forgets what the folder of --keep holds; give --keep")
    if out is not None:
        require_writable(out)
    x, its_metric = _sample_source(data)
    with Bar(Console(stderr=True)) as observer:
        choice = choosing.choose(
            x,
            bits=bits,
            bytes_per_vector=bytes_per_vector,
            memory=amount,
            n=n,
            metric=metric or its_metric,
            seconds=seconds,
            sample=sample,
            nq=nq,
            seed=seed,
            threads=threads,
            observer=observer,
            query_us=query_us,
            recall=recall,
            train_s=train_s,
            k=k,
            exhaustive=exhaustive,
            keep=keep,
            fresh=fresh,
        )
    if out is not None:
        command = command_line("out", "as_json")
        with replacing(out) as temporary:
            temporary.write_text(choosing.recipe_text(choice, command), encoding="utf-8")
        webpage.report(choice, out.with_suffix(".html"), command)
    if as_json:
        click.echo(json.dumps(choice.to_dict(), indent=1))
        return
    console = wide_console()
    console.print(choice.table())
    for line in (choice.effort(), *choice.unmeasured()):
        console.print(line, highlight=False, markup=False)
    console.print("\n".join([f"\n[bold]Recommended: {choice.recommended.label}[/bold]", *choice.said()]))
    console.print(f"\n{choice.recommended.code_line()}", highlight=False)
    if out is not None:
        click.echo(f"wrote {out} and {out.with_suffix('.html')}; next: annvq build {out} {data} index.annvq")


def _sample_source(data: str) -> tuple[Any, str]:
    """The vectors to sample from, and the metric that comes with them."""
    from annvq.datasets.files import plain, stated_metric

    if plain(data):
        return annvq.datasets.load_vectors(data), stated_metric(data) or "l2"
    held = annvq.datasets.load(data)
    return held.base, held.metric
