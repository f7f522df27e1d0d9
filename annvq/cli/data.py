"""``annvq datasets``."""

import click
from rich.console import Console
from rich.table import Table

import annvq


@click.group()
def datasets() -> None:
    """Named data sets: what there is, and fetching them."""


@datasets.command("list")
def list_() -> None:
    """List the named data sets."""
    table = Table()
    for name, side in (
        ("name", "left"),
        ("n", "right"),
        ("d", "right"),
        ("metric", "left"),
        ("here", "left"),
    ):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for name in annvq.datasets.names():
        facts = annvq.datasets.info(name)
        here = "built in" if facts["path"] is None else ("yes" if facts["downloaded"] else "no")
        table.add_row(name, f"{facts['n']:,}", str(facts["d"]), facts["metric"], here)
    Console().print(table)


@datasets.command("get")
@click.argument("name")
def get(name: str) -> None:
    """Download the data set NAME, resuming and verifying, and print where it is."""
    path = annvq.datasets.get(name, progress=True)
    click.echo(path if path is not None else f"{name} is built in; nothing to download")


@datasets.command("info")
@click.argument("name")
def info(name: str) -> None:
    """Say what is known of the data set NAME."""
    for key, value in annvq.datasets.info(name).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{key:<12}{shown}")
