"""Choosing a code: disjoint parts, every bit charged, front and recommendation by their definitions."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annvq import budget
from annvq.budget import Candidate, pareto, recommend
from annvq.training.kmeans import KMeans
from annvq.training.recipe import Recipe


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    """A few rounds of k-means are enough here: what is learned is not what is tested."""

    def recipe(quantizer):
        return Recipe((KMeans(iterations=2),))

    monkeypatch.setattr("annvq.training.recipe.default_recipe", recipe)
    monkeypatch.setattr("annvq.benchmarks.baselines.annvq.default_recipe", recipe)


def candidate(recall, encode, search):
    return Candidate("product", (8,), None, "l2", 8, 8, recall, recall, 1.0, 1.0, encode, search, 1.0)


FIGURES = st.tuples(st.floats(0, 1), st.floats(0.1, 100), st.floats(0.1, 100))


@given(st.lists(FIGURES, min_size=1, max_size=12))
def test_front_holds_the_best_and_nothing_beaten(figures):
    candidates = [candidate(*f) for f in figures]
    front = pareto(candidates)
    top = max(c.recall for c in candidates)
    assert front[0].recall == top
    assert [c.recall for c in front] == sorted((c.recall for c in front), reverse=True)
    for c in candidates:
        for other in candidates:
            beaten = other.recall > c.recall and other.encode_us <= c.encode_us and other.search_us <= c.search_us
            if beaten:
                assert c not in front
    chosen, reason = recommend(front, nq=500)
    assert chosen in front
    assert top - chosen.recall <= max(0.005, (top * (1 - top) / 5000) ** 0.5) + 1e-12
    assert reason


def test_recommendation():
    best, close, cheap = candidate(0.600, 50, 100), candidate(0.598, 5, 100), candidate(0.4, 1, 100)
    assert recommend([best, close, cheap], nq=500)[0] is close
    chosen, reason = recommend([best, cheap], nq=500)
    assert chosen is best
    assert reason.startswith("Highest recall")


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_candidates_take_the_budget(metric):
    for bits in (16, 48, 64, 100):
        for c in budget._candidates(bits, 64, metric, 20_000):
            norm = {None: 0, "uint8": 8, "float32": 32}[c.norm]
            assert sum(c.nbits) + norm == bits
            assert c.norm is None or metric == "l2"
            assert max(c.nbits) <= 10


def test_no_code_fits():
    with pytest.raises(ValueError, match="no code of the grid fits"):
        budget._candidates(100, 7, "ip", 8)


def test_parts_are_disjoint(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    x = np.arange(6000, dtype=np.float32).reshape(3000, 2)
    data = budget._split(x, "l2", sample=2000, nq=100, seed=3)
    parts = [set(map(tuple, part)) for part in (data.base, data.learn, data.queries)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 2000
    assert len(data.queries) == 100
    again = budget._split(x, "l2", sample=2000, nq=100, seed=3)
    assert again.digest == data.digest


def test_choose_measures_and_recommends(monkeypatch, tmp_path):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    monkeypatch.setattr(budget, "_GRID", (("product", 4, "auto"), ("product", 2, "auto")))
    x = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    choice = budget.choose(x, bits=16, sample=1500, nq=50, threads=1)
    assert [c.label for c in choice.candidates] == ["product 4x4", "product 8x2"]
    assert choice.recommended in choice.front
    assert {c.bits_per_vector for c in choice.candidates} == {16}
    assert json.loads(json.dumps(choice.to_dict()))["recommended"]["kind"] == "product"
    assert choice.table().row_count == 2
    assert choice.recommended.code_line().startswith("annvq.FlatIndex(annvq.ProductVQ(dim=8, M=")


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (np.zeros((10, 4), np.float32), {"bits": 8}, ValueError, "at least 1000 vectors"),
        (np.zeros((2000, 4), np.float32), {"bits": 0}, ValueError, "bits must be"),
        (np.zeros((2000, 4), np.float32), {"bits": 8, "nq": 0}, ValueError, "nq must be"),
        ([[1.0]], {"bits": 8}, TypeError, "x must be"),
    ],
)
def test_bad_arguments_are_named(x, arguments, error, message):
    with pytest.raises(error, match=message):
        budget.choose(x, **arguments)
