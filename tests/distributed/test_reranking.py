"""Sharded indexes that re-rank give what one process gives, with filters and after writes."""

import threading

import numpy as np
import pytest
from small_indexes import vectors

import annvq

pytest.importorskip("ray", reason="ray is not installed")

from annvq.distributed import ShardedIndex, build

QUERIES = vectors(30, 3)
pytestmark = pytest.mark.usefixtures("small_ray")


def product():
    return annvq.ProductVQ(8, M=2, nbits=4)


MADE = {
    "float16": lambda: annvq.RerankIndex(annvq.FlatIndex(product()), "float16"),
    "cosine int8, lists": lambda: annvq.RerankIndex(annvq.IVFIndex(product(), nlist=10, metric="cosine"), "int8"),
    "decoded, ip": lambda: annvq.RerankIndex(annvq.FlatIndex(annvq.ResidualVQ(8, M=2, nbits=4), "ip"), "decoded"),
    "length": lambda: annvq.RerankIndex(annvq.FlatIndex(product(), "ip"), "length"),
    "second code, lists": lambda: annvq.RerankIndex(
        annvq.IVFIndex(product(), nlist=10), annvq.ProductVQ(8, M=4, nbits=4)
    ),
}


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", MADE)
def test_results_are_those_of_one_process_and_outlive_the_driver(kind, tmp_path):
    index = MADE[kind]().fit(vectors(500, 1)).add(vectors(700, 2))
    with ShardedIndex.create(tmp_path / "many", index, 3, timeout=120) as sharded:
        for k, asked in (1, {}), (10, {}), (10, {"shortlist": 25}), (40, {"shortlist": 60}), (800, {}):
            same(sharded.search(QUERIES, k, **asked), index.search(QUERIES, k, **asked))
        for allowed in (np.arange(0, 700, 5), np.array([3]), lambda ids: ids % 7 == 1, np.arange(0)):
            same(
                sharded.search(QUERIES, 10, shortlist=20, filter=allowed),
                index.search(QUERIES, 10, shortlist=20, filter=allowed),
            )
        if "lists" in kind:
            same(sharded.search(QUERIES, 5, nprobe=2), index.search(QUERIES, 5, nprobe=2))
        some = np.array([5, 0, 699])
        np.testing.assert_array_equal(sharded.reconstruct(some), index.reconstruct(some))
        for target in sharded, index:
            target.add(vectors(50, 4))
            target.upsert(QUERIES[:4], np.array([5, 6, 1000, 17]))
            target.remove(np.arange(100, 140))
        same(sharded.search(QUERIES, 10, shortlist=30), index.search(QUERIES, 10, shortlist=30))
    for fold in (True, False):
        with ShardedIndex.open(tmp_path / "many", timeout=120) as sharded:
            np.testing.assert_array_equal(sharded.ids, index.ids)
            same(sharded.search(QUERIES, 10, shortlist=30), index.search(QUERIES, 10, shortlist=30))
            if fold:
                sharded.save()
                same(sharded.search(QUERIES, 10, shortlist=30), index.search(QUERIES, 10, shortlist=30))


def test_builds_in_tasks(tmp_path):
    base = vectors(900, 4)
    index = MADE["float16"]().fit(base)
    build(tmp_path / "many", index, base, shards=2, chunk_rows=250)
    with ShardedIndex.open(tmp_path / "many", timeout=120) as sharded:
        same(sharded.search(QUERIES, 10, shortlist=40), index.add(base).search(QUERIES, 10, shortlist=40))


def test_a_search_sees_a_write_whole_or_not_at_all(tmp_path):
    """Vectors swap places again and again: shortlist and distances are of one moment."""
    index = MADE["float16"]().fit(vectors(500, 1)).add(vectors(60, 2))
    places = np.arange(60)
    states = []
    for x in (vectors(60, 2), vectors(60, 2)[::-1]):
        index.upsert(x, places)
        states.append(index.search(QUERIES, 10, shortlist=20))
    ended, wrong = threading.Event(), []
    with ShardedIndex.create(tmp_path / "many", index, 2, timeout=120) as sharded:

        def load():
            while not ended.is_set():
                found = sharded.search(QUERIES, 10, shortlist=20)
                if not any(all(map(np.array_equal, found, state)) for state in states):
                    wrong.append(found)

        other = threading.Thread(target=load)
        other.start()
        try:
            for step in range(30):
                sharded.upsert(vectors(60, 2)[:: 1 if step % 2 else -1], places)
        finally:
            ended.set()
            other.join()
    assert not wrong


@pytest.mark.parametrize("kind", MADE)
def test_all_within_a_radius(kind, tmp_path):
    index = MADE[kind]().fit(vectors(500, 1)).add(vectors(700, 2))
    with ShardedIndex.create(tmp_path / "many", index, 3, timeout=120) as sharded:
        for radius in (float(np.median(index.search(QUERIES, 90)[0])), -1e9, 1e9):
            for allowed in (None, np.arange(0, 700, 5), np.array([3]), lambda ids: ids % 7 == 1, np.arange(0)):
                for asked in ({}, {"shortlist": 100}):
                    expected = index.search_within(QUERIES, radius, filter=allowed, **asked)
                    same(sharded.search_within(QUERIES, radius, filter=allowed, **asked), expected)
            if "lists" in kind:
                for asked in ({"nprobe": 2}, {"nprobe": 10}, {"nprobe": 3, "shortlist": 20}):
                    same(sharded.search_within(QUERIES, radius, **asked), index.search_within(QUERIES, radius, **asked))
        for target in sharded, index:
            target.add(QUERIES[:5] * np.float32(1.01))
            target.remove(np.arange(100, 140))
        found = sharded.search_within(QUERIES, 1.0)
        same(found, index.search_within(QUERIES, 1.0))
        assert len(found.ids) > 5
        for target in sharded, index:
            target.remove(index.ids)
        same(sharded.search_within(QUERIES, 1e9), index.search_within(QUERIES, 1e9))
        same(sharded.search_within(QUERIES, 1e9, shortlist=5), index.search_within(QUERIES, 1e9, shortlist=5))


def test_shortlists_are_checked(tmp_path):
    index = MADE["float16"]().fit(vectors(500, 1)).add(vectors(20, 2))
    with ShardedIndex.create(tmp_path / "many", index, 2, timeout=120) as sharded:
        with pytest.raises(ValueError, match="shortlist"):
            sharded.search_within(QUERIES, 1.0, shortlist=0)
        with pytest.raises(ValueError, match="shortlist"):
            sharded.search(QUERIES, 10, shortlist=3)
    with ShardedIndex.create(tmp_path / "plain", index.index, 2, timeout=120) as sharded:
        with pytest.raises(ValueError, match="shortlist must be None"):
            sharded.search(QUERIES, 10, shortlist=30)
        with pytest.raises(ValueError, match="shortlist must be None"):
            sharded.search_within(QUERIES, 1.0, shortlist=30)
