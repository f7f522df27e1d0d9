"""Learning a network: which rows of large arrays are read when, and in which precision products are computed."""

import numpy as np
import pytest
import torch

import annvq
from annvq.quantizers.modules import conditional
from annvq.training import KMeans, LearnNetwork, Recipe, devices
from annvq.training.data import prepare


class Recorded:
    """An array in a file, which tells what was read of it at a time."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.read = x, x.shape, x.dtype, []

    def __getitem__(self, rows):
        self.read.append(np.arange(len(self.x))[rows])
        return self.x[rows]


def vectors(n, seed=0):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, 4))
    return (np.c_[u, np.abs(u)] + 0.05 * rng.normal(size=(n, 8)) + 3).astype(np.float32)


def test_each_round_reads_other_rows_and_no_more_at_a_time_than_the_first(monkeypatch):
    monkeypatch.setattr(conditional, "TERM_ROWS", 900)
    source = Recorded(vectors(3300))
    part = LearnNetwork(steps=60, rounds=4, round_steps=30, learning_rate=4e-3, added=0.5)
    q, learned = annvq.ConditionalVQ(8, 2, 3, hidden=16, rounds=4), []
    improved = q.improved
    q.improved = lambda x, codes, *more: (learned.append(x), improved(x, codes, *more))[1]
    q.fit(source, recipe=Recipe((KMeans(3), part), max_rows=1000))
    samples, last = source.read[:-1], source.read[-1]
    assert len(samples) in (2, 3)  # as many as there were rounds before one was of no use
    assert len(np.unique(np.concatenate(samples))) == sum(map(len, samples)) == 1000 * len(samples)
    assert len(last) == 900
    second = next(x for x in learned if len(x) == 1500)  # with half as many vectors made of neighbours
    data = prepare(source.x, 8, least=8, max_rows=1000, validation=0.05, seed=0, progress=False)
    np.testing.assert_allclose(second[:1000] * data.scale + data.mean, source.x[samples[1]], rtol=1e-4, atol=1e-4)


def test_samples_are_disjoint_prepared_alike_and_end_with_the_array():
    x = vectors(2600)
    data = prepare(x, 8, least=8, max_rows=1000, validation=0.1, seed=4, progress=False)
    order = np.random.default_rng(4).permutation(len(x))
    for number, rows in ((1, order[1000:2000]), (2, order[2000:])):
        np.testing.assert_allclose(data.another(number), (x[np.sort(rows)] - data.mean) / data.scale, rtol=1e-5)
    assert data.another(3) is None
    assert prepare(x[:2400], 8, least=8, max_rows=1000, validation=0, seed=4, progress=False).another(2) is None
    assert prepare(x, 8, least=8, max_rows=2600, validation=0, seed=4, progress=False).another(1) is None
    assert data.near(8).another(1) is not None


def test_rows_far_out_are_left_out_of_every_sample():
    x = vectors(2000)
    order = np.random.default_rng(0).permutation(len(x))
    x[order[1500]] = 1e9
    data = prepare(x, 8, least=8, max_rows=1000, validation=0, seed=0, progress=False)
    assert len(data.another(1)) == 999
    assert np.abs(data.another(1)).max() < 100


def test_more_rows_than_one_sample_holds_are_learned_from():
    """A recipe that reads few rows, and others in each round, learns more than one that sees the first ones only."""
    x, unseen = vectors(6000), vectors(2000, seed=1)
    part = LearnNetwork(steps=200, rounds=4, round_steps=100, added=0.0)
    errors = []
    for rows in (x, x[np.sort(np.random.default_rng(0).permutation(len(x))[:400])]):
        q = annvq.ConditionalVQ(8, 2, 4, hidden=64, rounds=4)
        q.fit(rows, recipe=Recipe((KMeans(5), part), max_rows=400))
        errors.append(np.square(unseen - q.decode(q.encode(unseen))).sum(1).mean())
    assert errors[0] < 0.97 * errors[1]


def test_products_in_bfloat16_are_near_those_in_float32(monkeypatch):
    a, b = torch.from_numpy(vectors(300)), torch.from_numpy(vectors(200, seed=1))
    right = a.double() @ b.double().T
    with devices.fast_products(torch.device("cpu")):
        fast = a @ b.T
    assert (fast.double() - right).abs().max() < 2**-7 * right.abs().max()
    monkeypatch.setattr(devices, "_instructions", lambda kind: False)
    with devices.fast_products(torch.device("cpu")):
        torch.testing.assert_close(a @ b.T, a.matmul(b.T), rtol=0, atol=0)


def test_bfloat16_learns_as_well_as_float32():
    x, unseen = vectors(3000), vectors(1000, seed=1)
    errors = []
    for bfloat16 in (True, False):
        part = LearnNetwork(steps=300, rounds=0, added=0.0, bfloat16=bfloat16)
        q = annvq.ConditionalVQ(8, 2, 4, hidden=32, rounds=4).fit(x, recipe=Recipe((KMeans(5), part)))
        assert all(p.dtype == torch.float32 for p in q.parameters())
        errors.append(np.square(unseen - q.decode(q.encode(unseen))).sum(1).mean())
    assert errors[0] < 1.03 * errors[1]


def test_a_device_that_is_not_there_is_refused():
    q = annvq.ConditionalVQ(8, 2, 3, hidden=16)
    with pytest.raises(ValueError, match="device must be one that PyTorch can use here, got 'gpu'"):
        q.fit(vectors(300), recipe=Recipe((KMeans(2), LearnNetwork(device="gpu"))))
    assert not q.fitted
