"""Actors of a sharded index are killed by another process while it is searched, written to, saved and built.

python benchmarks/killing.py --vectors 1000000 --kills 500 --build-kills 40

Every answer is compared with what one process finds after as many writes, at the end the whole index too, opened anew.
Kills come at random moments, some while an actor is still reading its files. Prints how many answers were wrong, what
was lost, and how long after a kill the first answer came to a search that began after it.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray

import annvq
from annvq.distributed import ShardedIndex, build

DIM, K = 32, 10


def processes() -> dict[int, tuple[int, str]]:
    """All processes: parent and command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(folder.name)] = parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended
                continue
    return found


def kill_some(driver: int, titles: str, mean: float, seed: int) -> None:
    """Kill workers of a driver's Ray whose title begins so, at random moments, and print when; until it is ended."""
    rng, wanted = np.random.default_rng(seed), tuple(titles.split(","))
    while True:
        time.sleep(rng.exponential(mean))
        all_ = processes()
        theirs = [
            number
            for number, (parent, title) in all_.items()
            if title.startswith(wanted) and all_.get(parent, (0, ""))[0] == driver
        ]
        if theirs:
            os.kill(int(rng.choice(theirs)), signal.SIGKILL)
            print(time.monotonic(), flush=True)


@contextmanager
def killer(titles: str, mean: float, seed: int) -> Iterator[list[float]]:
    """When processes were killed, as far as that is known; it grows."""
    times: list[float] = []
    command = [sys.executable, __file__, "--driver", str(os.getpid()), "--titles", titles, "--mean", str(mean)]
    process = subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            times.append(float(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield times
    finally:
        process.kill()
        process.wait()
        reader.join()
        lines.close()


class Load:
    """An index beside its shards: writes to both, and searches that are compared."""

    def __init__(self, one: annvq.FlatIndex, sharded: ShardedIndex, queries: np.ndarray) -> None:
        self.one, self.sharded, self.queries = one, sharded, queries
        self.states = [one.search(queries, K)]  # what one process finds after so many writes
        self.acknowledged = self.answers = self.unanswered = 0
        self.wrong: list[str] = []
        self.spans: list[tuple[float, float]] = []
        self.ended = threading.Event()

    def search(self) -> None:
        """Search until :attr:`ended`."""
        while not self.ended.is_set():
            before, begun = self.acknowledged, time.monotonic()
            try:
                found = self.sharded.search(self.queries, K)
            except Exception as e:
                self.unanswered += 1
                self.wrong.append(repr(e))
                continue
            self.spans.append((begun, time.monotonic()))
            self.answers += 1
            if not any(all(map(np.array_equal, found, state)) for state in self.states[before:]):
                self.wrong.append(f"after {before} writes")

    def write(self, step: int, rng: np.random.Generator) -> None:
        near = self.queries[rng.integers(0, len(self.queries), 3)] + np.float32(0.01) * rng.normal(size=(3, DIM))
        near, some = near.astype(np.float32), self.one.ids[rng.choice(len(self.one), 2, replace=False)]
        for index in (self.one, self.sharded):
            if index is self.sharded:
                self.states.append(self.one.search(self.queries, K))
            if step % 3 == 0:
                index.add(near)
            elif step % 3 == 1:
                index.upsert(near, np.array([some[0], some[1], 10**9 + step]))
            else:
                index.remove(some)
        self.acknowledged += 1


def same(one: Any, sharded: ShardedIndex, queries: np.ndarray) -> bool:
    found, expected = sharded.search(queries, 50), one.search(queries, 50)
    return all(map(np.array_equal, found, expected)) and bool(np.array_equal(sharded.ids, one.ids))


def under_load(
    one: annvq.FlatIndex, folder: Path, queries: np.ndarray, kills: int, mean: float, seconds: float
) -> None:
    rng, saves, until = np.random.default_rng(1), 0, time.monotonic() + seconds
    with ShardedIndex.create(folder, one, 2, timeout=120) as sharded:
        load = Load(one, sharded, queries)
        sharded.search(queries, K)
        thread = threading.Thread(target=load.search)
        thread.start()
        try:
            with killer("ray::Shard", mean, 2) as times:
                step = 0
                while len(times) < kills and time.monotonic() < until:
                    load.write(step, rng)
                    step += 1
                    if step % 20 == 0:
                        sharded.save()
                        saves += 1
        finally:
            load.ended.set()
            thread.join()
        whole = same(one, sharded, queries)
    with ShardedIndex.open(folder, timeout=120) as again:
        whole = whole and same(one, again, queries)
    print(f"{len(times)} kills during {load.answers} searches, {load.acknowledged} writes and {saves} saves")
    print(f"wrong or no answers: {len(load.wrong)} {load.wrong[:3]}; everything there in the end: {whole}")
    firsts = [min((end for begun, end in load.spans if begun >= t), default=np.nan) - t for t in times]
    recovered = np.array([seconds for seconds in firsts if seconds == seconds])
    quantiles = np.quantile(recovered, [0.5, 0.95, 1])
    print("first answer after a kill: median {:.2f} s, 95 % {:.2f} s, worst {:.2f} s".format(*quantiles), flush=True)
    if load.wrong or not whole:
        raise SystemExit(1)


def while_building(
    one: annvq.FlatIndex, base: np.ndarray, folder: Path, queries: np.ndarray, kills: int, mean: float
) -> None:
    np.save(folder / "base.npy", base)
    done = builds = 0
    empty = annvq.FlatIndex(one.quantizer)
    expected = annvq.FlatIndex(one.quantizer).add(base)
    while done < kills:
        with killer("ray::_encode,ray::_join", mean, builds) as times:
            where = folder / f"built-{builds}"
            rows = max(1, len(base) // 16)
            build(where, empty, folder / "base.npy", shards=2, chunk_rows=rows, options={"max_retries": -1})
        done, builds = done + len(times), builds + 1
        with ShardedIndex.open(where, timeout=120) as sharded:
            if not same(expected, sharded, queries):
                raise SystemExit(f"build {builds} gave another index")
    print(f"{done} kills during {builds} builds: each gave the index of one process", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--build-kills", type=int, default=40)
    parser.add_argument("--mean", type=float, default=1.5, help="seconds between kills; more than a task takes")
    parser.add_argument("--seconds", type=float, default=3600, help="of load, at most")
    for hidden in ("--driver", "--seed"):
        parser.add_argument(hidden, type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--titles", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        kill_some(options.driver, options.titles, options.mean, options.seed)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray spells it so)
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    rng = np.random.default_rng(0)
    base = rng.normal(size=(options.vectors, DIM)).astype(np.float32)
    queries = rng.normal(size=(20, DIM)).astype(np.float32)
    one = annvq.FlatIndex(annvq.ProductVQ(DIM, M=8)).fit(base[:20_000]).add(base)
    with tempfile.TemporaryDirectory() as temporary:
        if options.build_kills:
            while_building(one, base, Path(temporary), queries, options.build_kills, options.mean)
        if options.kills:
            under_load(one, Path(temporary) / "many", queries, options.kills, options.mean, options.seconds)


if __name__ == "__main__":
    main()
