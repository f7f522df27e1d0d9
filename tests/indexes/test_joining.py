"""Index files that are joined list by list hold what merging one after another in memory gives, byte for byte."""

from pathlib import Path

import numpy as np
import pytest

import annvq
from annvq.errors import FormatError
from annvq.indexes import joining
from annvq.indexes.building import Build, merge
from annvq.indexes.joining import join


def vectors(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


KINDS = {
    "lists": lambda: annvq.IVFIndex(annvq.ProductVQ(8, M=3), nlist=20),
    "lists, norms, cosine": lambda: annvq.IVFIndex(annvq.ResidualVQ(8, M=2), nlist=7, metric="cosine"),
    "flat": lambda: annvq.FlatIndex(annvq.ProductVQ(8, M=4)),
    "flat, norms": lambda: annvq.FlatIndex(annvq.ResidualVQ(8, M=2)),
    "nibbles": lambda: annvq.IVFIndex(annvq.ProductVQ(8, M=4, nbits=4), nlist=5),
}


@pytest.fixture(scope="module")
def trained():
    return {name: make().fit(vectors(2000, 0)) for name, make in KINDS.items()}


def in_parts(index, counts, ids):
    """Files of an index with so many vectors each."""
    index.save("trained")
    paths, at = [], 0
    for number, count in enumerate(counts):
        part = annvq.load_index("trained")
        if count:
            part.add(vectors(count, 10 + number), ids[at : at + count])
        part.save(f"part-{number}")
        paths.append(Path(f"part-{number}"))
        at += count
    return paths


@pytest.mark.parametrize("rows", [1 << 9, 1 << 10, 1 << 21])
@pytest.mark.parametrize("ids", ["in order", "others"])
@pytest.mark.parametrize("kind", KINDS)
def test_joined_is_merged(kind, ids, rows, trained, monkeypatch):
    monkeypatch.setattr(joining, "_ROWS", rows)
    counts = [1000, 512, 1, 700, 1500]
    numbers = np.arange(sum(counts)) if ids == "in order" else np.random.default_rng(3).permutation(9000)[: sum(counts)]
    paths = in_parts(trained[kind], counts, numbers)
    merged = annvq.load_index("trained")
    for path in paths:
        merge(merged, annvq.load_index(path))
    merged.save("merged")
    joined = join(paths, Path("of"))
    assert len(joined) == sum(counts)
    queries = vectors(20, 4)
    for ours, theirs in zip(joined.search(queries, 30), merged.search(queries, 30), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    joined.save("joined")
    assert Path("joined").read_bytes() == Path("merged").read_bytes()
    # It is an index as any: what has changed is saved as it is then.
    for index in (joined, merged):
        index.add(vectors(3, 5)).remove(numbers[:700])
    joined.save("changed")
    again = annvq.load_index("changed")
    np.testing.assert_array_equal(again.ids, merged.ids)
    for ours, theirs in zip(again.search(queries, 30), merged.search(queries, 30), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_mapped_and_unchanged_is_saved_as_it_lies(trained):
    in_parts(trained["lists"], [3000], np.arange(3000))
    mapped = annvq.load_index("part-0", mmap=True)
    mapped.save("again")
    assert Path("again").read_bytes() == Path("part-0").read_bytes()
    mapped.remove([5])
    mapped.save("again")
    assert len(annvq.load_index("again")) == 2999


def test_what_is_not_joined_so(trained):
    reranked = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(8, M=4)), "float16").fit(vectors(2000, 0))
    packed = annvq.FlatIndex(annvq.ProductVQ(8, M=4, nbits=5)).fit(vectors(2000, 0))
    for index in (reranked, packed):
        assert join(in_parts(index, [100, 100], np.arange(200)), Path("of")) is None
    other = in_parts(trained["flat"], [100], np.arange(100))[0].rename("other")
    paths = in_parts(trained["lists"], [0, 100], np.arange(100))
    assert join([other, *paths], Path("of")) is None
    assert join(paths[:1], Path("of")) is None
    assert len(join(paths, Path("of"))) == 100


def test_parts_are_verified(trained):
    paths = in_parts(trained["lists"], [600, 600], np.arange(1200))
    data = bytearray(paths[1].read_bytes())
    data[-3] ^= 1
    paths[1].write_bytes(data)
    with pytest.raises(FormatError, match="part-1"):
        join(paths, Path("of"))


def test_a_build_joins_so(monkeypatch):
    monkeypatch.setattr(joining, "_ROWS", 1 << 9)
    base = vectors(2500, 6)
    index = annvq.IVFIndex(annvq.ProductVQ(8, M=3), nlist=9, residual=False)
    built = Build(index, base, base, "index", chunk_rows=400).run()
    assert not Path("index.building").exists()
    loaded = annvq.load_index("index")
    np.testing.assert_array_equal(loaded.ids, np.arange(2500))
    for ours, theirs in zip(built.search(base[:9], 10), loaded.search(base[:9], 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    decoded = loaded.quantizer.decode(loaded.quantizer.encode(base))
    np.testing.assert_array_equal(loaded.reconstruct(np.arange(2500)), decoded)
