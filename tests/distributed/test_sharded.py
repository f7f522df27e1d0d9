"""Sharded indexes give what one process gives: results, ties, errors, writes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from small_indexes import flat, lists, vectors

import annvq

pytest.importorskip("ray", reason="ray is not installed")

from annvq.distributed import ShardedIndex, build
from annvq.errors import FormatError
from annvq.indexes.building import add_in_chunks

QUERIES = vectors(40, 3)
pytestmark = pytest.mark.usefixtures("small_ray")


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def filters(n):
    rng = np.random.default_rng(5)
    bitmap = rng.random(n) < 0.3
    return [
        None,
        bitmap,
        rng.choice(2 * n, 50, replace=False),
        np.array([3]),
        np.empty(0, np.int64),
        lambda ids: ids % 7 == 1,
        annvq.PreparedFilter(bitmap),
    ]


def ties(index, k):
    distances, _ = index.search(QUERIES, k)
    return (np.diff(distances, axis=1) == 0).mean()


@pytest.mark.parametrize(
    ("make", "metric", "shards"),
    [(flat, "l2", 2), (flat, "ip", 4), (flat, "cosine", 2), (lists, "l2", 4), (lists, "ip", 2), (lists, "cosine", 4)],
)
def test_results_are_those_of_one_process(make, metric, shards, tmp_path):
    index = make(metric)
    assert make is lists or ties(index, 50) > 0.02  # by id, across shards
    with ShardedIndex.create(tmp_path / "many", index, shards) as sharded:
        assert len(sharded) == len(index)
        np.testing.assert_array_equal(sharded.ids, index.ids)
        for allowed in filters(600):
            for k in (1, 10, 700):
                same(sharded.search(QUERIES, k, filter=allowed), index.search(QUERIES, k, filter=allowed))
            radius = float(np.median(index.search(QUERIES, 30)[0]))
            same(
                sharded.search_within(QUERIES, radius, filter=allowed),
                index.search_within(QUERIES, radius, filter=allowed),
            )
        if make is lists:
            for nprobe in (1, 5, 12):
                same(sharded.search(QUERIES, 10, nprobe=nprobe), index.search(QUERIES, 10, nprobe=nprobe))
            same(sharded.search_within(QUERIES, radius, nprobe=2), index.search_within(QUERIES, radius, nprobe=2))
        some = np.array([599, 0, 17, 4])
        np.testing.assert_array_equal(sharded.reconstruct(some), index.reconstruct(some))
        assert all(isinstance(part, torch.Tensor) for part in sharded.search(torch.from_numpy(QUERIES), 3))


def test_product_codes_keep_their_share_of_what_coding_took_away(tmp_path):
    base = vectors(900, 4) + 3  # a long mean in common
    index = annvq.FlatIndex(annvq.ProductVQ(8, M=4, nbits=4).fit(base), "cosine").fit(base).add(base[:500])
    assert index.coding.share is not None
    with ShardedIndex.create(tmp_path / "many", index, 2) as sharded:
        same(sharded.search(QUERIES, 30), index.search(QUERIES, 30))
        same(sharded.add(base[500:]).search(QUERIES, 30), index.add(base[500:]).search(QUERIES, 30))


def test_distances_below_zero_keep_their_order(tmp_path):
    # Coded queries: sums that round to just below zero are returned as 0, in the order of the sums.
    index = flat(n=3000)
    asked = index.reconstruct(np.arange(100))
    with ShardedIndex.create(tmp_path / "many", index, 3) as sharded:
        same(sharded.search(asked, 60), index.search(asked, 60))


@pytest.mark.parametrize("make", [flat, lists])
def test_writes_are_those_of_one_process_and_outlive_the_driver(make, tmp_path):
    index = make("cosine")
    rng = np.random.default_rng(0)
    sharded = ShardedIndex.create(tmp_path / "many", index, 2, replicas=2)

    def check():
        assert len(sharded) == len(index)
        same(sharded.search(QUERIES, 20), index.search(QUERIES, 20))
        same(sharded.search(QUERIES, 20), index.search(QUERIES, 20))  # from the other replicas

    for step in range(5):
        for target in (index, sharded):
            target.add(vectors(5, 100 + step))
            target.add(vectors(3, 200 + step), ids=np.array([9000, 5000, 7001]) + step * 3)
            target.upsert(vectors(4, 300 + step), np.array([1, 2, 5000 + 3 * step, 20_000 + step]))
        gone = rng.choice(index.ids, 6, replace=False)
        assert sharded.remove(gone) == index.remove(gone) == 6
        check()
        if step in (1, 2):
            sharded.save()
            check()
        if step == 3:  # with writes that only the log has
            sharded.close()
            sharded = ShardedIndex.open(tmp_path / "many", replicas=2)
            check()
    np.testing.assert_array_equal(sharded.ids, index.ids)
    sharded.close()
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "many").iterdir())
    assert names == ["lock", "log", "manifest.json", "shard", "shard", "trained"]


def test_callers_mistakes_change_nothing(tmp_path):
    index = flat()
    with ShardedIndex.create(tmp_path / "many", index, 2) as sharded:
        x = vectors(2, 9)
        for wrong, message in [
            (lambda: sharded.add(x, ids=[3, 1000]), r"ids must be new.*\[3\]"),
            (lambda: sharded.add(x, ids=[1000, 1000]), "ids must differ"),
            (lambda: sharded.add(x, ids=[-1, 1000]), "negative"),
            (lambda: sharded.add(x[:, :5]), "x must be"),
            (lambda: sharded.upsert(x, [7, 7]), "ids must differ"),
            (lambda: sharded.remove([3, 5, 3]), "once"),
            (lambda: sharded.remove([3, 12345]), "12345"),
            (lambda: sharded.search(x * np.nan, 3), "queries"),
            (lambda: sharded.search(x, 0), "k must be"),
            (lambda: sharded.search(x, 3, nprobe=2), "nprobe"),
            (lambda: sharded.search(x, 3, timeout=0), "timeout"),
            (lambda: sharded.search_within(x, np.inf), "radius"),
            (lambda: sharded.reconstruct([3, 12345]), "12345"),
        ]:
            with pytest.raises(ValueError, match=message):
                wrong()
        same(sharded.search(QUERIES, 20), index.search(QUERIES, 20))
    with pytest.raises(FileExistsError, match="holds a sharded index"):
        ShardedIndex.create(tmp_path / "many", index, 2)
    with pytest.raises(ValueError, match="closed"):
        sharded.search(QUERIES, 3)


def test_what_cannot_be_sharded(tmp_path):
    index = flat()
    with pytest.raises(TypeError, match="KeyedIndex"):
        ShardedIndex.create(tmp_path, annvq.KeyedIndex(annvq.FlatIndex(annvq.ProductVQ(8, M=2))))
    with pytest.raises(ValueError, match="must keep what it re-ranks from"):
        ShardedIndex.create(tmp_path, annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(8, M=2)), vectors(9, 1)))
    with pytest.raises(ValueError, match="share no ids"):
        ShardedIndex.create(tmp_path, [index, index])
    with pytest.raises(ValueError, match="same codebooks"):
        ShardedIndex.create(tmp_path, [index, flat("ip")])
    with pytest.raises(ValueError, match="empty sequence"):
        ShardedIndex.create(tmp_path, [])
    with pytest.raises(ValueError, match="shards"):
        ShardedIndex.create(tmp_path, index, 0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        ShardedIndex.open(tmp_path)
    with pytest.raises(FileNotFoundError):
        ShardedIndex.open(tmp_path / "nowhere")


def test_two_drivers(tmp_path):
    code = (
        "import sys\nfrom annvq.distributed import ShardedIndex\n"
        "try:\n    ShardedIndex.open(sys.argv[1])\nexcept BlockingIOError as e:\n    print(e)"
    )
    index = flat()
    with ShardedIndex.create(tmp_path / "many", index, 2) as sharded:
        with pytest.raises(BlockingIOError, match="one at a time"):
            ShardedIndex.open(tmp_path / "many")
        said = subprocess.run([sys.executable, "-c", code, tmp_path / "many"], capture_output=True, text=True).stdout
        assert "is open already, in process" in said
        same(sharded.search(QUERIES, 3), index.search(QUERIES, 3))
    with ShardedIndex.open(tmp_path / "many") as again:
        same(again.search(QUERIES, 3), index.search(QUERIES, 3))


@pytest.mark.parametrize(("metric", "from_file"), [("l2", False), ("cosine", True)])
def test_builds_in_tasks(metric, from_file, tmp_path):
    base = vectors(900, 4)
    np.save(tmp_path / "base.npy", base)
    one = annvq.IVFIndex(annvq.ProductVQ(8, M=4, nbits=4), nlist=12, metric=metric).fit(base)
    fitted = annvq.IVFIndex(annvq.ProductVQ(8, M=4, nbits=4), nlist=12, metric=metric).fit(base)
    build(tmp_path / "many", fitted, tmp_path / "base.npy" if from_file else base, shards=3, chunk_rows=250, tasks=2)
    add_in_chunks(one, base)
    with ShardedIndex.open(tmp_path / "many") as sharded:
        same(sharded.search(QUERIES, 20), one.search(QUERIES, 20))
        same(sharded.add(vectors(9, 5)).search(QUERIES, 20), one.add(vectors(9, 5)).search(QUERIES, 20))
    assert not list((tmp_path / "many").glob("part-*"))


def test_a_build_trains_what_is_untrained(tmp_path):
    base = vectors(900, 4)
    build(tmp_path / "many", annvq.FlatIndex(annvq.ProductVQ(8, M=4, nbits=4)), base, shards=2, seed=3)
    one = annvq.FlatIndex(annvq.ProductVQ(8, M=4, nbits=4)).fit(base, seed=3).add(base)
    with ShardedIndex.open(tmp_path / "many") as sharded:
        same(sharded.search(QUERIES, 20), one.search(QUERIES, 20))


def test_a_build_where_an_index_is_learns_nothing(tmp_path):
    ShardedIndex.create(tmp_path / "many", flat(), 2).close()
    index = annvq.FlatIndex(annvq.ProductVQ(8, M=4, nbits=4))
    with pytest.raises(FileExistsError, match="holds a sharded index"):
        build(tmp_path / "many", index, vectors(900, 4), shards=2)
    assert not index.quantizer.fitted


def test_a_folder_whose_files_are_of_another_kind(tmp_path):
    ShardedIndex.create(tmp_path / "many", flat(), 2).close()
    np.save(tmp_path / "base.npy", vectors(9, 1))
    base = np.load(tmp_path / "base.npy", mmap_mode="r")
    other = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(8, M=2, nbits=4)), base)
    other.save(next((tmp_path / "many").glob("trained-*")))
    with pytest.raises(FormatError, match="holds no index that is sharded"):
        ShardedIndex.open(tmp_path / "many")


def test_a_build_that_fails_leaves_no_index(tmp_path):
    base = vectors(900, 4)
    base[700, 2] = np.nan
    index = flat(n=0)
    with pytest.raises(ValueError, match=r"base\[500:750\].*row 200"):
        build(tmp_path / "many", index, base, shards=2, chunk_rows=250)
    with pytest.raises(FileNotFoundError):
        ShardedIndex.open(tmp_path / "many")
    build(tmp_path / "many", index, base[:600], shards=2, chunk_rows=250)
    with ShardedIndex.open(tmp_path / "many") as sharded:
        assert len(sharded) == 600
    assert not list((tmp_path / "many").glob("part-*"))
