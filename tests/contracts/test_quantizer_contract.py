"""What every registered quantizer must do."""

import numpy as np
import pytest
import torch

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.training import KMeans, Recipe

QUICK = Recipe((KMeans(4),))


def true_score(q, queries, xhat, metric):
    a, b = queries.astype(np.float64), xhat.astype(np.float64)
    if metric == "l2":
        return ((a[:, None] - b[None]) ** 2).sum(-1)
    if metric == "ip":
        return -a @ b.T
    return 1 - (a / np.linalg.norm(a, axis=1, keepdims=True)) @ b.T


@pytest.mark.parametrize("nbits", [4, (2, 5, 3), 9])
def test_codes_and_back(kind, small, nbits):
    q, x = small(kind, nbits=nbits)
    before = x.copy()
    codes = q.encode(x)
    assert codes.shape == (600, 3)
    assert codes.dtype == q.code_dtype == (np.uint16 if nbits == 9 else np.uint8)
    assert (codes.max(0) < np.array(q.sizes)).all()
    xhat = q.decode(codes)
    assert xhat.shape == x.shape
    assert xhat.dtype == np.float32
    assert np.square(x - xhat).sum() < np.square(x - x.mean(0)).sum()
    np.testing.assert_array_equal(x, before)
    as_torch = q.encode(torch.from_numpy(x))
    assert isinstance(as_torch, torch.Tensor)
    np.testing.assert_array_equal(as_torch.numpy(), codes)
    np.testing.assert_array_equal(q.decode(as_torch).numpy(), xhat)


def test_decode_is_the_sum_of_entries(kind, small):
    q, x = small(kind)
    codes = q.encode(x)
    expected = np.zeros((len(x), q.dim))
    for m, (book, start) in enumerate(zip(q.codebooks, q.starts, strict=True)):
        expected[:, start : start + q.width] += book.detach().numpy()[codes[:, m]]
    np.testing.assert_allclose(q.decode(codes), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_tables_give_the_distance_to_the_decoded_vector(kind, small, metric):
    q, x = small(kind, nbits=(2, 4, 3))
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


def test_tables_do_not_depend_on_batch_or_threads(kind, small):
    q, x = small(kind)
    whole = q.tables(x[:20]).luts
    for i in range(0, 20, 7):
        np.testing.assert_array_equal(q.tables(x[i : i + 1]).luts[0], whole[i])


def test_fit_is_deterministic_and_forgets(kind, small):
    q, x = small(kind)
    other = annvq.make(kind, **q.config)
    assert other.fit(x[::-1].copy() + 1, recipe=QUICK) is other
    assert not torch.equal(other.weight, q.weight)
    other.fit(x, seed=0, recipe=QUICK)
    assert torch.equal(other.weight, q.weight)


def test_default_recipe_beats_its_warm_start(kind):
    x = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    held = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    errors = []
    for recipe in (Recipe((KMeans(10),)), None):
        q = annvq.make(kind, dim=8, M=2, nbits=4).fit(x, recipe=recipe)
        errors.append(float(np.square(held - q.decode(q.encode(held))).sum(1).mean()))
    assert errors[1] <= errors[0] * 1.01


def test_units_do_not_matter(kind, small):
    q, x = small(kind)
    for factor in (2.0**-30, 2.0**20):
        scaled = annvq.make(kind, **q.config).fit(x * np.float32(factor), recipe=QUICK)
        np.testing.assert_array_equal(scaled.encode(x * np.float32(factor)), q.encode(x))


def test_files(kind, small, tmp_path):
    q, x = small(kind)
    q.save(tmp_path / "q")
    loaded = annvq.load_quantizer(tmp_path / "q")
    assert type(loaded) is type(q)
    assert loaded.config == q.config
    np.testing.assert_array_equal(loaded.encode(x), q.encode(x))
    np.testing.assert_array_equal(loaded.tables(x[:3]).luts, q.tables(x[:3]).luts)
    data = (tmp_path / "q").read_bytes()
    for cut in (0, 7, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "bad").write_bytes(data[:cut])
        with pytest.raises(FormatError):
            annvq.load_quantizer(tmp_path / "bad")


def test_default_recipe_repeats_and_leaves_the_global_generator_alone(kind):
    x = np.random.default_rng(4).normal(size=(400, 6)).astype(np.float32)
    states = []
    for stream in (1, 2):
        q = annvq.make(kind, dim=6, M=2, nbits=3)
        torch.manual_seed(stream)
        before = torch.get_rng_state()
        q.fit(x, seed=5)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(q.state_dict())
    for name, value in states[0].items():
        np.testing.assert_array_equal(value.numpy(), states[1][name].numpy(), err_msg=name)


def test_unfitted(kind, tmp_path):
    q = annvq.make(kind, dim=8, M=2, nbits=2)
    x = np.zeros((3, 8), np.float32)
    for use in (
        lambda: q.encode(x),
        lambda: q.decode(np.zeros((1, 2), np.uint8)),
        lambda: q.tables(x),
        lambda: q.save(tmp_path / "q"),
        lambda: q.eval()(torch.zeros(1, 8)),
    ):
        with pytest.raises(NotFittedError, match="fit"):
            use()


def test_other_dtypes(kind, small):
    q, _ = small(kind)
    small_ints = np.random.default_rng(0).integers(0, 9, (40, 12))
    codes = q.encode(small_ints.astype(np.float32))
    for dtype in (np.uint8, np.int8, np.float16, np.float64):
        np.testing.assert_array_equal(q.encode(small_ints.astype(dtype)), codes)


def test_refusals(kind, small):
    q, x = small(kind)
    bad = x[:5].copy()
    bad[3, 1] = np.nan
    cases = [
        (lambda: q.encode(x[:, :5]), ValueError, r"x must be float32 of shape \(n, 12\), got float32 \(600, 5\)"),
        (lambda: q.encode(x.astype(np.int32)), TypeError, "got int32"),
        (lambda: q.encode(x[0]), ValueError, r"got float32 \(12,\)"),
        (lambda: q.encode([[1.0] * 12]), TypeError, "got list"),
        (lambda: q.encode(bad), ValueError, "row 3 has NaN"),
        (lambda: q.encode(np.full((1, 12), 1e300)), ValueError, "finite in float32"),
        (lambda: q.encode(np.repeat([[1e300, -1e300]], 6, 1)), ValueError, "finite in float32"),
        (lambda: q.tables(bad), ValueError, "queries must be finite"),
        (lambda: q.tables(x, "hamming"), ValueError, "metric must be one of"),
        (lambda: q.tables(np.float32(3e38) * np.sign(x - x.mean()), "ip"), ValueError, "queries must be shorter"),
        (lambda: q.fit(np.float32(1e19) * x), ValueError, r"squared norms below 1e\+37"),
        (lambda: annvq.make(kind, **q.config, estimator="nsvq"), TypeError, "estimator must be"),
        (lambda: q.tables(np.zeros((1, 12), np.float32), "cosine"), ValueError, "zero vectors"),
        (lambda: q.decode(np.full((1, 3), 16, np.uint8)), ValueError, "codes must lie"),
        (lambda: q.decode(np.zeros((1, 3), np.float32)), TypeError, "codes must be uint8"),
        (lambda: q.fit(x[:7]), ValueError, "at least 16 rows.*got 7"),
        (lambda: annvq.make(kind, dim=12, M=0), (ValueError, ZeroDivisionError), "M must be"),
        (lambda: annvq.make(kind, dim=12, M=3, nbits=17), ValueError, r"nbits must be in 1\.\.16, got 17"),
        (lambda: annvq.make(kind, dim=12, M=3, nbits=(4, 4)), ValueError, "M=3 of them, got 2"),
    ]
    weight = q.weight.clone()
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    assert torch.equal(q.weight, weight)


def test_empty_batches(kind, small):
    q, x = small(kind)
    assert q.encode(x[:0]).shape == (0, 3)
    assert q.decode(np.empty((0, 3), np.uint8)).shape == (0, 12)
    assert q.tables(x[:0]).luts.shape == (0, 3, 16)


def test_native_codes_are_as_good_as_those_of_the_torch_form(kind, small):
    q, x = small(kind, nbits=5, **({"rounds": 0} if kind == "additive" else {}))
    torch_codes = q._encode_in_torch(x)
    errors = [np.square(x - q.decode(c)).sum(1) for c in (q.encode(x), torch_codes)]
    # Near ties may fall either way in float32, so codes may differ where errors do not.
    assert (q.encode(x) == torch_codes).all(1).mean() > 0.97
    assert errors[0].mean() == pytest.approx(errors[1].mean(), rel=1e-3)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown quantizer 'residul'; registered: .*Did you mean 'residual'"):
        annvq.make("residul", dim=8, M=2)


def test_product_needs_a_divisor():
    with pytest.raises(ValueError, match="dim must be divisible by M, got dim=128, M=3"):
        annvq.ProductVQ(128, 3)


def test_more_beam_is_no_worse(small):
    for kind in ("residual", "additive"):
        errors = []
        for beam in (1, 4, 16):
            q, x = small(kind, M=4, beam=beam)
            errors.append(np.square(x - q.decode(q.encode(x))).sum(1).mean())
        assert errors[2] <= errors[1] * 1.005 <= errors[0] * 1.01


def test_an_interrupted_fit_changes_nothing(kind, small):
    def interrupt(quantizer, data):
        quantizer.mark_fitted()
        raise KeyboardInterrupt

    learned, x = small(kind)
    halfway = Recipe((KMeans(2), interrupt))
    new = annvq.make(kind, **learned.config)
    with pytest.raises(KeyboardInterrupt):
        new.fit(x, recipe=halfway)
    with pytest.raises(NotFittedError):
        new.encode(x)
    again = annvq.make(kind, **learned.config)
    again.load_state_dict(learned.state_dict())
    with pytest.raises(KeyboardInterrupt):
        again.fit(3 * x, recipe=halfway)
    np.testing.assert_array_equal(again.encode(x), learned.encode(x))
