"""Importing stays light, and names are where they are promised."""

import subprocess
import sys


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
