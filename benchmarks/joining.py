"""Joining index files as the end of `annvq build` does: memory, time, and disk speed beside it.

python benchmarks/joining.py FOLDER --vectors 100000000

A part of a million synthetic vectors (inverted lists of product codes, 8 bytes) is encoded once and written again and
again under other ids. The folder needs 48 bytes a vector.
"""

import argparse
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from large import drop, rows

import annvq
from annvq import storage
from annvq.indexes.joining import join
from annvq.indexes.saved import FORMAT, read_index

ROWS, DIM = 1 << 20, 16


def status(name: str) -> float:
    """A figure of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def write_parts(folder: Path, count: int, nlist: int) -> None:
    """Files of one trained index, of as many vectors each."""
    x = rows(0, ROWS, DIM)
    annvq.IVFIndex(annvq.ProductVQ(DIM, M=8), nlist, residual=False).fit(x).add(x).save(folder / "part-00000")
    held = read_index(folder / "part-00000", mmap=True, verify=False)
    for number in range(1, count):
        ids = held.tensors["ids"] + number * ROWS
        config = {**held.config, "next_id": held.config["next_id"] + number * ROWS}
        storage.write(folder / f"part-{number:05d}", FORMAT, held.version, config, {**held.tensors, "ids": ids})


class Watched:
    """The most memory that is not of mapped files, MiB, looked at 50 times a second."""

    def __enter__(self) -> "Watched":
        self.most, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, status("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def joined(folder: Path) -> None:
    """Join the parts in a process of its own, and print what that took."""
    paths = sorted(folder.glob("part-*"))
    for path in paths:
        drop(path)
    annvq.load_index(paths[0], mmap=True).search(rows(1, 1, DIM).astype(np.float32), 1)  # what Python needs is there
    before, begun, worked = status("RssAnon"), time.perf_counter(), time.process_time()
    with Watched() as memory:
        index = join(paths, folder / "joined")
        assert index is not None
        index.save(folder / "index")
    took, busy = time.perf_counter() - begun, time.process_time() - worked
    n, size = len(index), (folder / "index").stat().st_size / 2**20
    print(f"{n:,} vectors of {len(paths)} files joined and written: {took:.0f} s, {busy:.1f} s of processor time")
    print(f"the index: {size:.0f} MiB; memory: {before:.0f} MiB before, {memory.most - before:.0f} MiB more at most")
    if index.ids.sum() != n * (n - 1) // 2:
        raise SystemExit("ids are not those of the parts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--nlist", type=int, default=4096)
    parser.add_argument("--join", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    annvq.set_num_threads(1)
    if options.join:
        joined(options.folder)
        return
    options.folder.mkdir()
    try:
        write_parts(options.folder, -(-options.vectors // ROWS), options.nlist)
        begun = time.perf_counter()
        with open(options.folder / "zeros", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 24))
        drop(options.folder / "zeros")
        print(f"disk: {1024 / (time.perf_counter() - begun):.0f} MiB/s written")
        (options.folder / "zeros").unlink()
        subprocess.run([sys.executable, __file__, str(options.folder), "--join"], check=True)
    finally:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
