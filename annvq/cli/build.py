"""``annvq build``."""

from pathlib import Path
from typing import Any

import click

import annvq
from annvq.cli.shared import FILE, METRIC, THREADS, is_named, make_quantizer, require_writable, use_threads, vectors


@click.command()
@click.argument("recipe")
@click.argument("data")
@click.argument("out", type=FILE, required=False)
@click.option("--out", "out_option", type=FILE, help="File of the index, in place of OUT.")
@click.option("--learn", help="File of vectors to train on [default: the data set's, else a sample of DATA].")
@METRIC
@click.option(
    "--norm",
    type=click.Choice(["auto", "uint8", "float32"]),
    default="auto",
    show_default=True,
    help="For a kind or a quantizer's file: how the norm is stored where l2 needs one.",
)
@click.option("--bits", type=click.IntRange(min=1), default=64, show_default=True, help="For a kind: bits in all.")
@click.option("--nbits", type=click.IntRange(1, 16), default=8, show_default=True, help="For a kind: at most, each.")
@click.option("--dims", type=click.IntRange(min=1), help="Codes see the first DIMS dimensions of each vector.")
@click.option("--nlist", type=click.IntRange(min=1), help="For a recipe with lists: how many.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--restart", is_flag=True, help="Start anew where an earlier build to OUT was not finished.")
@THREADS
def build(
    recipe: str,
    data: str,
    out: Path | None,
    out_option: Path | None,
    learn: str | None,
    metric: str | None,
    norm: Any,
    bits: int,
    nbits: int,
    dims: int | None,
    nlist: int | None,
    seed: int,
    restart: bool,
    threads: int | None,
) -> None:
    """Build an index of DATA and write it to OUT.

    RECIPE is a named recipe (flat-pvq-8x8, ivf-rvq-7x8, ...), a .toml file like those (`annvq choose -o` writes one),
    a quantizer's file (from `annvq train`), or a kind of quantizer (product, residual, additive: a flat index). DATA
    is a file of vectors or a named data set; it may be larger than memory.

    A build that was stopped goes on where it was when the same command is given again.
    """
    from annvq.indexes.building import Build

    if (out is None) == (out_option is None):
        raise click.UsageError("give the index's file once, as OUT or --out")
    target = out or out_option
    assert target is not None
    require_writable(target)
    use_threads(threads)
    metric = metric or _stated_metric(recipe) or _metric_of(data)
    base, learned_from = vectors(data, "base"), vectors(learn or data, "learn")
    empty, what = _empty_index(recipe, base, metric, norm, bits, nbits, dims, nlist)
    work = Build(empty, base, learned_from, target, what=what, seed=seed)
    if restart:
        work.restart()
    try:
        index = work.run(progress=True)
    except BaseException:
        if work.begun:
            click.echo(
                f"what is done so far is kept in {work.folder}: the same command goes on from there, "
                "with --restart it starts anew",
                err=True,
            )
        raise
    size = target.stat().st_size
    click.echo(f"wrote {target}: {len(index):,} vectors, {index.bits_per_vector} bits each, {size:,} bytes")


def _stated_metric(recipe: str) -> str | None:
    """The metric that a recipe states, if it does."""
    from annvq.indexes import recipes

    return recipes.load_recipe(recipe).metric if _is_recipe(recipe) else None


def _is_recipe(recipe: str) -> bool:
    """Whether this is a named recipe or a recipe file; else a quantizer's file or kind."""
    from annvq.indexes import recipes

    return recipe in recipes.recipe_names() or recipe.endswith(".toml")


def _metric_of(data: str) -> str:
    from annvq.datasets.files import stated_metric

    return annvq.datasets.load(data).metric if is_named(data) else stated_metric(data) or "l2"


def _empty_index(
    recipe: str, base: Any, metric: str, norm: Any, bits: int, nbits: int, dims: int | None, nlist: int | None
) -> tuple[Any, Any]:
    """The index to fill, and what says that a build is the same one."""
    from annvq.indexes import recipes
    from annvq.indexes.building import file_crc
    from annvq.quantizers import registered
    from annvq.quantizers.modules.registry import pays_norm

    dim = int(base.shape[1])
    if _is_recipe(recipe):
        stated = recipes.load_recipe(recipe)
        given = {"nlist": nlist, "dims": dims}
        stated.index.update({key: value for key, value in given.items() if value is not None})  # type: ignore[attr-defined]
        return recipes.make_index(stated, dim, n=int(base.shape[0]), metric=metric, base=base), stated.to_dict()
    if nlist is not None:
        raise click.UsageError("--nlist is for recipes with lists")
    if recipe in registered():
        charged = {"uint8": 8, "float32": 32, "auto": 8}[norm] if pays_norm(recipe, metric) else 0
        quantizer = make_quantizer(recipe, _seen(dims, dim), bits, nbits, charged, None)
        return annvq.FlatIndex(quantizer, metric=metric, norm=norm, dim=dim), [recipe, quantizer.config, norm]
    if not Path(recipe).is_file():
        known = ", ".join([*recipes.recipe_names(), *registered()])
        raise ValueError(f"RECIPE must be a .toml file, a quantizer's file or one of {known}; got {recipe!r}")
    quantizer = annvq.load_quantizer(recipe)
    if dims not in (None, quantizer.dim):
        raise click.UsageError(f"--dims must be {quantizer.dim}, as {recipe} has, got {dims}")
    return annvq.FlatIndex(quantizer, metric=metric, norm=norm, dim=dim if dims else None), [file_crc(recipe), norm]


def _seen(dims: int | None, dim: int) -> int:
    """Dimensions that codes see of vectors of ``dim``."""
    if dims is not None and dims > dim:
        raise click.UsageError(f"--dims must be at most {dim}, the vectors' dimension, got {dims}")
    return dims or dim
