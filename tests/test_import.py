"""Importing stays light, and names are where they are promised."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_import_pulls_in_nothing_heavy():
    code = (
        "import annvq, sys; "
        "print([m for m in ('torch', 'faiss', 'h5py', 'matplotlib', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quantizers_do_without_faiss():
    code = (
        "import annvq, sys; annvq.ProductVQ, annvq.FlatIndex, annvq.datasets; "
        "print([m for m in ('faiss', 'h5py', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stores_do_without_pytorch_until_they_learn():
    code = (
        "import annvq, sys; store = annvq.adapters.collection.Collection(); store.put(['a'], [{}], [[1.0, 2.0]]); "
        "store.search([1.0, 2.0], 1); "
        "print([m for m in ('torch', 'faiss', 'h5py', 'matplotlib', 'sklearn', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_forced_simd_level():
    code = "from annvq import kernels; print(kernels.simd_level())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"ANNVQ_SIMD": "generic"}
    )
    assert done.stdout.strip() == "generic"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"ANNVQ_SIMD": "mmx"})
    assert done.returncode != 0
    assert "unknown SIMD level 'mmx'" in done.stderr


def test_every_public_name_resolves():
    import annvq

    for name in annvq.__all__:
        assert getattr(annvq, name) is not None


# What README and guides call by its whole name.
ROOT = Path(__file__).parents[1]
GUIDES = "".join(
    path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
)
RUN = {"train"}  # what `-m` runs, and nobody imports
NAMES = sorted(set(re.findall(r"(?<![\w/\"'.-])annvq\.((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)", GUIDES)) - RUN)


@pytest.fixture(scope="module")
def unreached(tmp_path_factory):
    """Of :data:`NAMES`, those that a process does not get by importing annvq alone, with the errors."""
    code = (
        "import annvq, functools\n"
        f"for name in {NAMES}:\n"
        "    try: functools.reduce(getattr, name.split('.'), annvq)\n"
        "    except Exception as error: print(f'{name} | {error}')\n"
    )
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # the checkout's own package has nothing compiled
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=elsewhere)
    return dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)


@pytest.mark.parametrize("name", NAMES)
def test_import_annvq_alone_reaches_what_guides_name(unreached, name):
    message = unreached.get(name, "")
    assert not message or "which is not installed: pip install" in message
    assert not message or name.startswith(("adapters.", "distributed"))  # all else comes with annvq


def test_guides_name_something():
    assert {"choosing.choose", "indexes.building.add_in_chunks", "show_config"} <= set(NAMES)
