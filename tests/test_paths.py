"""Whatever takes a path refuses what is none, by the argument's name."""

from pathlib import Path

import numpy as np
import pytest

import annvq
from annvq.adapters.collection import Collection
from annvq.adapters.growing import GrowingIndex
from annvq.paths import check_path
from annvq.training import History, Trainer

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def takers():
    """Functions of a path, and what each calls it."""
    empty, growing = annvq.FlatIndex(annvq.ProductVQ(4, 2, nbits=2)), GrowingIndex()
    growing.upsert(X, np.arange(64))
    return {
        "load_vectors": (annvq.datasets.load_vectors, "path"),
        "load": (annvq.datasets.load, "name_or_path"),
        "convert to": (lambda path: annvq.datasets.convert(X, path), "target"),
        "recipe": (annvq.indexes.recipes.load_recipe, "name_or_path"),
        "suite": (annvq.benchmarks.load_suite, "name_or_path"),
        "build": (lambda path: annvq.indexes.building.Build(empty, X, X, path), "out"),
        "collection saved": (Collection().save, "folder"),
        "collection loaded": (Collection.load, "folder"),
        "growing saved": (growing.save, "path"),
        "growing loaded": (GrowingIndex.load, "path"),
        "history saved": (History().save, "path"),
        "history loaded": (History.load, "path"),
        "history plotted": (History().plot, "path"),
        "checkpoint": (lambda path: Trainer(checkpoint=path), "checkpoint"),
    }


@pytest.mark.parametrize("taker", list(takers()))
@pytest.mark.parametrize("path", [5, 2.5, None, b"x.npy", ["x.npy"], X])
def test_what_is_no_path(taker, path):
    take, name = takers()[taker]
    if taker == "checkpoint" and path is None:
        return  # none is written then
    with pytest.raises(TypeError, match=rf"^{name} must be a path \(str or os.PathLike\), got {type(path).__name__}$"):
        take(path)


@pytest.mark.parametrize("path", [5, None, ["x.npy"]])
def test_where_more_than_paths_are_taken(tmp_path, path):
    with pytest.raises(TypeError, match=r"^source must be a path, bytes, or a file object"):
        annvq.load_index(path)
    with pytest.raises(TypeError, match=r"^source must be a path, bytes, or a file object"):
        annvq.load_quantizer(path)
    with pytest.raises(TypeError, match=r"^target must be a path or a file object"):
        annvq.ProductVQ(4, 2, nbits=2).fit(X).save(path)
    with pytest.raises(TypeError, match=r"^source must be float32 of shape \(n, d\), got"):
        annvq.datasets.convert(path, tmp_path / "x.npy")
    for named in (annvq.datasets.info, annvq.datasets.get):
        with pytest.raises(TypeError, match=r"^name must be a str, got"):
            named(path)


def test_paths():
    assert check_path("a/b", "x") == check_path(Path("a/b"), "x") == "a/b"

    class OfBytes:
        def __fspath__(self):
            return b"a"

    with pytest.raises(TypeError, match="x must be a path"):
        check_path(OfBytes(), "x")
