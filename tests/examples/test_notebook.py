"""The notebook runs from top to bottom, in a short form, and its figures are what it says."""

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "from_vectors_to_an_index.ipynb"


@pytest.fixture
def cells():
    held = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert held["nbformat"] == 4
    return ["".join(cell["source"]) for cell in held["cells"] if cell["cell_type"] == "code"]


def test_notebook(cells, tmp_path, monkeypatch, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long = "n, seconds = 50_000, 40"
    assert sum(long in cell for cell in cells) == 1
    names = {}
    backend = matplotlib.get_backend()
    plt.switch_backend("Agg")
    try:
        for cell in cells:
            exec(cell.replace(long, "n, seconds = 4_000, 2"), names)
        assert len(plt.get_fignums()) == 4
    finally:
        plt.close("all")
        plt.switch_backend(backend)
    assert names["index"].bits_per_vector == 64
    assert 0.2 < names["recall"] <= 1
    assert (names["served"] == names["ids"]).all()
    printed = capsys.readouterr().out
    assert "PyTorch was loaded: False" in printed
    assert "removed ones that are found: 0\nthe new one: [10000000]" in printed
