"""What every registered quantizer must do."""

import copy

import numpy as np
import pytest
import torch

import annvq
from annvq.errors import FormatError, NotFittedError
from annvq.training import Recipe


def same_state(a, b):
    states = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(np.array_equal(x.numpy(), y.numpy(), equal_nan=True) for x, y in states)  # NaN: not learned


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


@pytest.mark.parametrize("nbits", [8, 3, (2, 5, 9)])
def test_codes_as_rows_of_bytes(kind, small, nbits):
    q, x = small(kind, nbits=nbits)
    codes = q.encode(x[:50])
    rows = q.to_rows(codes)
    assert (rows.dtype, rows.shape) == (np.uint8, (50, -(-q.bits // 8))) == (np.uint8, (50, q.row_bytes))
    if nbits == 8:
        np.testing.assert_array_equal(rows, codes)
    back = q.from_rows(rows)
    assert back.dtype == q.code_dtype
    np.testing.assert_array_equal(back, codes)
    np.testing.assert_array_equal(q.from_rows(rows[::-1]), codes[::-1])
    in_torch = q.to_rows(q.encode(torch.from_numpy(x[:50])))
    assert in_torch.dtype == torch.uint8
    np.testing.assert_array_equal(q.from_rows(in_torch).numpy(), codes)
    assert q.from_rows(q.to_rows(codes[:0])).shape == (0, 3)
    for wrong, error in (
        (rows[0], ValueError),
        (rows[:, :-1], ValueError),
        (rows.astype(np.int64), TypeError),
        (rows.tobytes(), TypeError),
    ):
        with pytest.raises(error, match=rf"rows must be uint8 of shape \(n, {q.row_bytes}\), got"):
            q.from_rows(wrong)
    with pytest.raises(ValueError, match="codes must"):
        q.to_rows(codes[:, :2])
    with pytest.raises(ValueError, match="codes must lie in"):
        q.to_rows(np.full((1, 3), 512))


def test_fit_is_deterministic_and_forgets(kind, small, quick):
    q, x = small(kind)
    other = annvq.make(kind, **q.config)
    assert other.fit(x[::-1].copy() + 1, recipe=quick(kind)) is other
    assert not same_state(other, q)
    other.fit(x, seed=0, recipe=quick(kind))
    assert same_state(other, q)


def test_units_do_not_matter(kind, small, quick):
    q, x = small(kind)
    for factor in (2.0**-30, 2.0**20):
        scaled = annvq.make(kind, **q.config).fit(x * np.float32(factor), recipe=quick(kind))
        np.testing.assert_array_equal(scaled.encode(x * np.float32(factor)), q.encode(x))


def test_files(kind, small, tmp_path):
    q, x = small(kind)
    q.save(tmp_path / "q")
    loaded = annvq.load_quantizer(tmp_path / "q")
    assert type(loaded) is type(q)
    assert loaded.config == q.config
    np.testing.assert_array_equal(loaded.encode(x), q.encode(x))
    np.testing.assert_array_equal(loaded.scan_view().tables(x[:3]).luts, q.scan_view().tables(x[:3]).luts)
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
        lambda: q.scan_view().tables(x),
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
    far = np.float32(3e38) * np.sign(x - x.mean())
    cases = [
        (lambda: q.encode(x[:, :5]), ValueError, r"x must be float32 of shape \(n, 12\), got float32 \(600, 5\)"),
        (lambda: q.encode(x.astype(np.int32)), TypeError, "got int32"),
        (lambda: q.encode(x[0]), ValueError, r"got float32 \(12,\)"),
        (lambda: q.encode([[1.0] * 12]), TypeError, "got list"),
        (lambda: q.encode(bad), ValueError, "row 3 has NaN"),
        (lambda: q.encode(np.full((1, 12), 1e300)), ValueError, "finite in float32"),
        (lambda: q.encode(np.repeat([[1e300, -1e300]], 6, 1)), ValueError, "finite in float32"),
        (lambda: q.scan_view().tables(bad), ValueError, "queries must be finite"),
        (lambda: q.scan_view().tables(x, "hamming"), ValueError, "metric must be one of"),
        (
            lambda: q.scan_view().tables(far, "ip"),
            ValueError,
            "queries must be shorter",
        ),
        (lambda: q.fit(np.float32(1e19) * x), ValueError, r"squared norms below 1e\+37"),
        (lambda: annvq.make(kind, **q.config, estimator="nsvq"), TypeError, "estimator must be"),
        (lambda: q.scan_view().tables(np.zeros((1, 12), np.float32), "cosine"), ValueError, "zero vectors"),
        (lambda: q.decode(np.full((1, 3), 16, np.uint8)), ValueError, "codes must lie"),
        (lambda: q.decode(np.zeros((1, 3), np.float32)), TypeError, "codes must be uint8"),
        (lambda: q.fit(x[:7]), ValueError, "at least 16 rows.*got 7"),
        (lambda: annvq.make(kind, dim=12, M=0), (ValueError, ZeroDivisionError), "M must be"),
        (lambda: annvq.make(kind, dim=12, M=3, nbits=17), ValueError, r"nbits must be in 1\.\.16, got 17"),
        (lambda: annvq.make(kind, dim=12, M=3, nbits=(4, 4)), ValueError, "M=3 of them, got 2"),
    ]
    before = copy.deepcopy(q)
    before.encode(x[:3])
    for use, error, message in cases:
        with pytest.raises(error, match=message):
            use()
    assert same_state(q, before)


def test_empty_batches(kind, small):
    q, x = small(kind)
    assert q.encode(x[:0]).shape == (0, 3)
    assert q.decode(np.empty((0, 3), np.uint8)).shape == (0, 12)
    assert q.scan_view().tables(x[:0]).luts.shape == (0, 3, 16)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown quantizer 'residul'; registered: .*Did you mean 'residual'"):
        annvq.make("residul", dim=8, M=2)


def test_an_interrupted_fit_changes_nothing(kind, small, quick):
    def interrupt(quantizer, data):
        quantizer.mark_fitted()
        raise KeyboardInterrupt

    learned, x = small(kind)
    learning = quick(kind) or learned.default_recipe()
    halfway = Recipe((*learning.parts, interrupt))
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


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_view_that_indexes_scan_is_over_the_same_codes(kind, small, metric):
    q, x = small(kind)
    view, codes = q.scan_view(), q.encode(x)
    assert (view.dim, view.sizes, view.needs_norm) == (q.dim, q.sizes, q.needs_norm)
    decoded = view.decode(codes).astype(np.float64)
    assert np.square(x - decoded).sum() < np.square(x - x.mean(0)).sum()
    luts, bias = view.tables(x[:5], metric)
    scores = luts[:, np.arange(3)[None], codes.astype(int)].sum(-1, dtype=np.float64) + bias[:, None]
    unit = x[:5] / np.linalg.norm(x[:5].astype(np.float64), axis=1, keepdims=True)
    if metric == "l2":
        kept = np.square(decoded - view.origin).sum(1) if view.needs_norm else 0.0
        expected = np.square(x[:5, None] - decoded).sum(2) - kept
    else:
        expected = -x[:5].astype(np.float64) @ decoded.T if metric == "ip" else 1 - unit @ decoded.T
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
