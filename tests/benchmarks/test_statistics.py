"""Intervals against SciPy's and against what they promise: to hold the true figure in 95 of 100 cases."""

import numpy as np
import pytest
from scipy import stats

from annvq.benchmarks import report
from annvq.benchmarks.statistics import (
    Figure,
    figure_of,
    figure_of_row,
    hits_of,
    hits_to_text,
    median_interval,
    same_as_best,
    share_interval,
    told_apart,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (500, 1000), (999, 1000), (30, 30)])
def test_interval_of_a_share_is_wilsons(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert share_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    if 0 < hits < n:
        samples = np.repeat([1.0, 0.0], [hits, n - hits])
        assert share_interval(hits / n, n, samples) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("spread", [0.3, 2.0, 50.0])
def test_interval_of_ten_alike_results_a_query_holds_the_truth(spread):
    """Queries are easy or hard, so their ten results go together: drawn from a beta distribution of mean .8."""
    rng, nq, held, widths, trials = np.random.default_rng(0), 300, 0, [], 600
    for _ in range(trials):
        samples = rng.binomial(10, rng.beta(0.8 * spread, 0.2 * spread, nq)) / 10
        low, high = share_interval(float(samples.mean()), nq, samples, 10)
        held += low <= 0.8 <= high
        widths.append(high - low)
    assert 0.92 < held / trials < 0.98
    boot = stats.bootstrap((samples,), np.mean, n_resamples=2000, method="percentile", rng=rng).confidence_interval
    assert widths[-1] == pytest.approx(boot.high - boot.low, rel=0.15)
    # Without the hits of each query nothing is promised but that it is no narrower.
    low, high = share_interval(float(samples.mean()), nq)
    assert high - low > 0.95 * widths[-1]


def test_queries_that_all_find_the_same_share_tell_no_more_than_all_results_would():
    low, high = share_interval(0.5, 100, np.full(100, 0.5), 10)
    expected = stats.binomtest(500, 1000).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_interval_of_a_median():
    assert median_interval([3.0]) is None
    assert median_interval([3.0, 1.0, 2.0, 5.0, 4.0]) == (1.0, 5.0)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(500):
        low, high = median_interval(list(rng.exponential(1, 11)))
        held += low <= np.log(2) <= high
    assert held / 500 > 0.94


def row_of(values, column="10-recall@10", seed=0, **more):
    true = 10 if column == "10-recall@10" else 1
    counts = np.asarray(values)
    return {
        "method": "m", "seed": seed, "nq": len(counts), "error": None, column: float(counts.mean() / true),
        "hits": hits_to_text({column: counts}), **more,
    }  # fmt: skip


def test_hits_come_back_from_rows():
    rng = np.random.default_rng(0)
    ten, one = rng.integers(0, 11, 37), rng.integers(0, 2, 37)
    row = {"hits": hits_to_text({"10-recall@10": ten, "recall@1": one})}
    np.testing.assert_array_equal(hits_of(row, "10-recall@10"), ten / 10)
    np.testing.assert_array_equal(hits_of(row, "recall@1"), one)
    assert hits_of(row, "recall@10") is None
    assert hits_of({}, "recall@1") is None


def test_queries_in_common_tell_apart_what_intervals_do_not():
    rng = np.random.default_rng(0)
    hard = rng.integers(0, 9, 500)
    a, b = (figure_of_row(row_of(values), "10-recall@10") for values in (hard, hard + (rng.random(500) < 0.3)))
    assert b.low < a.high  # by themselves they overlap
    assert told_apart(a, b)
    assert not told_apart(*(Figure(f.value, f.low, f.high) for f in (a, b)))
    assert not told_apart(a, a)


def test_chance_alone_is_told_apart_in_one_case_of_twenty():
    rng, apart, trials = np.random.default_rng(1), 0, 600
    for _ in range(trials):
        p = rng.beta(2, 1, 300)
        a, b = (figure_of_row(row_of(rng.binomial(10, p)), "10-recall@10") for _ in range(2))
        apart += told_apart(a, b)
    assert 0.02 < apart / trials < 0.09


def test_several_seeds_are_one_figure():
    rng = np.random.default_rng(0)
    rows = [row_of(rng.binomial(10, p, 1000), seed=s) for s, p in enumerate((0.5, 0.6, 0.7))]
    figure = figure_of(rows, "10-recall@10")
    values = [row["10-recall@10"] for row in rows]
    t = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert figure.value == pytest.approx(np.mean(values))
    assert figure.seeds == 3
    assert figure.between == pytest.approx((t.high - t.low) / 2)
    assert figure.high - figure.low > t.high - t.low
    assert figure_of(rows[:1], "10-recall@10").seeds == 1
    assert figure_of([], "10-recall@10") is None


def test_figures_of_columns_without_repeats_are_exact():
    row = {"wmops": 3.0, "search_us": 5.0, "search_us_repeats": [4.0, 5.0, 7.0], "mse": 2.0, "mse_blocks": [1.0, 3.0]}
    assert figure_of_row(row, "wmops") == Figure(3.0)
    assert figure_of_row(row, "nothing") is None
    assert (figure_of_row(row, "search_us").low, figure_of_row(row, "search_us").high) == (4.0, 7.0)
    t = stats.ttest_1samp([1.0, 3.0], 0).confidence_interval(0.95)
    assert figure_of_row(row, "mse").half == pytest.approx((t.high - t.low) / 2)
    assert told_apart(Figure(3.0), Figure(3.0 + 1e-9))


def test_marks_in_tables():
    rng = np.random.default_rng(0)
    hard = rng.integers(0, 9, 500)
    methods = {"best": [row_of(hard + 1)], "near": [row_of(hard + (rng.random(500) < 0.995))], "far": [row_of(hard)]}
    texts, best = report.compared(methods, "10-recall@10", "higher", ".3f")
    assert best == "best"
    assert texts["near"].startswith("≈ ")
    assert not texts["far"].startswith("≈")
    assert "±.0" in texts["best"]
    figures = {"a": Figure(2.0), "b": None, "c": Figure(1.0)}
    assert same_as_best(figures, "lower") == ("c", set())
    assert same_as_best({"b": None}, "lower") == (None, set())
