"""SIMD levels: how they are named and chosen, and that one's instructions never run on machines of another."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from annvq import kernels

CSRC = Path(__file__).parents[2] / "annvq" / "kernels" / "csrc"
X86 = platform.machine() in ("x86_64", "AMD64")
ARM64 = platform.machine() in ("aarch64", "arm64")
KNOWN = ["generic", "avx2", "avx512", "avx512vbmi", "neon", "neondot"]
# What compiles each level: the processor's compiler, and the options for a machine that has the level.
X86_TOOLS, ARM64_TOOLS = ("" if X86 else "x86_64-linux-gnu-"), ("" if ARM64 else "aarch64-linux-gnu-")
COMPILED = {
    "avx2": (X86_TOOLS, "-march=haswell"),
    "avx512": (X86_TOOLS, "-march=icelake-server"),
    "avx512vbmi": (X86_TOOLS, "-march=icelake-server"),
    "neon": (ARM64_TOOLS, "-DANNVQ_NEON"),
    "neondot": (ARM64_TOOLS, "-march=armv8.2-a+dotprod"),
}


def test_an_unknown_level_is_refused_and_changes_nothing(level):
    with pytest.raises(ValueError, match=f"^unknown SIMD level 'mmx'; known: {', '.join(KNOWN)}$"):
        kernels.set_simd_level("mmx")
    assert kernels.simd_level() == level


def test_levels_that_the_machine_lacks_are_refused():
    there = kernels.available_levels()
    assert there == [level for level in KNOWN if level in there]
    assert there[0] == "generic"
    for level in set(KNOWN) - set(there):
        with pytest.raises(ValueError, match=f"'{level}' is not available on this machine; the best is '{there[-1]}'"):
            kernels.set_simd_level(level)


def test_the_last_level_is_used_unless_another_is_named():
    code = "from annvq import kernels; print(kernels.simd_level(), *kernels.available_levels())"
    plain = {k: v for k, v in os.environ.items() if k != "ANNVQ_SIMD"}
    for forced in (None, *kernels.available_levels()):
        env = plain if forced is None else {**plain, "ANNVQ_SIMD": forced}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        used, *there = done.stdout.split()
        assert used == (forced or there[-1])


@pytest.mark.skipif(not CSRC.is_dir(), reason="needs the sources")
@pytest.mark.parametrize("named", COMPILED)
def test_kernels_of_a_level_show_nothing_but_themselves(named, tmp_path):
    """The linker keeps one copy of a function that several files define, so an inline function or a template in a file
    that is compiled for new machines could reach old ones. Without optimization none of them can hide."""
    tools, option = COMPILED[named]
    if not (shutil.which(f"{tools}g++") and shutil.which(f"{tools}nm")):
        pytest.skip(f"needs {tools}g++ and {tools}nm")
    files = sorted(CSRC.glob(f"*/{named}.cpp"))
    assert files
    for file in files:
        built = tmp_path / "kernels.o"
        options = ["-std=c++17", "-O0", "-w", option, "-I", str(CSRC)]
        subprocess.run([f"{tools}g++", *options, "-c", str(file), "-o", str(built)], check=True)
        list_symbols = [f"{tools}nm", "-C", "--defined-only", str(built)]
        listed = subprocess.run(list_symbols, capture_output=True, text=True, check=True)
        symbols = [line.split(maxsplit=2)[1:] for line in listed.stdout.splitlines()]
        shown = [name for kind, name in symbols if kind not in "tdbrn"]  # those kinds stay within the file
        assert len(shown) == 1, f"{file.relative_to(CSRC)}: {shown}"
        assert shown[0].startswith(f"annvq::{file.stem}::k")


EVERY_KERNEL = """
import hashlib
import numpy as np
from annvq import kernels
from annvq.codebooks import Codebooks
from annvq.kernels import _native
from annvq.kernels.encode import AdditiveEncoder, ProductEncoder
from annvq.kernels.store import CodeStore

rng = np.random.default_rng(0)
x, queries = rng.normal(size=(700, 16)).astype(np.float32), rng.normal(size=(5, 16)).astype(np.float32)
books = rng.normal(size=(4 * 256, 4)).astype(np.float32)
sums = rng.normal(size=(3 * 256, 16)).astype(np.float32) / 2
ids, bytes_of_norms = np.arange(700), rng.integers(0, 256, 700).astype(np.uint8)
for level in kernels.available_levels():
    kernels.set_simd_level(level)
    found = []
    codes = ProductEncoder(books, [256] * 4, [0, 4, 8, 12]).encode(x)
    tables = Codebooks(books, (256,) * 4, (0, 4, 8, 12), 16).tables(queries, squared=True)
    for norms in (None, bytes_of_norms):
        store = CodeStore(4, [256] * 4, norm=None if norms is None else "uint8")
        store.append(codes, norms, ids)
        levels = None if norms is None else np.linspace(0, 1, 256, dtype=np.float32)
        for allowed in (None, ids % 3 == 0):
            found += store.search(tables, np.zeros(5, np.float32), 9, norm_levels=levels, allowed=allowed)
    store = CodeStore(4, [16] * 4)
    store.append(codes % 16, None, ids)
    found += store.search(tables.build()[:, :, :16].copy(), np.zeros(5, np.float32), 9)
    encoder = AdditiveEncoder(sums, [256] * 3)
    start = encoder.residual(x[:50], 4)
    found += [start, encoder.additive(x[:50], 2), encoder.iterated_search(x[:50], start, iterations=3)]
    found += [encoder.local_search(x[:50], start, rounds=2)]
    found += [encoder.norm_search(x[:50], start, np.zeros(768, np.float32), np.linspace(0, 9, 16, dtype=np.float32))]
    found += _native.CoarseSearch(x).probe(queries, 7, True, 1)
    found += [_native.CoarseSearch(x).assign(queries, 1)]
    for dtype in ("float32", "float16", "bfloat16", "int8"):
        rows = np.clip(x, -9, 9).astype("float32" if dtype == "bfloat16" else dtype)
        rows = (rows.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else rows
        for metric in ("l2", "ip", "cosine"):
            found += _native.rerank_array(rows, dtype, queries, np.tile(ids, (5, 1)), 9, metric, 1)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in found)).hexdigest()
    print(level, digest)
"""


@pytest.mark.skipif(not X86, reason="emulates x86-64 machines")
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-x86_64")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers do not run in emulation")
@pytest.mark.parametrize(("machine", "levels"), [("Nehalem", ["generic"]), ("Haswell", ["generic", "avx2"])])
def test_older_machines_run_every_kernel_and_get_the_same(machine, levels):
    env = {k: v for k, v in os.environ.items() if k != "ANNVQ_SIMD"}
    emulated = ["qemu-x86_64", "-cpu", machine]
    if subprocess.run([*emulated, sys.executable, "-c", "import numpy"], capture_output=True, env=env).returncode:
        pytest.skip(f"this NumPy does not run on a {machine}")
    native = [sys.executable, "-c", EVERY_KERNEL]
    here, there = (
        subprocess.run([*before, *native], capture_output=True, text=True, env=env) for before in ([], emulated)
    )
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    wanted = dict(line.split() for line in here.stdout.splitlines())
    assert len(set(wanted.values())) == 1
    assert dict(line.split() for line in there.stdout.splitlines()) == {level: wanted[level] for level in levels}
