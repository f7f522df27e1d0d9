"""Suites of kind ablation: learners learn for the time they have, and estimators differ only where they can."""

import time

import numpy as np
import pytest
import torch

from annvq.benchmarks import load_suite, run
from annvq.benchmarks.kinds import kind
from annvq.benchmarks.kinds.ablation import learners, points
from annvq.quantizers import make
from annvq.training.estimators import NSVQ, DiVeQ, RotationTrick, StraightThrough

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((1500, 4)) @ RNG.standard_normal((4, 8)) + 0.1 * RNG.standard_normal((1500, 8))).astype("f4")
KINDS = ("product", "residual", "additive")


def model_of(kind, *, maps, seed=0):
    torch.manual_seed(seed)
    quantizer = make(kind, dim=8, M=2, nbits=3)
    quantizer.reset_parameters()
    quantizer.mark_fitted()
    return learners.Model(quantizer, maps=maps)


def error(model):
    return float(((X.astype(np.float64) - model.decode(model.codes(X))) ** 2).sum(1).mean())


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(points.LEARNERS))
def test_learners_learn_in_their_time(kind, name, maps):
    model = model_of(kind, maps=maps)
    before, start = error(model), time.process_time()
    steps = points.LEARNERS[name](model, X, 0.15, 0)
    assert steps > 0
    assert error(model) < before
    assert not model.training
    # No timing is asserted but that it ends: a step may be slow.
    assert time.process_time() - start < 30


@pytest.mark.parametrize("kind", KINDS)
def test_alternation_never_makes_codes_of_the_same_assignment_worse(kind):
    """Refitting in closed form lowers the error of the codes that it was made for."""
    model = model_of(kind, maps=True)
    codes = model.codes(X)
    before = ((X - model.decode(codes)) ** 2).sum()
    calls = iter([0.0, 0.0, 1.0])
    original, learners.process_time = learners.process_time, lambda: next(calls)
    try:
        assert learners.Alternation()(model, X, 1.0, 0) == 1
    finally:
        learners.process_time = original
    assert ((X - model.decode(codes)) ** 2).sum() <= before * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_estimators_give_codebooks_one_gradient_and_maps_different_ones(kind):
    """‖x − output‖² has one gradient in the codebooks whatever the estimator; behind a map it has not."""

    def gradients(estimator, maps):
        model = model_of(kind, maps=maps)
        model.quantizer.estimator = estimator
        model.train()
        batch = torch.from_numpy(X)
        (model(batch) - batch).square().sum(1).mean().backward()
        return model.quantizer.weight.grad, None if model.into is None else model.into.grad

    estimators = (NSVQ(), StraightThrough(), DiVeQ(), RotationTrick())
    alone = [gradients(e, maps=False)[0] for e in estimators]
    for other in alone[1:]:
        torch.testing.assert_close(other, alone[0], rtol=1e-3, atol=1e-4)
    behind = [gradients(e, maps=True)[1] for e in estimators]
    assert all(not torch.allclose(other, behind[0], rtol=1e-2) for other in behind[1:])


def test_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path / "cache"))
    np.save(tmp_path / "mine.npy", X)
    path = tmp_path / "small.toml"
    path.write_text(
        'kind = "ablation"\nseconds = 0.02\nM = 2\nnbits = 3\nseeds = [0, 1]\n'
        'kinds = ["product", "residual"]\nlearners = ["alternation", "NSVQ"]\nstarts = ["k-means"]\n'
    )
    rows = run(load_suite(path), out=tmp_path / "out", dataset=str(tmp_path / "mine.npy"), threads=1)
    assert len(rows) == 2 * 2 * 2 * 2
    for row in rows:
        assert row["error"] is None
        assert row["mse"] > 0
        assert row["steps"] > 0
        assert 0 <= row["dead"] < 1
        assert 0 < row["recall@1"] <= row["recall@10"] <= 1
    tables = kind("ablation").tables(rows)
    assert [table.row_count for table in tables] == [2, 2, 2, 2]
    assert "| NSVQ | " in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("line", ["kinds = ['products']", "learners = []", "seconds = 0", "starts = ['zero']"])
def test_suites_are_checked(tmp_path, line):
    path = tmp_path / "small.toml"
    path.write_text(f'kind = "ablation"\n{line}\n')
    with pytest.raises(ValueError, match=f"small': {line.split()[0]} must be"):
        kind("ablation").plan(load_suite(path), None)
