"""Levels of 64-bit ARM on machines of another processor: compiled by a cross compiler, run in emulation.

The kernels alone, without Python, against plain loops and the generic level (``arm64/levels.cpp``).
``arm64/emulate.sh`` runs all tests of kernels on an emulated machine, which takes half an hour.
"""

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "annvq" / "kernels" / "csrc"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
OPTIONS = {"neon": ["-DANNVQ_NEON"], "neondot": ["-march=armv8.2-a+dotprod"]}
# What the kernels' tests need besides kernels.
MORE = ["simd/levels", "coarse/bytes", "encode/books", "encode/encode", "encode/iterated", "encode/norm_search"]
MORE += [
    "encode/network",
    "encode/pair_tables",
    "common/centre",
    "common/large_pages",
    "common/mutex",
    "common/parallel",
]

pytestmark = [
    pytest.mark.skipif(platform.machine() in ("aarch64", "arm64"), reason="the other tests run these levels here"),
    pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"needs {COMPILER}, {EMULATOR}"),
    pytest.mark.skipif(not CSRC.is_dir(), reason="needs the sources"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The kernels of all levels of 64-bit ARM and their tests in one program."""
    folder = tmp_path_factory.mktemp("arm64")
    families = [file.parent.name for file in CSRC.glob("*/kernels.cpp")]
    kernels = [file for level in ("generic", *OPTIONS) for file in sorted(CSRC.glob(f"*/{level}.cpp"))]
    lists = folder / "simd" / "built_levels.h"
    lists.parent.mkdir()
    with lists.open("w") as out:
        for family in families:
            levels = " ".join(f"X({file.stem}, Kernels)" for file in kernels if file.parent.name == family)
            print(f"#define ANNVQ_{family.upper()}_LEVELS(X, Kernels) {levels}", file=out)

    def compiled(file):
        built = folder / f"{file.parent.name}_{file.stem}.o"
        options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", *OPTIONS.get(file.stem, [])]
        options += ["-Wno-psabi", "-I", str(CSRC), "-I", str(folder)]
        subprocess.run([COMPILER, *options, "-c", str(file), "-o", str(built)], check=True)
        return str(built)

    files = [
        *kernels,
        *(CSRC / family / "kernels.cpp" for family in families),
        *(CSRC / f"{name}.cpp" for name in MORE),
    ]
    files.append(Path(__file__).with_name("arm64") / "levels.cpp")
    with ThreadPoolExecutor(2) as workers:
        built = list(workers.map(compiled, files))
    subprocess.run([COMPILER, "-static", "-pthread", *built, "-o", str(folder / "levels")], check=True)
    return folder / "levels"


@pytest.mark.parametrize(
    ("machine", "levels"), [("cortex-a72", "generic neon"), ("neoverse-n1", "generic neon neondot")]
)
def test_kernels_are_those_of_the_generic_level(program, machine, levels):
    done = subprocess.run([EMULATOR, "-cpu", machine, str(program)], capture_output=True, text=True)
    assert done.stdout.split() == levels.split(), done.stdout
    assert done.returncode == 0, done.stderr
