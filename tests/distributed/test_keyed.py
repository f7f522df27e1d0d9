"""Sharded indexes with keys give what one process gives, and keep each key with its vector through crashes."""

import os
import subprocess
import sys
import threading
import uuid

import numpy as np
import pytest
from small_indexes import flat, lists, vectors

import annvq

pytest.importorskip("ray", reason="ray is not installed")

from annvq.distributed import KeyedShardedIndex, Partial, ShardedIndex, build
from annvq.errors import FormatError

QUERIES = vectors(30, 3)
pytestmark = pytest.mark.usefixtures("small_ray")


def reranked(n=600):
    index = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(8, M=2, nbits=4), "cosine"), "float16", shortlist=40)
    return index.fit(vectors(500, 1)).add(vectors(n, 2))


def texts(numbers):
    return [f"ключ {i}" for i in numbers]


KINDS = {
    "str": texts,
    "bytes": lambda numbers: [b"\0" * (i % 3) + b"%d" % i for i in numbers],
    "uuid": lambda numbers: [uuid.uuid5(uuid.NAMESPACE_OID, str(i)) for i in numbers],
}


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def require_same(sharded, index, keys):
    """All that one process says."""
    assert len(sharded) == len(index)
    assert list(sharded.keys) == list(index.keys)
    some = keys(range(0, 700, 5))
    for allowed in (None, some, [], lambda found: np.array([hash(key) % 2 == 0 for key in found], bool)):
        same(sharded.search(QUERIES, 20, filter=allowed), index.search(QUERIES, 20, filter=allowed))
    distances = index.search(QUERIES, 20)[0]
    radius = float(np.median(distances[np.isfinite(distances)]))
    same(sharded.search_within(QUERIES, radius), index.search_within(QUERIES, radius))
    same(sharded.search_within(QUERIES, radius, filter=some), index.search_within(QUERIES, radius, filter=some))
    there = list(index.keys)[3:9]
    np.testing.assert_array_equal(sharded.reconstruct(there), index.reconstruct(there))
    assert there[0] in sharded
    assert keys([10**6])[0] not in sharded


@pytest.mark.parametrize(("make", "kind"), [(flat, "str"), (lists, "bytes"), (reranked, "uuid")])
def test_results_and_writes_are_those_of_one_process(make, kind, tmp_path):
    keys = KINDS[kind]
    index = annvq.KeyedIndex(make(), keys(range(600)))
    sharded = KeyedShardedIndex.create(tmp_path / "many", index, 3, timeout=120)
    require_same(sharded, index, keys)
    rng = np.random.default_rng(0)
    for step in range(4):
        gone = [index.keys.keys_of(np.array([i])).item() for i in rng.choice(index.keys.ids, 130, replace=False)]
        for target in (sharded, index):
            target.add(vectors(5, 10 + step), keys(range(1000 + 5 * step, 1005 + 5 * step)))
            target.upsert(vectors(4, 20 + step), keys([1000, 2000 + step, 1003, 3000 + step]))
            assert target.remove(gone) == 130  # so many that keys are freed
        require_same(sharded, index, keys)
        if step == 1:
            sharded.save()
            require_same(sharded, index, keys)
        if step in (1, 2):  # what has been saved, and what only the log has
            sharded.close()
            sharded = KeyedShardedIndex.open(tmp_path / "many", timeout=120)
            require_same(sharded, index, keys)
    assert sharded.facts()["keys"] == kind
    sharded.close()
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "many").iterdir())
    assert names == ["keys", "lock", "log", "manifest.json", "shard", "shard", "shard", "trained"]


def test_from_nothing(tmp_path):
    index = annvq.KeyedIndex(flat(n=0), kind="str")
    with KeyedShardedIndex.create(tmp_path / "many", index, 2, timeout=120) as sharded:
        assert sharded.search(QUERIES[:2], 2)[1].tolist() == [[None] * 2] * 2
        with pytest.raises(TypeError, match="must all be str"):
            sharded.add(vectors(1, 1), [b"a"])
        for target in (sharded, index):
            target.add(vectors(0, 1), []).add(vectors(9, 1), texts(range(9)))
        require_same(sharded, index, texts)


def test_a_build_takes_keys(tmp_path):
    base = vectors(900, 4)
    build(tmp_path / "many", flat(n=0), base, shards=2, chunk_rows=250, keys=texts(range(900)))
    with KeyedShardedIndex.open(tmp_path / "many", timeout=120) as sharded:
        require_same(sharded, annvq.KeyedIndex(flat(n=0).add(base), texts(range(900))), texts)
    refused = (texts(range(899)), ValueError), (texts([1] * 900), ValueError), (list(range(900)), TypeError)
    for wrong, error in refused:
        with pytest.raises(error, match="keys must"):
            build(tmp_path / "other", flat(n=0), base, shards=2, keys=wrong)
    assert not (tmp_path / "other").exists()


def test_what_is_refused_changes_nothing(tmp_path, monkeypatch):
    index = annvq.KeyedIndex(flat(n=50), texts(range(50)))
    x = vectors(2, 9)
    with KeyedShardedIndex.create(tmp_path / "many", index, 2, timeout=120) as sharded:
        for wrong, error, message in [
            (lambda: sharded.add(x, texts([49, 50])), ValueError, r"keys must be new.*\['ключ 49'\]"),
            (lambda: sharded.add(x, texts([50, 50])), ValueError, "keys must differ"),
            (lambda: sharded.add(x, texts([50])), ValueError, "keys must be 2 of"),
            (lambda: sharded.add(x, [50, 51]), TypeError, "keys must be str"),
            (lambda: sharded.add(x, [b"50", b"51"]), TypeError, "keys must all be str"),
            (lambda: sharded.add(x * np.nan, texts([50, 51])), ValueError, "x must be"),
            (lambda: sharded.upsert(x, texts([7, 7])), ValueError, "keys must differ"),
            (lambda: sharded.remove(texts([3, 77])), ValueError, r"not there: \['ключ 77'\]"),
            (lambda: sharded.remove(texts([3, 3])), ValueError, "keys must differ"),
            (lambda: sharded.search(x, 3, filter="ключ 3"), TypeError, "filter must be"),
            (lambda: sharded.index.add(x), TypeError, "vectors have keys here"),
            (lambda: sharded.index.upsert(x, [1, 2]), TypeError, "vectors have keys here"),
            (lambda: sharded.index.remove([1]), TypeError, "vectors have keys here"),
        ]:
            with pytest.raises(error, match=message):
                wrong()
        with monkeypatch.context() as patched:

            def full(*_):
                raise OSError(28, "No space left on device")

            patched.setattr(os, "pwrite", full)
            for write in (
                lambda: sharded.add(x, texts([50, 51])),
                lambda: sharded.upsert(x, texts([3, 60])),
                lambda: sharded.remove(texts([3])),
            ):
                with pytest.raises(OSError, match="No space left"):
                    write()
                require_same(sharded, index, texts)
        for target in (sharded, index):  # under the ids that the refused ones would have had
            target.upsert(x, texts([3, 60]))
            target.add(x, texts([50, 51]))
        require_same(sharded, index, texts)
    with KeyedShardedIndex.open(tmp_path / "many", timeout=120) as sharded:
        require_same(sharded, index, texts)


def test_keys_are_not_forgotten_nor_made_up(tmp_path):
    index = annvq.KeyedIndex(flat(), texts(range(600)))
    with pytest.raises(TypeError, match="KeyedShardedIndex"):
        ShardedIndex.create(tmp_path / "many", index)
    with pytest.raises(TypeError, match="must be a KeyedIndex"):
        KeyedShardedIndex.create(tmp_path / "many", index.index)
    KeyedShardedIndex.create(tmp_path / "many", index, 2).close()
    with pytest.raises(FormatError, match="KeyedShardedIndex opens it"):
        ShardedIndex.open(tmp_path / "many")
    ShardedIndex.create(tmp_path / "plain", index.index, 2).close()
    with pytest.raises(FormatError, match="no keys: ShardedIndex opens it"):
        KeyedShardedIndex.open(tmp_path / "plain")
    held = next((tmp_path / "many").glob("keys-*"))
    data = held.read_bytes()
    held.write_bytes(data[:-5])
    with pytest.raises(FormatError, match=held.name):
        KeyedShardedIndex.open(tmp_path / "many")
    held.unlink()
    with pytest.raises(FileNotFoundError, match=held.name):
        KeyedShardedIndex.open(tmp_path / "many")
    held.write_bytes(data)
    KeyedShardedIndex.open(tmp_path / "many").close()


def test_without_a_shard(tmp_path, small_ray):
    index = annvq.KeyedIndex(flat(), texts(range(600)))
    with KeyedShardedIndex.create(tmp_path / "many", index, 3, timeout=120) as sharded:
        whole = sharded.search(QUERIES, 10, partial=True)
        assert whole.missing == {}
        same(whole[:2], index.search(QUERIES, 10))
        small_ray.kill(sharded.index._reader.replicas.actors[1][0])
        part = sharded.search(QUERIES, 10, partial=True, timeout=4)
        assert isinstance(part, Partial)
        assert list(part.missing) == [1]
        same(part[:2], index.search(QUERIES, 10, filter=texts(i for i in range(600) if i % 3 != 1)))


def test_searches_while_keys_come_and_go(tmp_path):
    """The same vectors come again and again under new keys: what is found has the distance of its key's vector."""
    x = vectors(40, 5)
    ended, wrong = threading.Event(), []
    with KeyedShardedIndex.create(tmp_path / "many", annvq.KeyedIndex(flat(n=0)), 2, timeout=120) as sharded:
        sharded.add(x, [f"{row} 0" for row in range(40)])
        first = [
            {int(key.split()[0]): d for d, key in zip(*row, strict=True)}
            for row in zip(*sharded.search(x, 40), strict=True)
        ]

        def load():
            while not ended.is_set():
                try:
                    for row, *found in zip(first, *sharded.search(x, 40), strict=True):
                        there = [(int(key.split()[0]), d) for d, key in zip(*found, strict=True) if key is not None]
                        if len({i for i, _ in there}) < len(there) or any(row[i] != d for i, d in there):
                            wrong.append(there)
                except Exception as e:  # told below
                    wrong.append(e)

        other = threading.Thread(target=load)
        other.start()
        try:
            for turn in range(10):
                for start in range(0, 40, 20):  # half of all: then keys are freed
                    rows = range(start, start + 20)
                    sharded.remove([f"{row} {turn}" for row in rows])
                    sharded.add(x[start : start + 20], [f"{row} {turn + 1}" for row in rows])
        finally:
            ended.set()
            other.join()
    assert not wrong


WRITER = """
import sys
from pathlib import Path
import numpy as np
from annvq import load_index
from annvq.distributed.folder import Folder
from annvq.distributed.forms import encode
from annvq.distributed.log import Write
from annvq.distributed.manifest import shard_names
from annvq.distributed.shard import Shard
from annvq.indexes.keyed.kinds import PackedKeys
folder, base, first = Folder(Path(sys.argv[1])), np.load(sys.argv[2]), int(sys.argv[3])
index = load_index(folder.path / folder.manifest.trained)
for row in range(first, len(base)):
    keys = [f"{row} a", f"{row} b"]
    ids = folder.keys.assign(keys)
    folder.append(Write("add", ids, encode(index, base[[row, row]], first=False), 2, PackedKeys.of(keys)))
    ids = folder.keys.ids_of(keys[:1])
    folder.append(Write("remove", ids, None, -1))
    folder.keys.remove(ids)
    if row % 5 == 0:
        names = shard_names(2)
        for number, name in enumerate(names):
            Shard(str(folder.path), number, 1).save(folder.state.position, name)
        folder.fold(names)
    print(row + 1, flush=True)
"""


def test_a_driver_that_is_killed_while_it_writes_and_saves(tmp_path):
    """Whatever it was doing: keys and vectors that it was told are there are there, each key with its own vector."""
    base = vectors(5000, 7)
    np.save(tmp_path / "base.npy", base)
    KeyedShardedIndex.create(tmp_path / "many", annvq.KeyedIndex(flat(n=0), kind="str"), 2).close()
    index, at, rng = annvq.KeyedIndex(flat(n=0)), 0, np.random.default_rng(0)
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, tmp_path / "many", tmp_path / "base.npy", str(at)]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        told, stop = at, at + int(rng.integers(8, 30))
        for line in driver.stdout:
            told = int(line)
            if told >= stop:
                driver.kill()
        driver.wait()
        driver.stdout.close()
        with KeyedShardedIndex.open(tmp_path / "many", timeout=120) as sharded:
            begun = f"{told} a" in sharded  # of the pair that was being written both are there, or neither
            done = told + (f"{told} b" in sharded)
            assert told >= stop
            for row in range(at, done):
                index.add(base[[row, row]], [f"{row} a", f"{row} b"])
                if not (begun and row == told):
                    index.remove([f"{row} a"])
            if begun:
                for target in (index, sharded):
                    target.remove([f"{told} a"])
            assert list(sharded.keys) == list(index.keys)
            same(sharded.search(QUERIES, 20), index.search(QUERIES, 20))
            at = done
