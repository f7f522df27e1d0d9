"""Conditional codes: against the formula in float64, and against additive codes of as many bits."""

import numpy as np
import pytest
import torch

import annvq
from annvq.errors import NotFittedError
from annvq.quantizers.files import from_stored
from annvq.training import KMeans, LearnNetwork, Recipe
from annvq.training.neighbours import between_neighbours


def curved(n, seed):
    """Vectors on a curved surface, which sums of entries miss."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, 3))
    mix = np.random.default_rng(5).normal(size=(9, 16))
    bent = np.concatenate([u, np.abs(u), u * u[:, [1, 2, 0]]], axis=1)
    return (bent @ mix + 0.05 * rng.normal(size=(n, 16))).astype(np.float32)


@pytest.fixture(scope="module")
def learned():
    x = curved(6000, 0)
    recipe = Recipe((KMeans(8), LearnNetwork(steps=400, rounds=1, round_steps=150, added=0.5)))
    q = annvq.ConditionalVQ(16, 3, 4, hidden=48)
    return q.fit(x, seed=0, recipe=recipe).eval()


def error(q, x):
    return float(np.square(x - q.decode(q.encode(x)), dtype=np.float64).sum(1).mean())


def test_decoded_vectors_are_what_the_formula_says(learned):
    codes = learned.encode(curved(50, 1))
    values = {name: t.detach().double().numpy() for name, t in learned.state_dict().items()}
    entries = np.split(values["latent.weight"], 3)
    s = sum(book[codes[:, m]] for m, book in enumerate(entries))
    hidden = np.maximum(s @ values["inward"].T + values["bias"], 0)
    right = values["shift"] + s + hidden @ values["outward"].T
    np.testing.assert_allclose(learned.decode(codes), right, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(learned._decode(torch.from_numpy(codes.astype(np.int64))).detach().numpy(), right,
                               rtol=1e-4, atol=1e-4)  # fmt: skip


def test_less_error_than_additive_codes_of_as_many_bits(learned):
    x, unseen = curved(6000, 0), curved(2000, 2)
    additive = annvq.AdditiveVQ(16, 3, 4).fit(x, seed=0)
    assert error(learned, unseen) < 0.95 * error(additive, unseen)


def test_codes_are_as_good_as_those_of_one_change(learned):
    """No change of one code to any of the entries that are tried gives less error."""
    x = curved(40, 3)
    codes = learned.encode(x)
    least = np.square(x - learned.decode(codes)).sum(1)
    start = learned.view.plain_codes(x)
    assert (least <= np.square(x - learned.decode(start)).sum(1) * (1 + 1e-5)).all()
    best = np.full(len(x), np.inf)
    for m in range(3):
        for entry in range(16):
            changed = codes.copy()
            changed[:, m] = entry
            best = np.minimum(best, np.square(x - learned.decode(changed)).sum(1))
    assert least.mean() <= 1.05 * best.mean()  # four of sixteen are tried, once


def test_searches_for_a_sum_bring_vectors_nearer_or_leave_their_codes(learned):
    x = curved(400, 10) - learned.shift.numpy()
    codes, network = learned.latent.plain_codes(x), learned._network()
    shift, errors = learned.shift.numpy(), []
    for seed in range(4):
        errors.append(np.square(x + shift - learned.decode(codes), dtype=np.float64).sum(1))
        before = codes.copy()
        network.aim(x, codes, learned.latent, seed)
        changed = (codes != before).any(1)
        assert (np.square(x + shift - learned.decode(codes), dtype=np.float64).sum(1) < errors[-1])[changed].all()
    assert errors[1].mean() < 0.97 * errors[0].mean()
    assert errors[3].mean() < errors[1].mean()


def test_it_never_ends_behind_the_code_it_started_from():
    x = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    held = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    start = annvq.ConditionalVQ(8, 2, 4).fit(x, recipe=Recipe((KMeans(8), LearnNetwork(steps=1, rounds=0))))
    wild = LearnNetwork(steps=50, rounds=1, round_steps=50, learning_rate=3.0)
    q = annvq.ConditionalVQ(8, 2, 4).fit(x, recipe=Recipe((KMeans(8), wild)))
    assert error(q, held) <= 1.05 * error(start, held)


def test_the_view_scans_the_same_codes(learned):
    x = curved(400, 4)
    codes = learned.encode(x)
    view = learned.scan_view()
    rest = np.square(x - view.decode(codes)).sum(1).mean()
    by_latent = learned.latent.decode(codes) + learned.shift.numpy()
    assert rest <= np.square(x - by_latent).sum(1).mean()
    luts, bias = view.tables(x[:3])
    scored = sum(luts[:, m][:, codes[:, m]] for m in range(3)) + bias[:, None] + view.norms(codes)
    right = np.square(x[:3, None].astype(np.float64) - view.decode(codes)).sum(2)
    np.testing.assert_allclose(scored, right, rtol=1e-3, atol=1e-3)


def test_norm_free_codes_store_no_norm(learned):
    x = curved(2000, 0)
    recipe = Recipe((KMeans(8), LearnNetwork(steps=100, rounds=0, added=0.0)))
    q = annvq.ConditionalVQ(16, 3, 4, hidden=48, norm_free=True).fit(x, recipe=recipe)
    assert not q.needs_norm
    index = annvq.RerankIndex(annvq.FlatIndex(q), "decoded", shortlist=200).fit(x).add(curved(500, 5))
    assert index.bits_per_vector == 12
    queries = curved(30, 6)
    right = np.square(queries[:, None].astype(np.float64) - index.reconstruct(np.arange(500))).sum(2)
    codes = index.index.export()[0]
    right += q.decode_with_errors(codes)[1]
    found = index.search(queries, 1)[0][:, 0]
    assert (found <= right.min(1) * 1.3 + 1e-3).mean() > 0.9


def test_expected_errors_are_what_the_formula_says_and_tell_something_of_unseen_vectors(learned):
    x = curved(3000, 8)
    codes = learned.encode(x)
    values = {name: t.detach().double().numpy() for name, t in learned.state_dict().items()}
    s = sum(book[codes[:, m]] for m, book in enumerate(np.split(values["latent.weight"], 3)))
    hidden = np.maximum(s @ values["inward"].T + values["bias"], 0)
    right = np.maximum(values["error_mean"] + hidden @ values["error_weights"], 0)
    xhat, expected = learned.decode_with_errors(codes)
    np.testing.assert_array_equal(xhat, learned.decode(codes))
    np.testing.assert_allclose(expected, right, rtol=1e-4, atol=1e-4 * right.mean())
    errors = np.square(x - xhat, dtype=np.float64).sum(1)
    assert np.square(errors - expected).mean() < 0.95 * errors.var()
    assert 0.7 < expected.mean() / errors.mean() < 1.3


def test_expected_errors_keep_the_scale_of_the_vectors():
    recipe = Recipe((KMeans(8), LearnNetwork(steps=50, rounds=0, added=0.0)))
    small = annvq.ConditionalVQ(16, 2, 3, hidden=8).fit(curved(800, 0), recipe=recipe)
    large = annvq.ConditionalVQ(16, 2, 3, hidden=8).fit(1024 * curved(800, 0), recipe=recipe)
    errors = [
        q.decode_with_errors(q.encode(scale * curved(200, 1)))[1].mean() for q, scale in ((small, 1), (large, 1024))
    ]
    assert 0.5 < errors[1] / errors[0] / 1024**2 < 2


def test_files_from_before_errors_were_learned_have_none(learned):
    config, tensors = learned.to_stored()
    old = {name: a for name, a in tensors.items() if "error_" not in name or "share" in name}
    assert len(old) == len(tensors) - 2
    q = from_stored(config, old)
    codes = learned.encode(curved(20, 9))
    xhat, expected = q.decode_with_errors(codes)
    assert expected is None
    np.testing.assert_array_equal(xhat, learned.decode(codes))


def test_training_it_as_a_layer_leaves_a_code_that_encodes(learned):
    q = annvq.load_quantizer(learned.to_bytes()).train()
    x = torch.from_numpy(curved(256, 7))
    optimizer = torch.optim.Adam(q.trained_parameters(), 1e-3)
    (q(x).xhat - x).square().mean().backward()
    optimizer.step()
    assert not q._view_follows
    q.eval()
    again = q.learn_terms(x) or q
    assert again._view_follows
    assert error(q, x.numpy()) < 2 * error(learned, x.numpy())


def test_the_quick_recipe_beats_additive_codes_too():
    x, unseen = curved(3000, 0), curved(1000, 2)
    additive = annvq.AdditiveVQ(16, 3, 4, rounds=16).fit(x, seed=0)
    q = annvq.ConditionalVQ(16, 3, 4, hidden=48, rounds=16)
    q.fit(x, seed=0, recipe=q.quick_recipe())
    assert error(q, unseen) < 0.95 * error(additive, unseen)


@pytest.mark.parametrize("norm_free", [False, True])
def test_behind_an_additive_code_the_codes_stay_and_are_decoded_better(norm_free):
    x, unseen = curved(4000, 0) + 3, curved(1000, 2) + 3
    additive = annvq.AdditiveVQ(16, 3, 4, rounds=16, norm_free=norm_free).fit(x, seed=0)
    part = LearnNetwork(steps=400, rounds=1, round_steps=200, added=0.5)
    q = annvq.ConditionalVQ.behind(additive, x, hidden=48, part=part)
    codes = additive.encode(unseen)
    np.testing.assert_array_equal(q.encode(unseen), codes)
    np.testing.assert_array_equal(q.scan_view().decode(codes), additive.decode(codes))
    np.testing.assert_array_equal(q.scan_view().norms(codes), additive.norms(codes))
    assert error(q, unseen) < 0.95 * error(additive, unseen)
    errors, expected = np.square(unseen - q.decode(codes)).sum(1), q.decode_with_errors(codes)[1]
    assert np.square(errors - expected).mean() < errors.var()
    again = annvq.load_quantizer(q.to_bytes())
    assert again.config["recode"] is False
    np.testing.assert_array_equal(again.encode(unseen), codes)
    np.testing.assert_array_equal(again.decode(codes), q.decode(codes))


def test_without_choosing_codes_anew_they_are_those_of_the_view():
    recipe = Recipe((KMeans(8), LearnNetwork(steps=100, rounds=0, added=0.0)))
    q = annvq.ConditionalVQ(16, 3, 4, hidden=48, recode=False).fit(curved(3000, 0), recipe=recipe)
    x = curved(200, 1)
    codes = q.encode(x)
    np.testing.assert_array_equal(codes, q.scan_view().encode(x))
    assert error(q, x) < np.square(x - q.scan_view().decode(codes)).sum(1).mean()
    q.learn_terms(curved(3000, 0))
    np.testing.assert_array_equal(q.encode(x), codes)


def test_behind_refuses_what_it_cannot_keep():
    x = curved(300, 0)
    with pytest.raises(TypeError, match="additive"):
        annvq.ConditionalVQ.behind(annvq.ResidualVQ(16, 3, 4), x)
    with pytest.raises(NotFittedError):
        annvq.ConditionalVQ.behind(annvq.AdditiveVQ(16, 3, 4), x)
    wide = annvq.AdditiveVQ(16, 3, 4, beam=4).fit(x, recipe=Recipe((KMeans(4),)))
    with pytest.raises(ValueError, match="beam=8, got 4"):
        annvq.ConditionalVQ.behind(wide, x)
    with pytest.raises(TypeError, match="recode"):
        annvq.ConditionalVQ(8, 2, recode=1)


def test_refusals():
    for wrong, error_type in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error_type, match="hidden"):
            annvq.ConditionalVQ(8, 2, hidden=wrong)
    for wrong in ({"steps": 0}, {"rounds": -1}, {"learning_rate": -1}, {"added": -0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LearnNetwork(**wrong)


def test_vectors_between_neighbours_have_the_data_s_covariance():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3000, 4)) * [4, 2, 1, 0.5] + 10 * rng.integers(0, 3, (3000, 1))).astype(np.float32)
    more = between_neighbours(x, 20_000, seed=1)
    assert more.shape == (20_000, 4)
    np.testing.assert_allclose(more.mean(0), x.mean(0), atol=0.5)
    np.testing.assert_allclose(np.cov(more.T), np.cov(x.T), rtol=0.1, atol=0.6)
    np.testing.assert_array_equal(more, between_neighbours(x, 20_000, seed=1))
    assert not (more[:, None, 0] == x[None, :200, 0]).all(1).any()
