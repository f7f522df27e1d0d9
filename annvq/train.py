"""``torchrun --nproc-per-node N -m annvq.train DATA --out FILE``: ``annvq train`` over several processes.

Each process reads and holds its share of the vectors; what is learned does not depend on their number.
``docs/scale.md`` says more.
"""

import os
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from annvq.cli import main
from annvq.cli.index import learner, learning, save_learned
from annvq.cli.shared import FILE, require_writable, use_threads
from annvq.threads import get_num_threads, usable_cores
from annvq.training import Processes


@click.command()
@learning
@click.option("--checkpoint", type=FILE, help="File to keep what is learned in, and to go on from.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds that a process waits for another before it gives up.",
)
def train(out: Path, seed: int, threads: int | None, checkpoint: Path | None, timeout: float, **what: Any) -> None:
    """Learn a quantizer from DATA, as `annvq train` does, over the processes that torchrun starts.

    \b
    torchrun --nproc-per-node 4 -m annvq.train vectors.npy --kind residual --out code.annvq

    DATA must be the same for every process; each reads its share. With --checkpoint a run that was stopped goes on
    when the same command is given again, over as many processes as you like.
    """
    require_writable(out)
    if checkpoint is not None:
        require_writable(checkpoint)
    use_threads(threads or max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    quantizer, x = learner(**what)
    with Processes.started(timeout=timeout) as processes:
        first, began = processes.rank == 0, perf_counter()
        quantizer.fit(x, seed=seed, progress=first, processes=processes, checkpoint=checkpoint)
        if first:
            save_learned(quantizer, out, x)
            took = perf_counter() - began
            click.echo(f"processes: {processes.size}, threads of each: {get_num_threads()}; {took:.1f} s")


if __name__ == "__main__":
    main(command=train, name="annvq.train")
