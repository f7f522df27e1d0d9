"""What every registered quantizer that has codebooks and tables must do."""

import numpy as np
import pytest

import annvq
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))


def true_score(q, queries, xhat, metric):
    a, b = queries.astype(np.float64), xhat.astype(np.float64)
    if metric == "l2":
        return ((a[:, None] - b[None]) ** 2).sum(-1)
    if metric == "ip":
        return -a @ b.T
    return 1 - (a / np.linalg.norm(a, axis=1, keepdims=True)) @ b.T


def test_decode_is_the_sum_of_entries(table_kind, small):
    q, x = small(table_kind)
    codes = q.encode(x)
    expected = np.zeros((len(x), q.dim))
    for m, (book, start) in enumerate(zip(q.codebooks, q.starts, strict=True)):
        expected[:, start : start + q.width] += book.detach().numpy()[codes[:, m]]
    np.testing.assert_allclose(q.decode(codes), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_tables_give_the_distance_to_the_decoded_vector(table_kind, small, metric):
    q, x = small(table_kind, nbits=(2, 4, 3))
    queries = np.random.default_rng(1).normal(size=(7, q.dim)).astype(np.float32)
    codes = q.encode(x[:50])
    luts, bias = q.tables(queries, metric)
    assert luts.shape == (7, 3, 16)
    assert np.isinf(luts[:, 0, 4:]).all()
    score = luts[:, np.arange(3)[None], codes.astype(int)].sum(-1, dtype=np.float64) + bias[:, None]
    if metric == "l2" and q.needs_norm:
        score = score + q.norms(codes)
    expected = true_score(q, queries, q.decode(codes), metric)
    np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_tables_do_not_depend_on_batch_or_threads(table_kind, small):
    q, x = small(table_kind)
    whole = q.tables(x[:20]).luts
    for i in range(0, 20, 7):
        np.testing.assert_array_equal(q.tables(x[i : i + 1]).luts[0], whole[i])


def test_default_recipe_beats_its_warm_start(table_kind):
    x = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    held = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    errors = []
    for recipe in (Recipe((KMeans(10),)), None):
        q = annvq.make(table_kind, dim=8, M=2, nbits=4).fit(x, recipe=recipe)
        errors.append(float(np.square(held - q.decode(q.encode(held))).sum(1).mean()))
    assert errors[1] <= errors[0] * 1.01


def test_native_codes_are_as_good_as_those_of_the_torch_form(table_kind, small):
    q, x = small(table_kind, nbits=5, **({"rounds": 0} if "additive" in table_kind else {}))
    torch_codes = q._encode_in_torch(x)
    errors = [np.square(x - q.decode(c)).sum(1) for c in (q.encode(x), torch_codes)]
    # Near ties may fall either way in float32, so codes may differ where errors do not.
    assert (q.encode(x) == torch_codes).all(1).mean() > 0.97
    assert errors[0].mean() == pytest.approx(errors[1].mean(), rel=1e-3)


def test_more_beam_is_no_worse(small):
    for kind in ("residual", "additive"):
        errors = []
        for beam in (1, 4, 16):
            q, x = small(kind, M=4, beam=beam)
            errors.append(np.square(x - q.decode(q.encode(x))).sum(1).mean())
        assert errors[2] <= errors[1] * 1.005 <= errors[0] * 1.01
