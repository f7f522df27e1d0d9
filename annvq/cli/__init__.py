"""``annvq …``: the command line. Heavy libraries are imported where they are used.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from annvq import __version__
from annvq.cli import bench, build, choose, convert, data, facts, index

_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="annvq")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (so does ANNVQ_DEBUG=1).")
def cli(debug: bool) -> None:
    """Nearest-neighbour search on learned vector quantization.

    \b
    annvq bench                        compare annvq with FAISS at equal bits, on built-in vectors
    annvq report annvq-bench/*         results as one page, with charts
    annvq choose VECTORS --bits 64     find the best code for your vectors at a budget
    annvq train VECTORS --out q.annvq  learn a quantizer
    annvq build ivf-rvq-7x8 VECTORS index.annvq
    annvq search index.annvq QUERIES
    annvq convert shards/ vectors.npy  write vectors in another format

    VECTORS and QUERIES are files of vectors (.npy, .npz, .fvecs, .bvecs, .fbin, .u8bin, .i8bin, .hdf5,
    .safetensors, .parquet, .arrow), where it holds several with the name of one (table.parquet:text); folders
    of such files; or, where a data set is meant, a name from `annvq datasets list`.
    """


for command in (
    bench.bench,
    bench.report,
    choose.choose,
    data.datasets,
    convert.convert,
    index.train,
    build.build,
    index.search,
    facts.info,
    facts.complexity,
    facts.config,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None, *, command: click.Command = cli, name: str = "annvq") -> NoReturn:
    """Run the command line, or another command of this name, and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("ANNVQ_DEBUG", "") not in ("", "0")
    try:
        sys.exit(command.main(args=given, prog_name=name, standalone_mode=False))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except _EXPECTED as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        click.echo(f"{name}: error: {text}", err=True)
        sys.exit(1)
