"""What a process takes that loads an index and searches once: time and memory, annvq's and FAISS', in turn.

    python benchmarks/serving.py [--n 100000] [--repeats 9] [--python annvq's own]

Each measurement is a process of its own, from the start of the interpreter's first import to the first result, on one
thread; medians are printed. annvq's processes may be run by another Python, one that has only NumPy and a wheel. Memory
is what the process has grown by meanwhile (resident, at its highest). A last table says what annvq's code store counts
for a vector and what the process has grown by (with a second store: a first one pays for what all share), however the
vectors were added.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import faiss
import numpy as np

import annvq
from annvq.training import KMeans, Recipe

START = """
import json, sys, time

def highest():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))

before, start = highest(), time.perf_counter()
import numpy as np
numpy_s = time.perf_counter() - start
{load}
queries = np.zeros((1, index.{dim}), np.float32)
{search}
took = time.perf_counter() - start
print(json.dumps([took, numpy_s, (highest() - before) / 1024]))
"""
ANNVQ = START.format(
    load="import annvq\nannvq.set_num_threads(1)\nindex = annvq.load_index(sys.argv[1], mmap={mmap})",
    dim="dim",
    search="index.search(queries, 10)",
)
FAISS = START.format(
    load="import faiss\nfaiss.omp_set_num_threads(1)\nindex = faiss.read_index(sys.argv[1])",
    dim="d",
    search="index.search(queries, 10)",
)
GROWN = """
import ctypes, json, sys
import numpy as np
from annvq.kernels.store import CodeStore

def resident():
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096

n, way = int(sys.argv[1]), sys.argv[2]
lists, rng = int(4 * n**0.5), np.random.default_rng(0)
codes, norms = rng.integers(0, 256, (n, 7), dtype=np.uint8), rng.integers(0, 256, n, dtype=np.uint8)
share = rng.gamma(3, size=lists)
ids, of = rng.permutation(n), rng.choice(lists, n, p=share / share.sum()).astype(np.int32)
step = {"at once": n, "in ten parts": n // 10}.get(way, 1000)
stores = [CodeStore(7, [256] * 7, norm="uint8", lists=lists) for _ in range(2)]
for store in stores:
    before = resident()
    for a in range(0, n, step):
        rows = slice(a, a + step)
        store.append(codes[rows], norms[rows], ids[rows], of[rows], known_new=True)
    if way.startswith("a tenth"):
        store.remove(ids[rng.permutation(n)[: n // 10]])
    for rows in rng.permutation(n).reshape(-1, 1000) if way.startswith("all") else []:
        store.remove(ids[rows])
        store.append(codes[rows], norms[rows], ids[rows], of[rows], known_new=True)
print(json.dumps([(store.nbytes + store.id_nbytes) / len(store), (resident() - before) / len(store)]))
"""

WAYS = (
    "at once", "in ten parts", "a thousand at a time", "a tenth removed",
    "all removed and added again, a thousand at a time",
)  # fmt: skip


def asked(python: str, code: str, *arguments: str) -> list[float]:
    """What a process of this Python that runs ``code`` prints."""
    elsewhere = tempfile.gettempdir()  # not in a checkout, whose package has no compiled kernels
    done = subprocess.run([python, "-c", code, *arguments], check=True, capture_output=True, text=True, cwd=elsewhere)
    return json.loads(done.stdout)


def made(folder: Path, n: int) -> dict[str, tuple[str, str]]:
    """Indexes in files: what starts with each, and its path, by name."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 128)).astype(np.float32)
    learn, nlist = x[:20_000], annvq.IVFIndex.for_vectors(annvq.make("product", dim=128, M=8), n, metric="l2").nlist
    recipe = Recipe((KMeans(2),))
    lists = annvq.IVFIndex(annvq.make("residual", dim=128, M=7), nlist, nprobe=8).fit(x[: 32 * nlist], recipe=recipe)
    flat = annvq.FlatIndex(annvq.make("product", dim=128, M=8)).fit(learn, recipe=recipe)
    theirs = faiss.index_factory(128, f"IVF{nlist},PQ8x8")
    theirs.train(x[: 32 * nlist])
    theirs.nprobe = 8
    for name, index in (("ivf", lists), ("flat", flat)):
        index.add(x)
        index.save(folder / name)
    theirs.add(x)
    faiss.write_index(theirs, str(folder / "faiss"))
    here = ANNVQ.replace("{mmap}", "False")
    return {
        "annvq IVF residual 7x8 + norm": (here, str(folder / "ivf")),
        "annvq IVF, mapped": (ANNVQ.replace("{mmap}", "True"), str(folder / "ivf")),
        "annvq flat product 8x8": (here, str(folder / "flat")),
        "FAISS IVF PQ8x8": (FAISS, str(folder / "faiss")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = made(Path(folder), given.n)
        found: dict[str, list[list[float]]] = {name: [] for name in starts}
        for _ in range(given.repeats):
            for name, (code, path) in starts.items():
                found[name].append(asked(sys.executable if code is FAISS else given.python, code, path))
    print(f"{given.n:,} vectors, d = 128; medians of {given.repeats}\n")
    print("| index | import, load, first search: s | of which NumPy's import | MB |\n|---|---:|---:|---:|")
    for name, rows in found.items():
        took, of_numpy, grown = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {took:.3f} | {of_numpy:.3f} | {grown:.0f} |")
    print("\n| code 7, norm 1, id 8 bytes; added | bytes a vector, counted | resident | of 16 |\n|---|---:|---:|---:|")
    for way in WAYS:
        held, resident = asked(given.python, GROWN, str(given.n), way)
        print(f"| {way} | {held:.1f} | {resident:.1f} | {held / 16:.2f} |")


if __name__ == "__main__":
    main()
