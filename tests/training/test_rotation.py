"""Learning a rotation with product codebooks."""

from dataclasses import replace

import numpy as np
import pytest

import annvq
from annvq.training import LearnLinearMap, LearnRotation, Recipe
from annvq.training.learn.rotation import starts

BRISK = LearnRotation(steps=300, race=40, batch_size=256, alternations=3, polish=3)


def correlated(n, seed):
    """Eight dimensions of very different variance, mixed by a rotation that product codes of the raw vectors waste."""
    rng = np.random.default_rng(7)
    mix = np.linalg.qr(rng.normal(size=(8, 8)))[0] * np.array([8, 4, 4, 2, 1, 1, 0.5, 0.25])[:, None]
    return (np.random.default_rng(seed).normal(size=(n, 8)) @ mix + 3).astype(np.float32)


def error(q, x):
    return float(np.square(x - q.decode(q.encode(x)), dtype=np.float64).sum(1).mean())


def test_beats_product_codes_and_optimized_product_codes():
    import faiss

    x, held = correlated(4000, 0), correlated(2000, 1)
    learned = annvq.RotatedProductVQ(8, 2, 5).fit(x, recipe=Recipe((BRISK,)))
    plain = annvq.ProductVQ(8, 2, 5).fit(x)
    rotation = faiss.OPQMatrix(8, 2)
    rotation.train(x)
    pq = faiss.ProductQuantizer(8, 2, 5)
    pq.train(rotation.apply(x))
    theirs = rotation.apply(held)
    opq = float(np.square(theirs - pq.decode(pq.compute_codes(theirs))).sum(1).mean())
    assert error(learned, held) < 0.9 * error(plain, held)
    assert error(learned, held) < 1.02 * opq


def test_units_offset_and_seed():
    x = correlated(1200, 0)
    q = annvq.RotatedProductVQ(8, 2, 4).fit(x, seed=3, recipe=Recipe((BRISK,)))
    again = annvq.RotatedProductVQ(8, 2, 4).fit(x * 1024, seed=3, recipe=Recipe((BRISK,)))
    np.testing.assert_array_equal(again.encode(x * 1024), q.encode(x))


def test_starts_are_rotations():
    x = correlated(500, 0)
    for rotation in starts(x, (4, 4)):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-5)
    # Principal axes dealt out: the product of variances is about the same in both halves.
    variance = (x @ starts(x, (4, 4))[1].T).var(0)
    logs = np.log(variance).reshape(2, 4).sum(1)
    assert abs(logs[0] - logs[1]) < 1.5
    # A constant coordinate has no direction to speak of, and does no harm.
    x[:, 0] = 1
    for rotation in starts(x, (2,) * 4):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-5)


def test_many_dimensions_take_no_more_steps_than_there_is_time_for():
    assert LearnRotation.of_dim(128) == LearnRotation.of_dim(512) == LearnRotation()
    fewer = LearnRotation.of_dim(1024)
    assert (fewer.steps, fewer.race, fewer.alternations) == (188, 19, 1)
    assert replace(fewer, steps=1500, race=150, alternations=5) == LearnRotation()
    assert LearnRotation.of_dim(1 << 14).steps == 1
    assert annvq.RotatedProductVQ(1024, 16).default_recipe().parts == (fewer,)
    linear = annvq.make("transformed", dim=1024, M=16).default_recipe().parts[0]
    assert linear.rotation == fewer


def test_of_many_narrow_subspaces_the_rotation_is_that_of_principal_axes():
    """As good, in a fraction of the time; of few dimensions, or wide sub-spaces, it is learned."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(256, 256)) * 0.97 ** np.arange(256)[:, None]
    x = (rng.normal(size=(1500, 256)) @ mix).astype(np.float32)
    rotated = annvq.RotatedProductVQ(256, 32, 4).fit(x)
    axes = annvq.PrincipalProductVQ(256, 32, 4).fit(x)
    np.testing.assert_array_equal(rotated.encode(x), axes.encode(x))
    np.testing.assert_array_equal(rotated.transform.matrix().detach(), axes.transform.matrix().detach())
    for q in (annvq.RotatedProductVQ(256, 16), annvq.RotatedProductVQ(128, 16)):
        assert q.default_recipe().parts == (LearnRotation(),)


def test_other_transforms_learn_their_codebooks():
    x, held = correlated(1500, 0), correlated(500, 1)
    for transform in ("rotation", "linear"):
        for inner in ("residual", "additive"):
            q = annvq.make("transformed", transform=transform, quantizer=inner, dim=8, M=2, nbits=4).fit(x)
            assert error(q, held) < 0.5 * float(np.square(held - held.mean(0)).sum(1).mean())
            assert q.norm_term.learned


def test_a_linear_map_is_no_worse_than_a_rotation():
    x, held = correlated(3000, 0), correlated(2000, 1)
    rotated = annvq.RotatedProductVQ(8, 2, 4).fit(x, recipe=Recipe((BRISK,)))
    freer = annvq.make("transformed", transform={"kind": "linear", "dim": 8, "shift": True}, dim=8, M=2, nbits=4)
    freer.fit(x, recipe=Recipe((LearnLinearMap(BRISK, steps=100),)))
    assert error(freer, held) < 1.01 * error(rotated, held)
    np.testing.assert_allclose(freer.transform.shift, x.mean(0), atol=1e-3)
    assert freer.norm_term.learned
    with pytest.raises(TypeError, match="LearnLinearMap learns a LinearMap"):
        rotated.fit(x, recipe=Recipe((LearnLinearMap(BRISK),)))
    with pytest.raises(TypeError, match="LearnRotation learns a Rotation"):
        annvq.make("transformed", dim=8, M=2, nbits=4).fit(x, recipe=Recipe((BRISK,)))
