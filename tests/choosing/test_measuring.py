"""What is measured within the time there is, by a clock of the test's own, and codes that stop."""

from dataclasses import replace

import numpy as np
import pytest

import annvq
from annvq.benchmarks.run import Observer
from annvq.benchmarks.vectors import Vectors
from annvq.choosing import grid, halving, measuring
from annvq.choosing.asked import Asked
from annvq.choosing.costs import Clock, Rows, estimate, training
from annvq.choosing.halving import halve
from annvq.choosing.measuring import Measuring, rows_of
from annvq.choosing.stopping import OutOfTimeError, Stoppable
from annvq.training import devices

CELLS = [
    (dim, bits, metric) for dim in (32, 128, 384, 1536) for bits in (16, 64, 384, 1536) for metric in ("l2", "cosine")
]


class Time:
    """A clock that goes forward when told."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(measuring, "perf_counter", lambda: self.now)


def simulated(monkeypatch, dim, metric, bits, seconds, true_seconds, learn=20_000, asked=None):
    """Measuring where a code takes ``true_seconds(candidate, rows)`` and more codebooks have more recall."""
    time = Time(monkeypatch)
    many = np.broadcast_to(np.float32(1), (30_000, dim))
    data = Vectors("made", metric, many, many[:learn], many[:500], np.zeros((500, 10), np.int64), "learn", "")
    work = Measuring(data, bits, 0, seconds, Observer(), 0.0, asked=asked)
    log = []

    def part(learn, base):
        return Vectors("part", metric, many[:base], many[:learn], data.queries, data.neighbors, "learn", "")

    def measure(c, data, stage, grace):
        rows = rows_of(stage, data)
        log.append((c, rows))
        time.now += true_seconds(c, rows)
        if grace is not None and time.now > grace * seconds:
            return {"stopped": True}
        times = dict.fromkeys(("encode_us", "search_us", "train_s", "mse", "wmops"), 1.0)
        return {"10-recall@10": 1 - 1 / (1 + len(c.nbits)), "recall@1": 0.5, "bits_per_vector": bits, **times}

    monkeypatch.setattr(work, "part", part)
    monkeypatch.setattr(work, "_measure", measure)
    found = halve(work, grid.candidates(bits, dim, metric, 20_000))
    return found, log, time.now


@pytest.mark.parametrize(("dim", "bits", "metric"), CELLS)
def test_time_is_kept_where_estimates_are_wrong(monkeypatch, dim, bits, metric):
    """Twice as slow a machine, or three times as fast, and kinds that differ by half from what is expected."""
    for speed in (1 / 3, 1.0, 2.0):
        kinds = {}

        def true_seconds(c, rows, speed=speed, kinds=kinds):
            kinds.setdefault(c.kind, (0.7, 1.4)[len(kinds) % 2])
            return speed * kinds[c.kind] * estimate(c, rows)

        found, _, took = simulated(monkeypatch, dim, metric, bits, 60.0, true_seconds)
        assert took <= 75
        assert any(c.recall is not None for c in found)
        # Whatever was not measured says why.
        assert all((c.skipped is None) == (c.stage != "planned") for c in found)


def test_the_first_of_each_kind_is_screened_before_others_and_the_cheapest_first(monkeypatch):
    _, log, _ = simulated(monkeypatch, 128, "l2", 64, 60.0, lambda c, rows: 0.01)
    grid_order = grid.candidates(64, 128, "l2", 20_000)
    screened = [c for c, rows in log if rows == log[0][1]]
    firsts = [next(c for c in grid_order if c.kind == kind) for kind in {c.kind for c in grid_order}]
    assert set(screened) == set(grid_order)
    assert set(screened[: len(firsts)]) == set(firsts)
    for part in (screened[: len(firsts)], screened[len(firsts) :]):
        expected = [estimate(c, log[0][1]) for c in part]
        assert expected == sorted(expected)


def test_fewer_and_fewer_on_more_and_more(monkeypatch):
    found, log, _ = simulated(monkeypatch, 384, "cosine", 384, 120.0, estimate)
    sizes = {}
    for c, rows in log:
        sizes.setdefault(rows.learn, []).append(c)
    counts = [len(codes) for _, codes in sorted(sizes.items())]
    assert len(counts) >= 2
    assert counts == sorted(counts, reverse=True)
    last = sizes[max(sizes)]
    assert {(c.kind, c.nbits) for c in found if c.stage == "measured"} == {(c.kind, c.nbits) for c in last}


def test_the_best_are_trained_shorter_where_there_is_no_time_for_more(monkeypatch):
    def true_seconds(c, rows):
        return 0.5 * estimate(c, rows)

    found, log, took = simulated(monkeypatch, 384, "cosine", 384, 60.0, true_seconds)
    again = [(c, rows) for c, rows in log if rows.effort > log[0][1].effort]
    assert {rows for _, rows in again} == {again[0][1]}  # they are compared, so alike for all
    assert log[0][1].effort < again[0][1].effort < 0.5
    assert again[0][1].base >= 1.5 * log[0][1].base
    assert {c.label for c in found if c.stage == "measured"} == {c.label for c, _ in again}
    assert len(again) >= 3
    assert took <= 60


def test_time_that_no_second_stage_has_use_for_goes_to_codes_left_out(monkeypatch):
    monkeypatch.setattr(halving, "_rounds", lambda work, part: None)
    found, log, took = simulated(monkeypatch, 384, "cosine", 64, 60.0, lambda c, rows: 11.0)
    assert {c.stage for c in found} == {"screened", "planned"}
    assert len(log) > 3
    assert 36 < took <= 60


def test_a_code_that_is_searched_soon_enough_goes_on_before_those_that_find_more(monkeypatch):
    """Here more codebooks find more, and one code of few alone takes the time that is asked for."""

    def last(asked):
        found, _, _ = simulated(monkeypatch, 384, "cosine", 384, 120.0, estimate, asked=asked)
        return [(c.kind, len(c.nbits)) for c in found if c.stage == "measured"]

    quick = ("product", 48)
    monkeypatch.setattr(halving, "query_us", lambda c, m, n: 1.0 if (c.kind, len(c.nbits)) == quick else 9.0)
    assert quick not in last(Asked(30_000, 10))
    assert quick in last(Asked(30_000, 10, query_us=5.0))
    assert quick not in last(Asked(30_000, 10, query_us=0.5))


@pytest.mark.parametrize("seconds", [60.0, 6000.0])
def test_a_small_sample_is_screened_too_where_time_is_short(monkeypatch, seconds):
    found, log, took = simulated(monkeypatch, 128, "l2", 64, seconds, estimate, learn=6000)
    first = log[0][1]
    assert first.learn == (3000 if seconds == 60.0 else 6000)
    assert took <= 1.25 * seconds
    assert sum(c.stage != "planned" for c in found) >= (8 if seconds == 60.0 else len(found))


def test_no_time_but_for_one(monkeypatch):
    found, log, _ = simulated(monkeypatch, 1536, "cosine", 384, 1e-3, estimate)
    assert len(log) == 1
    assert sum(c.stage == "planned" for c in found) == len(found) - 1


def test_many_dimensions_have_codes_of_groups():
    kinds = {c.kind for c in grid.candidates(384, 384, "cosine", 20_000)}
    assert kinds == {"product", "rotated-product", "principal-product", "principal-additive"}
    # 47 codebooks, beside a norm of a byte, can only be one group.
    l2 = grid.candidates(384, 384, "l2", 20_000)
    assert {c.norm for c in l2 if c.kind == "principal-additive"} == {None}
    few = {c.kind for c in grid.candidates(64, 128, "l2", 20_000)}
    assert few == {"product", "rotated-product", "principal-product", "residual", "additive", "conditional"}
    assert {"residual", "additive", "principal-product"} < {c.kind for c in grid.candidates(64, 384, "ip", 20_000)}


def test_sums_of_too_many_entries_are_left_out():
    """Their refits solve for all entries at once."""
    sums = {"residual", "additive", "conditional"}
    for bits, most in ((256, 8), (384, 6)):
        found = {max(c.nbits) for c in grid.candidates(bits, 128, "l2", 20_000) if c.kind in sums}
        assert max(found) == most
    assert "product-additive" in {c.kind for c in grid.candidates(384, 128, "l2", 20_000)}  # in groups they are few


def test_codebooks_are_named_in_short():
    label = grid.Candidate("product", (7, 7, 6), None, "l2", 8).label
    assert (label, grid.Candidate("product", (8, 8), None, "l2", 8).label) == ("product 2x7+1x6", "product 2x8")
    line = grid.Candidate("product", (7,) * 9 + (6,), None, "l2", 128).code_line()
    index = eval(line.removesuffix(".fit(x)"), {"annvq": annvq})
    assert index.quantizer.bits_per_codebook == (7,) * 9 + (6,)


def test_the_line_of_python_learns_what_was_measured():
    """Under cosine the index learns a share that its quantizer alone does not have."""
    x = np.random.default_rng(0).normal(size=(6000, 8)).astype(np.float32) + 1
    line = grid.Candidate("principal-product", (4, 4), None, "cosine", 8).code_line()
    index = eval(line, {"annvq": annvq, "x": x})
    same = annvq.FlatIndex(annvq.PrincipalProductVQ(8, 2, nbits=4), metric="cosine").fit(x)
    assert (same.coding.share is None) != (same.coding.length is None)
    assert index.coding.fingerprint() == same.coding.fingerprint()
    np.testing.assert_array_equal(index.add(x[:50]).search(x[:9], 5)[1], same.add(x[:50]).search(x[:9], 5)[1])


@pytest.mark.parametrize(("dim", "bits", "metric"), CELLS)
def test_estimates_grow_with_everything(dim, bits, metric):
    rows = Rows(4000, 4000, 500, 0.05)
    more = (Rows(8000, 4000, 500, 0.05), Rows(4000, 8000, 500, 0.05), Rows(4000, 4000, 500, 0.5))
    for c in grid.candidates(bits, dim, metric, 20_000):
        assert 0 < estimate(c, rows) < min(estimate(c, r) for r in more)


def test_estimates_are_corrected_by_what_codes_took():
    clock, rows = Clock(), Rows(4000, 4000, 500, 0.05)
    codes = {c.kind: c for c in grid.candidates(64, 128, "l2", 20_000)}
    product, residual = codes["product"], codes["residual"]
    assert clock.expects(residual, rows) >= estimate(residual, rows)
    for _ in range(100):
        clock.tell(product, rows, 3 * estimate(product, rows))
    assert clock.expects(residual, rows) == pytest.approx(1.2 * 3 * estimate(residual, rows), rel=0.05)  # unseen
    for _ in range(100):
        clock.tell(residual, rows, 0.5 * estimate(residual, rows))
    assert clock.expects(residual, rows) == pytest.approx(0.5 * estimate(residual, rows), rel=0.05)
    assert clock.expects(product, rows) == pytest.approx(3 * estimate(product, rows), rel=0.05)


class Slow:
    """A code whose adding takes a second for a vector."""

    def __init__(self):
        self.config = {"name": "slow"}
        self.now, self.added = 0.0, 0

    def fit(self, learn):
        self.now += 5

    def add(self, x):
        self.now += len(x)
        self.added += len(x)


def test_a_code_stops_before_the_step_that_would_end_late():
    code = Slow()
    watched = Stoppable(code, lambda: 20 - code.now)
    assert watched.config == code.config
    watched.fit(np.zeros((3, 2)))
    watched.add(np.zeros((6, 2)))
    watched.add(np.zeros((4, 2)))
    with pytest.raises(OutOfTimeError, match="add of 6 vectors"):
        watched.add(np.zeros((6, 2)))
    assert code.added == 10
    code.now = 20.0
    with pytest.raises(OutOfTimeError, match="search of 1 vectors"):
        watched.search(np.zeros((1, 2)), 10)


def test_codes_that_gain_by_it_are_measured_and_written_decoded():
    cosine = {c.kind: c for c in grid.candidates(64, 128, "cosine", 20_000)}
    assert {kind for kind, c in cosine.items() if c.decoded} == {"residual", "additive", "conditional"}
    line = cosine["additive"].code_line()
    assert line.startswith("annvq.RerankIndex(annvq.FlatIndex(annvq.AdditiveVQ(")
    assert line.endswith(', "decoded").fit(x)')
    l2 = grid.candidates(64, 128, "l2", 20_000)
    assert {c.kind for c in l2 if c.decoded} == {"conditional"}


def test_a_network_is_expected_sooner_where_it_is_learned_in_bfloat16(monkeypatch):
    """Where the machine has instructions for it descent uses them, as devices.fast_products decides. Measured of 5,000
    steps: 60 and 25 s of 128 dimensions, 415 and 130 s of 384."""
    rows = Rows(learn=100_000, base=20_000, queries=1000, effort=1.0)
    for dim, slow, quick in ((128, 60, 25), (384, 415, 130)):
        additive = grid.Candidate("additive", (8,) * 8, None, "l2", dim, norm_free=True)
        expected = {}
        for fast in (False, True):
            monkeypatch.setattr(devices, "_instructions", lambda kind, fast=fast: fast)
            expected[fast] = training(replace(additive, kind="conditional"), rows)
            expected[additive] = training(additive, rows)
            assert expected[additive] == expected.setdefault("first", expected[additive])
        assert expected[False] - expected[True] == pytest.approx(slow - quick, rel=0.3)
        assert slow < expected[False] - expected[additive] < 4 * slow
