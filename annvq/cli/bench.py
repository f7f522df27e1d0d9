"""``annvq bench``."""

from dataclasses import replace
from pathlib import Path

import click

from annvq.cli.console import wide_console
from annvq.cli.shared import FILE, command_line


@click.command()
@click.argument("suite", default="quickstart")
@click.option("--dataset", metavar="PATH_OR_NAME", help="Measure on this instead of the suite's data sets.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the results [default: annvq-bench/SUITE].",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads of annvq and FAISS alike [default: the suite's, or all cores].",
)
@click.option(
    "--resume/--fresh",
    default=True,
    help="Go on where an earlier run stopped, or start anew (with --point: that row).",
)
@click.option("--quick", is_flag=True, help="The suite's short form.")
@click.option(
    "--point", "only", multiple=True, help="Measure nothing but this row, as reports name it; may be repeated."
)
@click.option(
    "--published",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Suite paper: your copy of the published figures, to draw over.",
)
@click.option("--list", "listing", is_flag=True, help="List the suites and stop.")
def bench(
    suite: str,
    dataset: str | None,
    out: Path | None,
    threads: int | None,
    resume: bool,
    quick: bool,
    only: tuple[str, ...],
    published: Path | None,
    listing: bool,
) -> None:
    """Measure SUITE (a name or a .toml file) and write a report.

    Without an argument: annvq's product, residual and additive codes beside FAISS at 32 and 64 bits per
    vector in all, on vectors that need no download; about two minutes on two cores.

    \b
    annvq bench --dataset vectors.npy     the same on your vectors (queries are held out)
    annvq bench --dataset sift1m          the same on a named set
    annvq bench toy --quick               the toy experiment of the NSVQ paper, short form
    annvq bench paper --quick             all figures of that paper, ours beside the published ones

    OUT gets results.jsonl (a line per row, as it is measured), report.html, report.png and report.md.
    """
    from annvq.benchmarks import load_suite, run, suite_names
    from annvq.benchmarks.kinds import kind
    from annvq.cli.progress import Bar

    if listing:
        names = suite_names()
        for name in names:
            click.echo(f"{name:<{max(map(len, names)) + 2}}{load_suite(name).title}")
        return
    chosen = load_suite(suite, quick=quick)
    if published is not None:
        chosen = replace(chosen, settings={**chosen.settings, "published": str(published)})
    folder = out or Path("annvq-bench") / (chosen.name + ("-quick" if quick else ""))
    console = wide_console()
    with Bar(console) as observer:
        rows = run(
            chosen,
            out=folder,
            dataset=dataset,
            threads=threads,
            fresh=not resume,
            only=only,
            command=command_line("out", "resume", "only", "published"),
            observer=observer,
        )
    for table in kind(chosen.kind).tables(rows):
        console.print(table)
    click.echo(f"wrote {folder / 'results.jsonl'} and {folder / 'report.html'}")
    failed = [row for row in rows if row["error"] is not None]
    if failed:
        click.echo(f"{len(failed)} of {len(rows)} rows failed; each says why", err=True)
    if len(failed) == len(rows):
        raise RuntimeError(f"no row could be measured; the first: {rows[0]['error'] if rows else 'none'}")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=FILE, default=Path("report.html"), show_default=True)
@click.option("--title", default="annvq bench", show_default=True, help="Of the page.")
def report(results: tuple[Path, ...], out: Path, title: str) -> None:
    """Show RESULTS as one page that needs no network: charts, tables, downloads.

    RESULTS are folders that `annvq bench` wrote, or their results.jsonl. Of several, methods are told apart by the
    folder's name, so that two runs can be compared.
    """
    from annvq.benchmarks import webpage

    rows = webpage.read_results(results)
    size = webpage.report(rows, out, title)
    click.echo(f"wrote {out}: {len(rows):,} rows, {size:,} bytes")
