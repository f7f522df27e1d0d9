"""Vectors to choose a code for, and a grid of codes that are learned in no time."""

import numpy as np
import pytest

from annvq.choosing import grid
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe


@pytest.fixture
def x(monkeypatch, tmp_path, quick_fits):
    quick_fits(Recipe((KMeans(iterations=2),)))
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    monkeypatch.setattr(grid, "GRID", (("product", 4, "auto"), ("residual", 4, "uint8"), ("product", 2, "auto")))
    rng = np.random.default_rng(0)
    return (rng.standard_normal((3000, 6)) @ rng.standard_normal((6, 24))).astype(np.float32)
