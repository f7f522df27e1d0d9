"""Choosing a code: disjoint parts, every bit charged, front and recommendation by their definitions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annvq.benchmarks.run import Observer
from annvq.benchmarks.statistics import Figure
from annvq.choosing import Candidate, Choice, choose, grid, halving, recipe_text, sampling, webpage
from annvq.choosing.asked import Asked
from annvq.choosing.forms import PLAIN
from annvq.choosing.recommending import next_better, pareto, recommend
from annvq.indexes.recipes import load_recipe, make_index
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe


@pytest.fixture(autouse=True)
def _short_training(quick_fits):
    """A few rounds of k-means are enough here: what is learned is not what is tested."""
    quick_fits(Recipe((KMeans(iterations=2),)))


def candidate(recall, encode, search):
    figure = Figure(recall, recall - 0.005, recall + 0.005)
    return Candidate("product", (8,), None, "l2", 8, 8, recall, recall, 1.0, 1.0, encode, search, 1.0, figure=figure)


FIGURES = st.tuples(st.floats(0, 1), st.floats(0.1, 100), st.floats(0.1, 100))


@given(st.lists(FIGURES, min_size=1, max_size=12))
def test_front_holds_the_best_and_nothing_beaten(figures):
    candidates = [candidate(*f) for f in figures]
    front = pareto(candidates)
    top = max(c.recall for c in candidates)
    assert front[0].recall == top
    assert [c.recall for c in front] == sorted((c.recall for c in front), reverse=True)
    for c in candidates:
        for other in candidates:
            beaten = other.recall > c.recall and other.encode_us <= c.encode_us and other.search_us <= c.search_us
            if beaten:
                assert c not in front
    chosen, reason = recommend(front, Asked())
    assert chosen in front
    assert top - chosen.recall <= 0.005 * 2**0.5 + 1e-12  # as their intervals allow
    assert reason


def test_recommendation():
    best, close, cheap = candidate(0.600, 50, 100), candidate(0.598, 5, 100), candidate(0.4, 1, 100)
    assert recommend([best, close, cheap], Asked())[0] is close
    # What the queries tell apart is not recommended for being cheap, nor what they do not, by too much.
    exact = [replace(c, figure=None) for c in (best, close, cheap)]
    assert recommend(exact, Asked())[0] is exact[0]
    wide = [replace(c, figure=Figure(c.recall, c.recall - 0.3, c.recall + 0.3)) for c in (best, close, cheap)]
    assert recommend(wide, Asked())[0] is wide[1]
    # Screening says too little of dear codes for that.
    screened = [replace(c, stage="screened") for c in wide]
    assert recommend(screened, Asked())[0] is screened[0]
    chosen, reason = recommend([best, cheap], Asked())
    assert chosen is best
    assert reason.startswith("Highest recall of the codes measured")


def test_the_quickest_of_those_that_find_enough_is_recommended():
    best, middle, cheap = candidate(0.9, 50, 300), candidate(0.7, 5, 100), candidate(0.4, 1, 20)
    chosen, reason = recommend([best, middle, cheap], Asked(recall=0.65))
    assert chosen is middle
    assert "10-recall@10 0.700 is expected, where 0.65 is enough" in reason
    # What is predicted among as many vectors as there will be counts, where it is known.
    fewer = replace(middle, predicted={"10-recall@10": Figure(0.6, 0.55, 0.65)})
    assert recommend([best, fewer, cheap], Asked(recall=0.65))[0] is best
    chosen, reason = recommend([best, middle, cheap], Asked(recall=0.95))
    assert chosen is best
    assert reason.startswith("None is expected to reach 10-recall@10 0.95: it takes more bits. Highest recall")
    # Time is looked at first.
    assert recommend([best, middle, cheap], Asked(query_us=50, recall=0.65))[0] is cheap


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_candidates_take_the_budget(metric):
    for bits in (16, 48, 64, 100):
        for c in grid.candidates(bits, 64, metric, 20_000):
            norm = {None: 0, "uint8": 8, "float32": 32}[c.norm]
            assert sum(c.nbits) + norm == bits
            assert c.norm is None or metric == "l2"
            assert max(c.nbits) <= 10


def test_no_code_fits():
    with pytest.raises(ValueError, match="no code of the grid fits"):
        grid.candidates(100, 7, "ip", 8)


def test_parts_are_disjoint(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    x = np.arange(6000, dtype=np.float32).reshape(3000, 2)
    data = sampling.split(x, "l2", sample=2000, nq=100, seed=3)
    parts = [set(map(tuple, part)) for part in (data.base, data.learn, data.queries)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 2000
    assert len(data.queries) == 100
    again = sampling.split(x, "l2", sample=2000, nq=100, seed=3)
    assert again.digest == data.digest


def test_choose_measures_and_recommends(monkeypatch, tmp_path):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    monkeypatch.setattr(grid, "GRID", (("product", 4, "auto"), ("product", 2, "auto")))
    x = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    choice = choose(x, bits=16, sample=1500, nq=50, threads=1)
    assert [c.label for c in choice.candidates] == ["product 4x4", "product 8x2"]
    assert choice.recommended in choice.front
    assert {c.bits_per_vector for c in choice.candidates} == {16}
    assert json.loads(json.dumps(choice.to_dict()))["recommended"]["kind"] == "product"
    assert choice.table().row_count == 2
    for c in choice.candidates:
        assert c.figure.low < c.recall < c.figure.high
        assert len(c.figure.samples) == 50
        assert c.to_dict()["recall_high"] == c.figure.high
    assert choice.recommended.code_line().startswith("annvq.FlatIndex(annvq.ProductVQ(dim=8, M=")


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """Five codes, screened on a few vectors."""
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    codes = [("product", n, "auto") for n in (4, 3, 2, 1)] + [("residual", 2, "uint8")]
    monkeypatch.setattr(grid, "GRID", tuple(codes))
    monkeypatch.setattr(halving, "_FINALISTS", 2)
    monkeypatch.setattr(halving, "_SCREEN", replace(halving._SCREEN, learn=130, base=300))
    rng = np.random.default_rng(0)
    return (rng.standard_normal((3000, 6)) @ rng.standard_normal((6, 24))).astype(np.float32)


def test_the_best_are_measured_again(staged):
    class Seen(Observer):
        def __init__(self):
            self.labels = []

        def started(self, point):
            self.labels.append(point.label)

    choice = choose(staged, bits=24, nq=100, threads=1, observer=(seen := Seen()))
    stages = {c.label: c.stage for c in choice.candidates if c.form == PLAIN}
    forms = len(choice.candidates) - len(stages)
    assert list(stages) == ["product 6x4", "product 8x3", "product 12x2", "product 24x1", "residual 8x2 + uint8 norm"]
    assert len(seen.labels) == 5 + sum(stage == "measured" for stage in stages.values()) + forms + (
        choice.beyond is not None
    )
    assert sum(stage == "measured" for stage in stages.values()) in (2, 3)
    assert set(stages.values()) == {"screened", "measured"}
    # The best of each kind goes on, however the others fare.
    assert stages["residual 8x2 + uint8 norm"] == stages["product 6x4"] == "measured"
    assert {c.stage for c in choice.front} == {"measured"}
    assert (choice.n, choice.n_learn, choice.nq) == (1700, 1200, 100)
    assert "5 of 5 codes and another form of one measured" in choice.effort()
    assert "only on a part of the sample" in choice.effort()
    by_recall = max((c for c in choice.candidates if c.stage == "measured"), key=lambda c: c.recall)
    assert by_recall is choice.front[0]


def test_time_is_kept(staged):
    choice = choose(staged, bits=24, nq=100, threads=1, seconds=1e-6)
    assert sorted(c.stage for c in choice.candidates) == ["planned"] * 4 + ["screened"]
    assert choice.recommended.stage == "screened"
    assert all(("would take about" in (c.skipped or "")) == (c.stage == "planned") for c in choice.candidates)
    assert (choice.n, choice.n_learn) == (75, 64)  # as few as may be, where there is no time
    assert "1 of 5 codes measured" in choice.effort()
    assert "There was no time for 4 more" in choice.effort()
    assert choice.table().row_count == 1
    (line,) = choice.unmeasured()
    for c in choice.candidates:
        assert (f"{c.label} (about " in line) == (c.stage == "planned")


def test_what_more_would_take(staged):
    choice = choose(staged, bits=24, nq=100, threads=1)
    if choice.recommended is not choice.front[0]:
        assert choice.beyond is None
        return
    more = choice.beyond
    assert more.kind == choice.recommended.kind
    assert more.bits_per_vector > 24
    assert len(more.figure.samples) == 100
    assert f"with {more.bits_per_vector - 24:.0f} more, {more.label} finds" in choice.next_better


def test_next_better_is_said_in_a_sentence():
    best, dear, more = (
        candidate(0.5, 5, 10),
        candidate(0.6, 50, 100),
        replace(candidate(0.55, 5, 10), bits_per_vector=16),
    )
    assert next_better([dear, best], best, None).startswith("For more: product 1x8 finds 0.600 ±.005 for 50.0 µs")
    assert "with 8 more, product 1x8 finds 0.550 ±.005." in next_better([best], best, more)
    close = replace(more, recall=0.501, figure=Figure(0.501, 0.49, 0.51))
    assert "which these queries do not tell from it" in next_better([best], best, close)
    assert "was not measured" in next_better([best], best, None)


CODES = [
    Candidate("product", (4, 4), None, "l2", 8), Candidate("residual", (4, 3), "uint8", "l2", 8),
    Candidate("additive", (4, 4), None, "l2", 8, norm_free=True),
    Candidate("rotated-product", (4, 4), None, "cosine", 8), Candidate("principal-product", (4, 4), None, "ip", 8),
]  # fmt: skip


@pytest.mark.parametrize("code", CODES, ids=lambda c: c.label)
def test_recipes_make_the_code_that_was_chosen(code, tmp_path):
    bits = sum(code.nbits) + (8 if code.norm else 0)
    choice = Choice(bits, 10, 10, 1, (code,), (code,), code, 'Why "so".', 1.0, None, "What else.")
    path = tmp_path / "r.toml"
    path.write_text(recipe_text(choice, "annvq choose x"))
    recipe = load_recipe(path)
    assert path.read_text().startswith('# Chosen by: annvq choose x\n# Why "so".\n# What else.\n')
    index = make_index(recipe, 8, n=100, metric=recipe.metric)
    assert (index.metric, index.bits_per_vector) == (code.metric, bits)
    assert (index.quantizer.kind, index.quantizer.sizes) == (code.kind, tuple(2**n for n in code.nbits))
    assert getattr(index.quantizer, "norm_free", False) == code.norm_free


def test_the_page_of_a_choice(staged, tmp_path):
    choice = choose(staged, bits=24, nq=100, threads=1, seconds=1)
    page = webpage.page(choice, "annvq choose mine.npy")
    section = page.sections[0]
    assert len(section.lines) == 5 + (choice.beyond is not None)
    (chosen,) = [line for line in section.lines if line.method.startswith("★ ")]
    assert chosen.values["10-recall@10"].number == choice.recommended.recall
    assert choice.recommended.label in page.headline
    assert page.environments[0]["threads"] == "1"
    assert webpage.report(choice, tmp_path / "page.html") == (tmp_path / "page.html").stat().st_size


def test_effort_says_what_more_seconds_would_do():
    screened = replace(candidate(0.5, 1, 1), stage="screened")
    choice = Choice(8, 10, 10, 1, (screened,), (screened,), screened, "", 1.0)
    assert "1 of 1 codes measured" in choice.effort()
    assert "part of the sample; more seconds" in choice.effort()


def _with_row(row, value):
    x = np.ones((2000, 4))
    x[row] = value
    return x


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (np.zeros((10, 4), np.float32), {"bits": 8}, ValueError, "at least 1000 vectors"),
        (np.zeros((2000, 4), np.float32), {"bits": 0}, ValueError, "bits must be"),
        (np.zeros((2000, 4), np.float32), {"memory": 1 << 20}, ValueError, r"bits=4,040 .* take 128, so no code"),
        (np.zeros((2000, 4), np.float32), {"bits": 8, "nq": 0}, ValueError, "nq must be"),
        (np.zeros((2000, 4), np.float32), {"bits": 8, "seconds": 0}, ValueError, "seconds must be"),
        (np.zeros((2000, 4), np.float32), {"bits": 8, "seconds": "1"}, ValueError, "seconds must be"),
        ([[1.0]], {"bits": 8}, TypeError, "x must be"),
        (_with_row(7, np.nan), {"bits": 8}, ValueError, "x must be finite in float32; row 7 has NaN"),
        (_with_row(7, 1e300), {"bits": 8}, ValueError, "x must be finite in float32; row 7 has NaN"),
        (_with_row(7, 0), {"bits": 8, "metric": "cosine"}, ValueError, "zero vectors under cosine; row 7 is zero"),
    ],
)
def test_bad_arguments_are_named(x, arguments, error, message):
    with pytest.raises(error, match=message):
        choose(x, **arguments)


def test_pareto_of_what_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="must have been measured"):
        pareto([Candidate("product", (8, 8), None, "l2", 16)])
