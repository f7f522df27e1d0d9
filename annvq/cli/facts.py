"""``annvq info``, ``annvq complexity``, ``annvq config``."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import annvq
from annvq.bits import split_bits
from annvq.errors import FormatError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: Path, as_json: bool) -> None:
    """Say what FILE holds: a quantizer or an index."""
    facts = _facts(file)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        click.echo(f"{key:<24}{value}")


def _facts(file: Path) -> dict[str, Any]:
    try:
        index = annvq.load_index(file, mmap=True)
    except FormatError as not_an_index:
        try:
            quantizer = annvq.load_quantizer(file)
        except FormatError as not_a_quantizer:
            wrong = not_a_quantizer if "annvq.quantizer" in str(not_an_index) else not_an_index
            raise wrong from None
        return {
            "holds": "quantizer",
            "kind": quantizer.kind,
            **quantizer.config,
            "bits": quantizer.bits,
            "encode_wmops": quantizer.costs().wmops(),
            "file_bytes": file.stat().st_size,
        }
    return {"holds": "index", **index.facts(), "file_bytes": file.stat().st_size}


@click.command()
@click.option("--dim", type=int, default=128, show_default=True, help="Dimension of the vectors.")
@click.option("--bits", type=int, default=64, show_default=True, help="Bits per vector in all, norm included.")
@click.option("--nbits", type=int, default=8, show_default=True, help="At most so many bits per codebook.")
@click.option("--beam", type=int, help="Beam width of residual and additive codes [default: 1 and 16].")
@click.option("--convention", type=click.Choice(["full", "published"]), default="full", show_default=True)
@click.option("--precision", type=click.Choice(["single", "double"]), default="single", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def complexity(
    dim: int, bits: int, nbits: int, beam: int | None, convention: str, precision: str, as_json: bool
) -> None:
    """Count what product, residual and additive codes cost at a budget: encoding, tables, scanning.

    Counted, not measured: WMOPS are millions of weighted operations per vector. `published` is the
    convention of the ICASSP 2023 paper, which needs equal codebooks and counts greedy residual codes.
    """
    if not 1 <= nbits <= 16:
        raise click.UsageError(f"--nbits must be between 1 and 16, got {nbits}")
    rows = []
    for kind in annvq.complexity.KINDS:
        row: dict[str, Any] = {"kind": kind}
        try:
            per_codebook = split_bits(bits - (8 if kind != "product" else 0), nbits)
            shape: dict[str, Any] = {"dim": dim, "M": len(per_codebook), "nbits": per_codebook}
            greedy = kind == "product" or (kind == "residual" and convention == "published")
            shape_and_beam = {**shape, "beam": None if greedy else beam}
            cost = annvq.complexity.wmops(kind, **shape_and_beam, convention=convention, precision=precision)
            searching = annvq.complexity.search(kind, **shape)
            row |= {"code": "+".join(map(str, per_codebook)), "bits": searching.bits}
            row |= {"encode_wmops": cost, "tables_wmops": searching.tables.wmops(precision)}
            row |= {"lookups_per_vector": searching.lookups, "table_bytes": searching.table_bytes}
        except ValueError as error:
            row["error"] = str(error)
        rows.append(row)
    if all("error" in row for row in rows):
        raise ValueError(f"no code can be counted; the first: {rows[0]['error']}")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    _print_counts(rows, dim, bits)


def _print_counts(rows: list[dict[str, Any]], dim: int, bits: int) -> None:
    titles = ("code", "bits", "encode_wmops", "tables_wmops", "lookups_per_vector", "table_bytes")
    table = Table(title=f"d = {dim}, {bits} bits per vector in all", title_justify="left")
    table.add_column("kind")
    for title in titles:
        table.add_column(title.replace("_", " "), justify="right")
    for row in rows:
        if "error" in row:
            table.add_row(row["kind"], row["error"])
            continue
        cells = [format(row[t], ".4g") if isinstance(row[t], float) else str(row[t]) for t in titles]
        table.add_row(row["kind"], *cells)
    Console().print(table)


@click.command()
def config() -> None:
    """Print versions, SIMD level (in use and available) and threads."""
    annvq.show_config()
