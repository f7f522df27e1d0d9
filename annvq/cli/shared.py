"""Options and arguments that several commands take."""

import inspect
import os
import shlex
from pathlib import Path
from typing import Any

import click

import annvq
from annvq.bits import split_bits
from annvq.replacing import destination

FILE = click.Path(dir_okay=False, path_type=Path)
THREADS = click.option("--threads", type=click.IntRange(min=1), help="Threads [default: all cores].")
METRIC = click.option("--metric", type=click.Choice(["l2", "ip", "cosine"]), help="[default: the data set's, else l2]")


def require_writable(out: Path) -> None:
    """Raise an error unless ``out`` is a file that can be written or made; said before what is written takes long."""
    target = destination(out)
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"cannot write {out}: no folder {out.parent} that can be written to")


def command_line(*without: str) -> str:
    """The command that is running, as it was given, less the options of these names."""
    context = click.get_current_context()
    words = ["annvq", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
        value = context.params.get(name)
        if not given or name in without:
            continue
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append((parameter.opts if value else parameter.secondary_opts)[-1])
        else:
            words += [*parameter.opts[-1:] * isinstance(parameter, click.Option), str(value)]
    return shlex.join(words)


def use_threads(threads: int | None) -> None:
    """Use so many threads from now on; None: as many as by default."""
    if threads is not None:
        annvq.set_num_threads(threads)


def is_named(data: str) -> bool:
    """Whether this is the name of a data set, and no path."""
    from annvq.datasets.files import plain

    return not Path(data).exists() and "/" not in data and not Path(data).suffix and not plain(data)


def vectors(data: str, part: str) -> Any:
    """The vectors at a path, or ``part`` of a named data set or of a file that holds one."""
    from annvq.datasets.files import plain

    if is_named(data) or (part in ("learn", "queries") and not plain(data)):
        return getattr(annvq.datasets.load(data), part)
    return annvq.datasets.load_vectors(data)


def make_quantizer(kind: str, dim: int, bits: int, nbits: int, norm_bits: int, beam: int | None) -> Any:
    """An untrained quantizer of ``bits`` bits, those of the norm among them, over as few codebooks as can be."""
    from annvq.quantizers.modules.registry import quantizer_class

    per_codebook = split_bits(bits - norm_bits, nbits)
    equal = len(set(per_codebook)) == 1
    extra = {} if beam is None else {"beam": beam}
    if extra and "beam" not in inspect.signature(quantizer_class(kind)).parameters:
        raise click.UsageError(f"--beam is for residual and additive codes, {kind!r} has none")
    return annvq.make(kind, dim=dim, M=len(per_codebook), nbits=per_codebook[0] if equal else per_codebook, **extra)
