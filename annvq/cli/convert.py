"""``annvq convert``."""

import click

from annvq.cli.shared import is_named, vectors


@click.command()
@click.argument("source")
@click.argument("target")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "uint8", "int8"]),
    help="Numbers in TARGET [default: as in SOURCE, or as the format has them].",
)
@click.option("--column", help="Of SOURCE, where it holds several arrays or columns.")
def convert(source: str, target: str, dtype: str | None, column: str | None) -> None:
    """Write the vectors of SOURCE to TARGET in another format, a part at a time.

    SOURCE is a file of vectors, a folder of shards, a pattern such as "shards/*.parquet", or a named data set (its
    base vectors). TARGET is a file; its suffix says the format, TARGET:NAME what the array or column is called.
    """
    from annvq import datasets

    given = vectors(source, "base") if column is None and is_named(source) else source
    path = datasets.convert(given, target, dtype=dtype, column=column, progress=True)
    click.echo(f"wrote {path}: {path.stat().st_size:,} bytes")
