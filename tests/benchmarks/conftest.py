"""Vectors that the suites of scans and of indexes measure."""

import numpy as np
import pytest


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1200, 16)).astype(np.float32))
    return str(path)
