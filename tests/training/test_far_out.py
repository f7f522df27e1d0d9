"""A few vectors that are very far out do not spoil the codes of all others."""

import numpy as np
import pytest

import annvq
from annvq.kernels import book_centres
from annvq.training.data import prepare
from annvq.training.outliers import far_out

D, N = 16, 1500


def _data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * N + 50, D)) @ (rng.normal(size=(D, D)) * np.linspace(1, 0.1, D))
    x = x.astype(np.float32)
    return x[:N], x[N : 2 * N], x[2 * N :]


def _recall(index, base, queries):
    distances = np.square(queries[:, None].astype(np.float64) - base).sum(-1)
    true, found = np.argsort(distances, axis=1)[:, :10], index.search(queries, 10)[1]
    return np.mean([len({*a} & {*b}) / 10 for a, b in zip(true, found, strict=True)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("product", {}),
        ("rotated-product", {}),
        ("residual", {}),
        ("residual", {"norm_free": True}),
        ("additive", {"rounds": 4}),
    ],
)
def test_recall_with_outliers_among_the_learn_vectors(kind, options):
    learn, base, queries = _data()
    with_outliers = learn.copy()
    with_outliers[[7, 400]] *= 1e6 / np.abs(learn[[7, 400]]).max()
    recalls = []
    for x in (learn, with_outliers):
        q = annvq.make(kind, dim=D, M=4, nbits=5, **options).fit(x)
        recalls.append(_recall(annvq.FlatIndex(q).add(base), base, queries))
    assert recalls[1] > recalls[0] - 0.07, recalls


def test_offsets_of_norm_free_codes_with_badly_coded_learn_vectors():
    learn, base, queries = _data()
    q = annvq.ResidualVQ(D, 4, 5, norm_free=True).fit(learn)
    recalls = []
    for rows in (0, 3):
        x = learn.copy()
        x[:rows] *= 100
        recalls.append(_recall(annvq.FlatIndex(q.fit_norms(x)).add(base), base, queries))
    assert recalls[1] > recalls[0] - 0.03, recalls


def test_what_is_far_out_has_no_say_in_offset_scale_or_validation():
    learn = _data()[0]
    settings = {"least": 32, "max_rows": N, "validation": 0.1, "seed": 0, "progress": False}
    plain = prepare(learn[5:], D, **settings)
    learn[:5] *= 1e7
    assert (np.flatnonzero(far_out(learn)) == np.arange(5)).all()
    data = prepare(learn, D, **settings)
    assert data.scale == plain.scale
    np.testing.assert_allclose(data.mean, plain.mean, atol=1e-5)
    assert far_out(data.train).sum() == 5
    assert np.abs(data.validation).max() < 100
    assert len(data.near(32).train) == len(data.train) - 5
    assert len(data.near(N).train) == len(data.train)  # rows that cannot be spared


def test_what_is_far_out_is_few():
    learn = _data()[0]
    learn[: len(learn) // 50] *= 1e7  # two in a hundred: not outliers, but what the data are
    assert not far_out(learn).any()


def test_a_codebooks_centre_is_the_mean_of_what_is_not_far_out():
    rng = np.random.default_rng(0)
    books = [rng.normal(size=(n, 3)).astype(np.float32) for n in (1, 2, 32)]
    means = [book.mean(0, dtype=np.float64).astype(np.float32) for book in books]
    np.testing.assert_array_equal(book_centres(np.concatenate(books), (1, 2, 32)), means)
    books[2][4] = 1e9
    rest = np.delete(books[2], 4, axis=0).mean(0, dtype=np.float64)
    np.testing.assert_allclose(book_centres(np.concatenate(books), (1, 2, 32))[2], rest, rtol=1e-5)
    books[2][:] = 5
    books[2][3] = 6
    np.testing.assert_allclose(book_centres(books[2], (32,)), np.full((1, 3), 5 + 1 / 32))
