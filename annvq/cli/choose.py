"""``annvq choose``."""

import json
from typing import Any

import click
from rich.console import Console

import annvq
from annvq.cli.console import wide_console


@click.command()
@click.argument("data")
@click.option("--bits", type=click.IntRange(min=1), default=64, show_default=True, help="Bits per vector in all.")
@click.option("--metric", type=click.Choice(["l2", "ip", "cosine"]), help="[default: the data set's, else l2]")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Time to spend: codes that would not end within it are not measured.",
)
@click.option("--sample", type=click.IntRange(min=1), default=50_000, show_default=True, help="Vectors measured on.")
@click.option(
    "--queries", "nq", type=click.IntRange(min=1), default=500, show_default=True, help="Held out as queries."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def choose(
    data: str,
    bits: int,
    metric: str | None,
    seconds: float,
    sample: int,
    nq: int,
    seed: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure codes of BITS bits per vector on a sample of your vectors and recommend one.

    DATA is a file of vectors, or a data set by name or path. Queries are held out of the sample; a set's
    own queries are not used. Every stored bit is charged: the norm of residual and additive codes comes out
    of BITS.

    Codes are screened on a part of the sample with very short training, the cheapest first, the best again on
    as much of it as time allows; the table says which rows are estimates, and which codes there was no time
    for. More --sample and --seconds measure more closely.
    """
    from annvq import choosing  # with PyTorch
    from annvq.cli.progress import Bar

    x, its_metric = _sample_source(data)
    with Bar(Console(stderr=True)) as observer:
        choice = choosing.choose(
            x,
            bits=bits,
            metric=metric or its_metric,
            seconds=seconds,
            sample=sample,
            nq=nq,
            seed=seed,
            threads=threads,
            observer=observer,
        )
    if as_json:
        click.echo(json.dumps(choice.to_dict(), indent=1))
        return
    out = wide_console()
    out.print(choice.table())
    out.print(choice.effort(), highlight=False)
    out.print(f"\n[bold]Recommended: {choice.recommended.label}[/bold]\n{choice.reason}")
    out.print(f"\n{choice.recommended.code_line()}", highlight=False)


def _sample_source(data: str) -> tuple[Any, str]:
    """The vectors to sample from, and the metric that comes with them."""
    from annvq.datasets.files import plain

    if plain(data):
        return annvq.datasets.load_vectors(data), "l2"
    held = annvq.datasets.load(data)
    return held.base, held.metric
