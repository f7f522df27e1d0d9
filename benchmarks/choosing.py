"""How far `annvq choose` is from measuring every code of its grid on the whole sample: the table of docs/choose.md.

    python benchmarks/choosing.py PATH --bits 64 --keep FOLDER [--share 0.1 | --seconds 60] [--sample 50000]

Every code is measured first, then `choose` is given a share of the time that took, on the same sample. The code that it
recommends is looked up among those that were measured in full, so both are compared by the same figure. FOLDER keeps
what was measured in full: the script goes on from there. On a machine that others use, too, `--processor-time` counts
seconds of processor time in place of the clock's; give one thread then.
"""

import time
from dataclasses import asdict
from pathlib import Path

import click

from annvq.benchmarks.results import read_rows
from annvq.benchmarks.statistics import told_apart
from annvq.benchmarks.vectors import load_dataset
from annvq.choosing import Candidate, Choice, choose, measuring
from annvq.choosing import choice as choice_module
from annvq.choosing.forms import PLAIN


def plain(choice: Choice) -> Candidate:
    """The code of the grid that was recommended; where a form of one was, the best of its kind."""
    best = choice.recommended
    alike = [c for c in choice.candidates if c.form == PLAIN and c.kind == best.kind and c.stage == best.stage]
    return best if best.form == PLAIN else max(alike, key=lambda c: c.recall or 0.0)


@click.command()
@click.argument("path")
@click.option("--bits", default=64, show_default=True)
@click.option("--share", default=0.1, show_default=True, help="Of the time of measuring all that choose is given.")
@click.option("--seconds", type=float, help="In place of --share: that choose is given.")
@click.option("--processor-time", is_flag=True, help="Count seconds of processor time.")
@click.option("--sample", default=50_000, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of measurements.")
def main(
    path: str, bits: int, share: float, seconds: float | None, processor_time: bool, sample: int, threads: int,
    seed: int, keep: Path,
) -> None:  # fmt: skip
    if processor_time:
        choice_module.perf_counter = measuring.perf_counter = time.perf_counter = time.process_time
    data = load_dataset(path)
    asked = {"bits": bits, "metric": data.metric, "sample": sample, "threads": threads, "seed": seed}
    # As many as the sample: other forms and predictions are not compared, and among more vectors they take long.
    whole = choose(data.base, exhaustive=True, keep=keep, n=sample, **asked)
    grid = [c for c in whole.candidates if c.form == PLAIN]
    measured = sorted((c for c in grid if c.recall is not None), key=lambda c: -c.recall)
    for c in measured:
        print(f"{c.recall:.4f} {c.label}")
    took = sum(
        row.get("took", 0.0)
        for row in read_rows(keep / "results.jsonl")
        if row.get("what", {}).get("form") == asdict(PLAIN)
    )
    best = measured[0]
    print(f"all of them, {took:.0f} s: {best.label}", flush=True)
    short = choose(data.base, seconds=share * took if seconds is None else seconds, **asked)
    print(f"choose, {short.seconds:.0f} s: {short.recommended.label}\n{short.reason}\n{short.effort()}")
    pick = next(c for c in measured if c.identity == plain(short).identity)
    behind = 1 - pick.recall / best.recall
    apart = "" if told_apart(pick.recall_figure, best.recall_figure) else ", which these queries do not tell apart"
    print(f"in full, its code finds {pick.recall:.4f}, the best {best.recall:.4f}: {behind:.2%} less{apart}")
    print(f"time: {short.seconds / took:.2f} of the whole")


if __name__ == "__main__":
    main()
