"""The trainer: sources, checkpoints, replacement, validation, histories."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import annvq
from annvq.errors import FormatError
from annvq.training import DiVeQ, History, Replacement, Trainer
from annvq.training.learn.norms import fit_levels


def quantizer(kind="product", seed=0):
    torch.manual_seed(seed)
    return annvq.make(kind, dim=6, M=2, nbits=3)


def normal(generator):
    return torch.randn(128, 6, generator=generator)


def test_same_seed_same_result_and_global_rng_untouched(kind):
    torch.manual_seed(7)
    expected = torch.rand(1)
    runs = []
    for _ in range(2):
        q = quantizer(kind)
        torch.manual_seed(7)
        Trainer(steps=20).run(q, normal, seed=3)
        runs.append([parameter.detach().clone() for parameter in q.trained_parameters()])
        assert torch.equal(torch.rand(1), expected)
    assert all(map(torch.equal, *runs))


def test_interrupted_run_resumes_bit_for_bit(table_kind, tmp_path):
    def trainer(path):
        return Trainer(
            steps=60, validate_every=10, replacement=Replacement(0.9, period=15), checkpoint=path, checkpoint_every=20
        )

    validation = torch.randn(100, 6, generator=torch.Generator().manual_seed(9))
    whole = quantizer(table_kind)
    history = trainer(tmp_path / "whole").run(whole, normal, validation=validation, seed=1)

    calls = 0

    def failing(generator):
        nonlocal calls
        calls += 1
        if calls > 33:
            raise RuntimeError("power cut")
        return normal(generator)

    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tmp_path / "half").run(quantizer(table_kind), failing, validation=validation, seed=1)
    resumed = quantizer(table_kind, seed=5)
    again = trainer(tmp_path / "half").run(resumed, normal, validation=validation, seed=1)
    assert torch.equal(resumed.weight, whole.weight)
    assert again == history


def test_an_interrupted_iterator_goes_on_behind_what_was_read(tmp_path):
    def run(path, last=1 << 30):
        q = quantizer()
        source = (torch.randn(32, 6, generator=torch.Generator().manual_seed(i)) for i in range(last))
        Trainer(steps=30, checkpoint=path, checkpoint_every=10).run(q, source)
        return q.weight

    with pytest.raises(ValueError, match="ran out of batches"):
        run(tmp_path / "half", last=17)
    assert torch.equal(run(tmp_path / "half"), run(tmp_path / "whole"))


X = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("settings", "source", "seed", "differs"),
    [
        ({"steps": 6}, X, 0, "'steps': 5"),
        ({"learning_rate": 0.1}, X, 0, "'learning_rate': 0.002"),
        ({"estimator": DiVeQ()}, X, 0, r"'estimator': 'NSVQ\(\)'"),
        ({"estimator": DiVeQ(0.5)}, X, 0, "DiVeQ"),
        ({"replacement": Replacement(period=2)}, X, 0, "Replacement"),
        ({}, X, 1, "'seed': 0"),
        ({}, 3 * X, 0, "'source'"),
        ({}, X[:-1], 0, "'source'"),
        ({}, normal, 0, "'source'"),
    ],
)
def test_checkpoint_of_another_run_is_refused(settings, source, seed, differs, tmp_path):
    given = {"steps": 5, "checkpoint": tmp_path / "c"}
    first = quantizer()
    Trainer(**given).run(first, X)
    q = quantizer(seed=1)
    with pytest.raises(ValueError, match=f"checkpoint is of another run.*{differs}"):
        Trainer(**{**given, **settings}).run(q, source, seed=seed)
    assert torch.equal(q.weight, quantizer(seed=1).weight)
    Trainer(**given).run(q, X.copy())
    assert torch.equal(q.weight, first.weight)


@pytest.mark.parametrize("form", ["array", "memmap", "tensor", "function", "iterator"])
def test_sources(form, tmp_path):
    x = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    source = {
        "array": lambda: x,
        "memmap": lambda: np.load(tmp_path / "x.npy", mmap_mode="r"),
        "tensor": lambda: torch.from_numpy(x),
        "function": lambda: normal,
        "iterator": lambda: (x[i * 10 : i * 10 + 10] for i in range(50)),
    }[form]()
    q = quantizer()
    history = Trainer(steps=40, batch_size=64, learning_rate=0.05).run(q, source)
    assert len(history.loss) == 40
    assert np.mean(history.loss[-10:]) < np.mean(history.loss[:10])
    assert bool(q.fitted)


def test_bad_sources():
    with pytest.raises(ValueError, match="ran out of batches"):
        Trainer(steps=3).run(quantizer(), iter([np.zeros((2, 6), np.float32)]))
    with pytest.raises(TypeError, match="source must be"):
        Trainer(steps=3).run(quantizer(), 5)
    with pytest.raises(ValueError, match="NaN"):
        Trainer(steps=3).run(quantizer(), lambda g: torch.full((4, 6), torch.nan))
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        Trainer(learning_rate=0)
    for wrong, error, message in (
        ({"patience": -1}, ValueError, "patience must be at least 1"),
        ({"replacement": 3}, TypeError, "replacement must be callable"),
        ({"estimator": "nsvq"}, TypeError, "estimator must be callable"),
    ):
        with pytest.raises(error, match=message):
            Trainer(**wrong)
    with pytest.raises(TypeError, match="period must be an integer"):
        Replacement(period=1.5)
    with pytest.raises(ValueError, match="device must be one that PyTorch can use here, got 'gpu'"):
        Trainer(device="gpu").run(quantizer(), X)
    with pytest.raises(ValueError, match="seed must be in"):
        Trainer().run(quantizer(), X, seed=-1)
    with pytest.raises(TypeError, match="quantizer must be an annvq Quantizer, got str"):
        Trainer().run("residual", X)
    with pytest.raises(ValueError, match="validation must have at least one row"):
        Trainer(steps=3).run(quantizer(), normal, validation=X[:0])


def test_replacement_revives_unused_entries_and_logs(caplog, capsys):
    q = quantizer()
    with torch.no_grad():
        q.weight[4:8] = 100.0  # half of codebook 0, too far away for any vector
    with caplog.at_level("INFO", logger="annvq"):
        history = Trainer(steps=60, replacement=Replacement(period=10, stop=0.5)).run(q, normal)
    assert history.replaced[0] == (10, [4, 0])
    assert max(step for step, _ in history.replaced) <= 30
    assert "replaced [4, 0] entries" in caplog.text
    assert capsys.readouterr().out == ""
    assert min(history.usage[0]) > 0


def test_early_stopping_keeps_the_best():
    x = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    q = annvq.ProductVQ(6, 2, 3).fit(x)
    best = q.weight.detach().clone()
    trainer = Trainer(steps=500, learning_rate=3.0, validate_every=5, patience=3)
    history = trainer.run(q, x, validation=x)
    assert history.stopped_early
    assert len(history.loss) < 500
    assert history.best_step == 0
    assert torch.equal(q.weight, best)


def test_history_round_trip_and_plots(tmp_path):
    history = Trainer(steps=30, replacement=Replacement(period=10), validate_every=10).run(
        quantizer(), normal, validation=torch.randn(50, 6)
    )
    history.save(tmp_path / "h.json")
    assert History.load(tmp_path / "h.json") == history
    history.plot(tmp_path / "h.png")
    history.plot(tmp_path / "h.pdf")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "h.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "h.json").write_text('{"nonsense": 1}')
    with pytest.raises(FormatError, match="not a training history"):
        History.load(tmp_path / "h.json")


def test_each_part_of_a_history_shows_in_its_picture(tmp_path):
    history = Trainer(steps=30, replacement=Replacement(0.5, period=10), validate_every=10).run(
        quantizer(), normal, validation=X
    )

    def picture(history):
        history.plot(tmp_path / "h.png")
        return (tmp_path / "h.png").read_bytes()

    shown = picture(history)
    assert picture(history) == shown
    for change in (
        {"loss": [2 * value for value in history.loss]},
        {"validation": [(step, 2 * value) for step, value in history.validation]},
        {"replaced": [(10, [3, 0]), (20, [0, 2])]},
        {"usage": [history.usage[0], [1, 50, 2, 2, 2, 2, 2, 2]]},
    ):
        assert picture(replace(history, **change)) != shown


def test_norm_levels_are_better_than_even_and_quantile_grids():
    values = np.random.default_rng(0).gamma(2.0, 50.0, 20_000).astype(np.float32)

    def error(levels):
        return np.square(values[:, None].astype(np.float64) - levels).min(1).mean()

    learned = fit_levels(values, 64)
    assert (np.diff(learned) >= 0).all()
    assert error(learned) < error(np.linspace(values.min(), values.max(), 64))
    assert error(learned) < error(np.quantile(values, (np.arange(64) + 0.5) / 64))
    np.testing.assert_array_equal(np.unique(fit_levels(np.float32([3, 1, 3]), 8)), [1, 3])
