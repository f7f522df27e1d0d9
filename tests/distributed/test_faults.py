"""Actors are killed, stopped and kept away: no wrong answer is given, nothing that was acknowledged is lost.

ANNVQ_KILLS=500 pytest tests/distributed/test_faults.py -k under_load
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from small_indexes import flat, lists, vectors

pytest.importorskip("ray", reason="ray is not installed")

from annvq.distributed import MissingShardError, Partial, ShardedIndex

QUERIES = vectors(20, 3)
KILLS = int(os.environ.get("ANNVQ_KILLS", "9"))
pytestmark = pytest.mark.usefixtures("small_ray")


def require_same(sharded, index):
    for found, expected in zip(sharded.search(QUERIES, 10), index.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(sharded.ids, index.ids)
    assert len(sharded) == len(index)


def process(sharded, shard, replica=0):
    """The process of an actor, once it answers."""
    import ray

    until = time.monotonic() + 60
    while True:
        try:
            actor = sharded._reader.replicas.actors[shard][replica]
            return ray.get(actor.process.remote(sharded._files.state.position), timeout=30)[1]
        except ray.exceptions.RayActorError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_actors_that_are_killed_under_load(tmp_path):
    """Searches from another thread are each those of a state between the writes that had returned when it began and
    those that had been begun when it ended."""
    index = lists()
    states = [index.search(QUERIES, 10)]  # what one process finds after so many writes
    rng = np.random.default_rng(0)
    wrong, searched, ended = [], [0], threading.Event()
    with ShardedIndex.create(tmp_path / "many", index, 2, timeout=60) as sharded:
        acknowledged = 0

        def load():
            while not ended.is_set():
                before = acknowledged
                try:
                    found = sharded.search(QUERIES, 10)
                except Exception as e:  # told below
                    wrong.append(repr(e))
                    return
                fits = [all(map(np.array_equal, found, state)) for state in states[before:]]
                searched[0] += 1
                if not any(fits):
                    wrong.append(f"of {before} writes and more, not one of {len(fits)} states")

        other = threading.Thread(target=load)
        other.start()
        try:
            for step in range(KILLS):
                near = QUERIES[rng.integers(0, len(QUERIES), 3)] + np.float32(0.01) * vectors(3, step)
                for target in (index, sharded):
                    if target is sharded:
                        states.append(index.search(QUERIES, 10))
                        os.kill(process(sharded, step % 2), signal.SIGKILL)
                    if step % 3 == 0:
                        target.add(near)
                    elif step % 3 == 1:
                        target.upsert(near, [5, 600, 10_000 + step])
                    else:
                        target.remove([step, step + 1])
                acknowledged += 1
                if step % 9 == 6:
                    os.kill(process(sharded, 1), signal.SIGKILL)
                    sharded.save()
        finally:
            ended.set()
            other.join()
        assert wrong == []
        assert searched[0] > 5
        require_same(sharded, index)


def test_another_replica_answers(tmp_path):
    index = flat()
    with ShardedIndex.create(tmp_path / "many", index, 2, replicas=2, timeout=10) as sharded:
        stopped = [process(sharded, 0, 1), process(sharded, 1, 0)]
        for number in stopped:
            os.kill(number, signal.SIGSTOP)  # they neither answer nor die
        try:
            for found, expected in zip(sharded.search(QUERIES, 10), index.search(QUERIES, 10), strict=True):
                np.testing.assert_array_equal(found, expected)
        finally:
            for number in stopped:
                os.kill(number, signal.SIGCONT)


def test_replicas_share_many_queries(tmp_path):
    """Each is asked for a part of them; for one that stays away another answers; without a whole shard none of its
    vectors are among the answers, not even those that it has found for some of the queries."""
    index, many = flat(), vectors(300, 8)
    expected = index.search(many, 10)
    with ShardedIndex.create(tmp_path / "many", index, 2, replicas=2, timeout=8) as sharded:
        numbers = process(sharded, 0, 1), process(sharded, 1, 0), process(sharded, 1, 1)
        for number in numbers:
            for found, its in zip(sharded.search(many, 10), expected, strict=True):
                np.testing.assert_array_equal(found, its)
            os.kill(number, signal.SIGSTOP)
        try:
            part = sharded.search(many, 10, partial=True, timeout=8)
            with pytest.raises(MissingShardError, match="shard 1: "):
                sharded.search(many, 10, timeout=2)
        finally:
            for number in numbers:
                os.kill(number, signal.SIGCONT)
        assert list(part.missing) == [1]
        for found, its in zip(part, index.search(many, 10, filter=lambda ids: ids % 2 == 0), strict=False):
            np.testing.assert_array_equal(found, its)


def test_a_shard_that_stays_away(tmp_path, small_ray):
    index = flat()
    with ShardedIndex.create(tmp_path / "many", index, 3) as sharded:
        whole = sharded.search(QUERIES, 10, partial=True)
        assert isinstance(whole, Partial)
        assert whole.missing == {}
        small_ray.kill(sharded._reader.replicas.actors[1][0])
        sharded.timeout = 0.8
        for asked in (
            lambda: sharded.search(QUERIES, 10),
            lambda: sharded.search_within(QUERIES, 1.0),
            lambda: sharded.remove([1]),
            lambda: sharded.save(timeout=1.0) if sharded.add(vectors(1, 1)) else None,
        ):
            with pytest.raises(MissingShardError, match="shard 1: ") as error:
                asked()
            assert list(error.value.shards) == [1]
        part = sharded.search(QUERIES, 10, partial=True)
        assert list(part.missing) == [1]
        index.add(vectors(1, 1))
        there = index.search(QUERIES, 10, filter=lambda ids: ids % 3 != 1)
        np.testing.assert_array_equal(part.ids, there[1])
        np.testing.assert_array_equal(part.distances, there[0])
    with ShardedIndex.open(tmp_path / "many") as again:
        np.testing.assert_array_equal(again.search(QUERIES, 10)[1], index.search(QUERIES, 10)[1])


@pytest.mark.parametrize("make", [flat, lists])
def test_what_the_others_answer_is_there_however_often_they_are_asked(make, tmp_path, small_ray):
    """A function as filter asks for all ids first, and lists are searched on where too little was found."""
    index = make()
    with ShardedIndex.create(tmp_path / "many", index, 3) as sharded:
        sharded.search(QUERIES, 1)  # all actors are there
        small_ray.kill(sharded._reader.replicas.actors[1][0])
        part = sharded.search(QUERIES, 200, filter=lambda ids: ids % 2 == 0, timeout=4, partial=True)
    assert list(part.missing) == [1]
    expected = index.search(QUERIES, 200, filter=lambda ids: (ids % 2 == 0) & (ids % 3 != 1))
    np.testing.assert_array_equal(part.ids, expected[1])
    np.testing.assert_array_equal(part.distances, expected[0])


def test_a_shard_whose_file_is_gone(tmp_path):
    ShardedIndex.create(tmp_path / "many", flat(), 2).close()
    next((tmp_path / "many").glob("shard-00001-*")).unlink()
    with ShardedIndex.open(tmp_path / "many", timeout=3) as sharded:
        with pytest.raises(FileNotFoundError, match="shard-00001"):
            process(sharded, 1)  # both actors are there now
        process(sharded, 0)
        with pytest.raises(MissingShardError, match=r"shard 1: .*shard-00001"):
            sharded.search(QUERIES, 10)


def test_a_driver_that_is_killed_while_it_writes(tmp_path):
    """What it was told is done is there when the next driver opens the folder; of the rest, whole writes or nothing."""
    index = flat(n=50)
    ShardedIndex.create(tmp_path / "many", index, 2).close()
    base = vectors(100_000, 7)
    np.save(tmp_path / "base.npy", base)
    code = (
        "import sys\nimport numpy as np\n"
        "from annvq.distributed.folder import Folder\nfrom annvq.distributed.forms import encode\n"
        "from annvq.distributed.log import Write\n"
        "from annvq import load_index\nfrom pathlib import Path\n"
        "folder = Folder(Path(sys.argv[1]))\nindex = load_index(folder.path / folder.manifest.trained)\n"
        "base = np.load(sys.argv[2])\n"
        "for row in range(0, len(base), 5):\n"
        "    x, first = base[row : row + 5], folder.state.next_id\n"
        "    folder.append(Write('add', np.arange(first, first + 5), encode(index, x, first=False), 5))\n"
        "    print(row + 5, flush=True)\n"
    )
    done = 0
    for kill in range(3):
        driver = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "many", tmp_path / "base.npy"], stdout=subprocess.PIPE, text=True
        )
        told = 0
        for line in driver.stdout:
            told = int(line)
            if told >= 40 + 15 * kill:
                driver.kill()
        driver.wait()
        driver.stdout.close()
        with ShardedIndex.open(tmp_path / "many") as sharded:
            added = len(sharded) - 50 - done
            assert told <= added <= told + 5
            assert added % 5 == 0
            index.add(base[:added])
            np.testing.assert_array_equal(sharded.search(QUERIES, 20)[1], index.search(QUERIES, 20)[1])
        done += added


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk):
    """A write that finds no room has not happened, nor has a save; with room again both go on."""
    index = flat()
    with ShardedIndex.create(small_disk / "many", index, 2) as sharded:
        ballast, left = small_disk / "ballast", shutil.disk_usage(small_disk).free - 40_000
        ballast.write_bytes(bytes(left))
        more = vectors(200, 7)

        def fill():
            while True:
                sharded.add(more)
                index.add(more)

        with pytest.raises(OSError, match="No space left"):
            fill()
        assert len(index) > 600
        require_same(sharded, index)
        with pytest.raises((OSError, MissingShardError), match="No space left"):
            sharded.save(timeout=3)
        require_same(sharded, index)
        with pytest.raises(OSError, match="No space left"):
            sharded.add(more)
    with ShardedIndex.open(small_disk / "many") as sharded:
        require_same(sharded, index)
        ballast.unlink()
        for target in sharded, index:
            target.add(more)
            target.remove(np.arange(100, 150))
        sharded.save()
        require_same(sharded, index)
    with ShardedIndex.open(small_disk / "many") as sharded:
        require_same(sharded, index)
