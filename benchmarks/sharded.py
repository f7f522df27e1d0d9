"""A sharded index beside one process: throughput of batches, latency of single queries through Ray, restarts.

python benchmarks/sharded.py --vectors 1000000

Rounds take turns; medians and quantiles are printed, of this machine as it was.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray

import annvq
from annvq.distributed import ShardedIndex
from annvq.distributed.shard import Position, Shard


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def worked(call: Callable[[], object], rounds: int) -> float:
    """Median processor time of a call in this process, seconds: other programs disturb it less."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return float(np.median(times))


def processor(process: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each call, (rounds,), one after the other; the first round is not counted."""
    times = [[timed(call) for call in calls.values()] for _ in range(rounds + 1)]
    return dict(zip(calls, np.array(times[1:]).T, strict=True))


def process_of(index: ShardedIndex, shard: int, replica: int = 0) -> int:
    """The process that an actor is now."""
    actor = index._reader.replicas.actors[shard][replica]
    process: int = ray.get(actor.process.remote(index._files.state.position))[1]
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--singles", type=int, default=300)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    base = rng.normal(size=(options.vectors, 32)).astype(np.float32)
    queries = rng.normal(size=(1000, 32)).astype(np.float32)
    one = annvq.FlatIndex(annvq.ProductVQ(32, M=8)).fit(base[:20_000]).add(base)
    # Ray gives its workers little of a busy machine (nice 15) unless it is started so.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray spells it so)
    ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    actors = options.shards * options.replicas
    annvq.set_num_threads(actors)

    with tempfile.TemporaryDirectory() as temporary:
        settings = {"replicas": options.replicas, "threads": 1, "timeout": 120}
        many = ShardedIndex.create(Path(temporary) / "many", one, options.shards, **settings)
        found, expected = many.search(queries, 10), one.search(queries, 10)
        assert all(map(np.array_equal, found, expected))
        names = f"one process, {actors} threads", f"{options.shards} shards, {actors} actors, one thread each"
        batch = in_turns(
            dict(zip(names, (lambda: one.search(queries, 10), lambda: many.search(queries, 10)), strict=True)),
            options.rounds,
        )
        for name, times in batch.items():
            print(f"batches of 1,000: {name}: {1000 / np.median(times):,.0f} queries/s")
        ratio = batch[names[0]] / batch[names[1]]
        print(f"of the one process' throughput: {np.median(ratio):.2f} (rounds {ratio.min():.2f} to {ratio.max():.2f})")

        processes = [process_of(many, *which) for which in np.ndindex(options.shards, options.replicas)]
        begun = [processor(process) for process in processes]
        driver = worked(lambda: many.search(queries, 10), options.rounds)
        theirs = [processor(p) - since for p, since in zip(processes, begun, strict=True)]
        print(
            f"processor time of a sharded batch: driver {1000 * driver:.0f} ms, "
            f"actors {', '.join(f'{1000 * seconds / options.rounds:.0f}' for seconds in theirs)} ms"
        )

        annvq.set_num_threads(1)
        shard = Shard(str(many.folder), 0, 1)
        whole = worked(lambda: one.search(queries, 10), options.rounds)
        part = worked(lambda: shard.find(Position(0, 0), queries, 10, None, None), options.rounds)
        print(f"processor time of a batch: one process {1000 * whole:.0f} ms, the scan of a shard {1000 * part:.0f} ms")

        small = ShardedIndex.create(Path(temporary) / "small", one.reset().add(base[:1000]), options.shards, **settings)
        single = in_turns(
            {"one process": lambda: one.search(queries[:1], 10), "through Ray": lambda: small.search(queries[:1], 10)},
            options.singles,
        )
        for name, times in single.items():
            p50, p99 = 1000 * np.quantile(times, [0.5, 0.99])
            print(f"single queries of 1,000 vectors: {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        small.close()

        recovered = []
        for _ in range(options.kills):
            os.kill(process_of(many, 0), signal.SIGKILL)
            recovered.append(timed(lambda: many.search(queries[:1], 10)))
        print(f"first answer after an actor was killed: {np.median(recovered):.2f} s, at most {max(recovered):.2f} s")
        many.close()


if __name__ == "__main__":
    main()
