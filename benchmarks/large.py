"""Building from files that are larger than memory, and searching what came out of it where it lies on disk.

python benchmarks/large.py FOLDER --vectors 1000000 10000000 100000000

For each number of vectors: files of synthetic vectors (bytes, around 1,000 centres), `annvq build` of inverted lists of
product codes, its processor time and the most memory it had, and searches of the mapped file, cold (its pages dropped)
and warm. The folder needs (dim + 3 * 12) bytes a vector; files of one size are removed before the next one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import annvq

SHARD_ROWS = 1_000_000
CENTRES, SPREAD = 1_000, 20
RECIPE = """title = "benchmarks/large.py"
[index]
kind = "ivf"
residual = false
nlist = {nlist}
[quantizer]
kind = "product"
M = 8
"""


def rows(seed: int, count: int, dim: int) -> np.ndarray:
    """Synthetic vectors (count, dim) uint8."""
    centres = np.random.default_rng(0).integers(40, 216, (CENTRES, dim)).astype(np.float32)
    rng = np.random.default_rng((1, seed))
    noise = rng.standard_normal((count, dim), dtype=np.float32)
    return np.clip(centres[rng.integers(0, CENTRES, count)] + SPREAD * noise, 0, 255).astype(np.uint8)


def write_shards(folder: Path, n: int, dim: int) -> None:
    folder.mkdir()
    for number, start in enumerate(range(0, n, SHARD_ROWS)):
        np.save(folder / f"{number:05d}.npy", rows(number, min(SHARD_ROWS, n - start), dim))


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall and processor time of a program, seconds, and the most memory that it had, MiB."""
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {status}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def drop(path: Path) -> None:
    """Let the system forget the pages of a file that it has read."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def search(path: str, dim: int) -> None:
    """Print what searches of a mapped index take; run in a process of its own."""
    queries = rows(1 << 20, 1100, dim).astype(np.float32)
    drop(Path(path))
    begun = time.perf_counter()
    index = annvq.load_index(path, mmap=True)
    print(f"  opened in {1000 * (time.perf_counter() - begun):.0f} ms, nprobe {index.nprobe}")
    for name in "cold", "warm":
        times = []
        for query in queries[:100]:
            begun = time.perf_counter()
            index.search(query[None], 10)
            times.append(1000 * (time.perf_counter() - begun))
        print(f"  single queries {name}: p50 {np.median(times):.2f} ms, p99 {np.quantile(times, 0.99):.2f} ms")
    for name in "first", "again":
        begun, worked = time.perf_counter(), time.process_time()
        index.search(queries[100:], 10)
        wall, worked = time.perf_counter() - begun, time.process_time() - worked
        print(f"  batch of 1,000 {name}: {wall:.2f} s, {worked:.2f} s of processor time")
    peak = int(next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM")).split()[1])
    print(f"  memory at most {peak / 1024:.0f} MiB, of it mapped pages", end=" ")
    mapped = int(
        next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("RssFile")).split()[1]
    )
    print(f"{mapped / 1024:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--nlist", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--search", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        annvq.set_num_threads(options.threads)
        search(options.search, options.dim)
        return
    options.folder.mkdir()
    try:
        for n in options.vectors:
            shards, out, recipe = (options.folder / name for name in ("shards", "index.annvq", "large.toml"))
            begun = time.perf_counter()
            write_shards(shards, n, options.dim)
            recipe.write_text(RECIPE.format(nlist=options.nlist))
            print(
                f"{n:,} vectors of {options.dim} dimensions, written in {time.perf_counter() - begun:.0f} s", flush=True
            )
            annvq_ = str(Path(sys.executable).with_name("annvq"))
            build = [annvq_, "build", str(recipe), str(shards), str(out), "--threads", str(options.threads)]
            wall, worked, peak = measured(build)
            print(
                f"  built in {wall:.0f} s, {worked:.0f} s of processor time, {1e6 * worked / n:.2f} µs a vector; "
                f"at most {peak:.0f} MiB; file of {out.stat().st_size / n:.2f} bytes a vector",
                flush=True,
            )
            again = [sys.executable, __file__, str(options.folder), "--search", str(out), "--dim", str(options.dim)]
            subprocess.run([*again, "--threads", str(options.threads)], check=True)
            shutil.rmtree(shards)
            out.unlink()
    finally:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
