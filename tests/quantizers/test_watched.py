"""A map's matrix is read anew after any change of its tensors, however it came about."""

import copy

import numpy as np
import pytest
import torch

import annvq
from annvq.quantizers.modules.watched import Watched

D = 64  # so many that not all values are looked at


def rotation(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0].astype(np.float32)


def gradient_step(make_optimizer):
    def change(q):
        q.train()
        optimizer = make_optimizer([q.transform.weight if q.transform.kind == "linear" else q.transform.generator])
        x = torch.randn(256, D, generator=torch.Generator().manual_seed(0))
        (q(x).xhat - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        q.eval()

    return change


def of_parameter(write):
    def change(q):
        write(q.transform.weight if q.transform.kind == "linear" else q.transform.generator)

    return change


@torch.no_grad()
def add(parameter):
    parameter.add_(0.01 * torch.arange(D))


def add_to_data(parameter):
    parameter.data.add_(0.01 * torch.arange(D))


def add_in_numpy(parameter):
    parameter.detach().numpy()[...] += 0.01 * np.arange(D, dtype=np.float32)


def other_data(parameter):
    parameter.data = parameter.data + 0.01 * torch.arange(D)


def one_value(parameter):
    with torch.no_grad():
        parameter[D - 1, 1] += 0.5


def load(assign):
    def change(q):
        state = copy.deepcopy(q.state_dict())
        name = "transform.matrix" if q.transform.kind == "rotation" else "transform.weight"
        state[name] = torch.from_numpy(rotation(5 + 5 * assign))
        q.load_state_dict(state, assign=assign)

    return change


def other_map(q):
    q.transform = type(q.transform).from_matrix(rotation(6), np.full(D, 0.5, np.float32))


CHANGES = {
    "sgd": gradient_step(lambda p: torch.optim.SGD(p, lr=1.0)),
    "fused": gradient_step(lambda p: torch.optim.SGD(p, lr=1.0, fused=True)),
    "fused adam": gradient_step(lambda p: torch.optim.Adam(p, lr=0.01, fused=True)),
    "in place": of_parameter(add),
    "one value": of_parameter(one_value),
    "data": of_parameter(add_to_data),
    "numpy": of_parameter(add_in_numpy),
    "other data": of_parameter(other_data),
    "loaded": load(False),
    "assigned": load(True),
    "set": lambda q: q.transform.set_matrix(rotation(7)),
    "shift": lambda q: q.transform.shift.add_(1.0),
    "other map": other_map,
}


@pytest.mark.parametrize("kind", ["rotation", "linear"])
def test_every_change_is_seen(kind):
    mapping = {"rotation": annvq.Rotation, "linear": annvq.LinearMap}[kind]
    q = annvq.Transformed(mapping.from_matrix(rotation(0), np.zeros(D, np.float32)), annvq.ProductVQ(D, 4, 3))
    q.quantizer.set_codebooks(np.random.default_rng(1).normal(size=(4, 8, D // 4)).astype(np.float32))
    q.mark_fitted()
    q.eval()
    codes = np.random.default_rng(2).integers(0, 8, (20, 4)).astype(np.uint8)
    for name, change in CHANGES.items():
        before = q.decode(codes)
        assert q._parts() is q._parts(), name
        change(q)
        with torch.no_grad():
            matrix, shift = q.transform.matrix().double(), q.transform.shift.double()
        y = torch.from_numpy(q.quantizer.decode(codes)).double()
        expected = torch.linalg.solve(matrix, y.T).T + shift
        after = q.decode(codes)
        assert not np.allclose(after, before, atol=1e-3), name
        np.testing.assert_allclose(after, expected.numpy(), rtol=1e-3, atol=1e-3, err_msg=name)


class Moved(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.by = torch.nn.Parameter(torch.zeros(D, D))

    def forward(self, values):
        return values + self.by


class WithLayer(annvq.LinearMap):
    kind = "with layer"

    def __init__(self, dim, *, shift=False):
        super().__init__(dim, shift=shift)
        self.layer = Moved()

    def matrix(self):
        return self.layer(self.weight)


@pytest.mark.parametrize("name", ["generator", "weight", "layer"])
def test_changes_of_parametrizations_and_of_modules_within_a_map_are_seen(name):
    mapping = {"generator": annvq.Rotation, "weight": annvq.LinearMap, "layer": WithLayer}[name]
    q = annvq.Transformed(mapping.from_matrix(rotation(0)), annvq.ProductVQ(D, 4, 3))
    books = np.random.default_rng(1).normal(size=(4, 8, D // 4)).astype(np.float32)
    q.quantizer.set_codebooks(books)
    q.mark_fitted()
    if name == "layer":
        moved = q.transform.layer
    else:
        torch.nn.utils.parametrize.register_parametrization(q.transform, name, moved := Moved())
    q.eval()
    index = annvq.FlatIndex(q, "ip")
    query = np.random.default_rng(2).normal(size=(1, D)).astype(np.float32)
    x = np.random.default_rng(3).normal(size=(30, D)).astype(np.float32)
    codes = q.encode(x)
    index.add(x).search(query, 1)
    with torch.no_grad():
        moved.by.add_(0.05 * torch.randn(D, D, generator=torch.Generator().manual_seed(0)))
        matrix = q.transform.matrix().double().numpy()
    y = np.concatenate([book[codes[:, m]] for m, book in enumerate(books)], axis=1)
    scores = -(np.linalg.solve(matrix, y.T).T @ query[0])
    distances, ids = index.search(query, 30)
    np.testing.assert_allclose(distances[0], scores[ids[0]], rtol=1e-3, atol=1e-3)


def test_what_cannot_be_watched_counts_as_changed():
    matrix = torch.rand(4, 4)
    assert Watched([matrix, None]).still([matrix, None])
    assert not Watched([matrix]).still([matrix, None])
    with torch.inference_mode():
        made_there = torch.rand(4, 4)
    for tensor in (made_there, matrix.double(), matrix.T, torch.rand(4, 4, device="meta")):
        assert not Watched([tensor]).still([tensor])


@pytest.mark.parametrize("shape", [(300, 300), (64, 64), (200, 20), (20, 200)])
def test_a_row_or_column_that_nobody_counted_is_seen(shape):
    matrix = torch.zeros(shape)
    watched = Watched([matrix])
    parts = [*matrix.data, *matrix.data.T]
    for part in parts:
        part.numpy()[...] = 1
        assert not watched.still([matrix])
        part.numpy()[...] = 0
        assert watched.still([matrix])


def test_a_fused_optimizer_whose_gradient_is_of_one_row_is_seen():
    weight = torch.nn.Parameter(torch.zeros(384, 384))
    watched = Watched([weight])
    weight.grad = torch.zeros_like(weight)
    weight.grad[5] = 1
    torch.optim.SGD([weight], lr=1.0, fused=True).step()
    assert weight[5, 0] == -1
    assert not watched.still([weight])
