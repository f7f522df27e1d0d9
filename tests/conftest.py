"""Tests see the installed package, run in folders of their own, and share small fitted quantizers."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1].resolve()
# `python -m pytest` puts the checkout first on the path, where the package has no compiled kernels.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]

import fake_index  # noqa: E402, F401  registered by being defined
import fake_neural  # noqa: E402, F401  registered by being defined

import annvq  # noqa: E402
from annvq.indexes.saved import registered as registered_indexes  # noqa: E402
from annvq.quantizers import TableQuantizer, registered  # noqa: E402
from annvq.training import KMeans, LearnNetwork, Recipe  # noqa: E402

# The same inputs on every run in CI, new ones at each run of a developer.
# Examples are never timed: a busy machine is no failure.
settings.register_profile("any", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("any")
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Processes that a test starts must not find the checkout in their working folder either."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=sorted(registered()))
def kind(request):
    """The name of each registered quantizer in turn."""
    return request.param


@pytest.fixture(params=sorted(kind for kind, made in registered().items() if issubclass(made, TableQuantizer)))
def table_kind(request):
    """The name of each registered quantizer that has codebooks and tables of its own."""
    return request.param


@pytest.fixture(scope="session")
def quick():
    """``quick(kind)``: a recipe that takes no time, for tests of what is learned and not of how well; None: the
    quantizer's own."""
    network = LearnNetwork(steps=20, rounds=1, round_steps=10, added=0.5)
    own = {"conditional": Recipe((KMeans(4), network))}
    return lambda kind: own.get(kind, Recipe((KMeans(4),)) if issubclass(registered()[kind], TableQuantizer) else None)


@pytest.fixture
def quick_fits(monkeypatch):
    """``quick_fits(recipe)``: every quantizer's default recipe for the rest of the test."""

    def use(recipe):
        for quantizer in registered().values():
            monkeypatch.setattr(quantizer, "default_recipe", lambda self: recipe)

    return use


@pytest.fixture(scope="session")
def new_index():
    """``new_index(kind, quantizer, …)``: an untrained, empty index of any registered kind."""

    def make(kind, q, **settings):
        if kind == "rerank":  # scans another index, here for all that there is
            return annvq.RerankIndex(annvq.FlatIndex(q, **settings), "float32", shortlist=10_000)
        return registered_indexes()[kind](q, **settings)

    return make


@pytest.fixture(scope="session")
def small(quick):
    """``small(kind, …)``: a quickly fitted quantizer and the vectors it learned from."""

    def make(kind, nbits=4, M=3, dim=12, **config):
        rng = np.random.default_rng(0)
        x = (rng.normal(size=(600, dim)) @ rng.normal(size=(dim, dim))).astype(np.float32)
        q = annvq.make(kind, dim=dim, M=M, nbits=nbits, **config)
        return q.fit(x, seed=0, recipe=quick(kind)), x

    return make
