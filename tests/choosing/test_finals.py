"""Forms of codes: their bits, the index that a recipe makes of them, and what a choice does with them; rows that are
kept."""

import json
from dataclasses import replace

import numpy as np
import pytest

from annvq import IVFIndex, RerankIndex, load_index
from annvq.benchmarks.run import Observer
from annvq.benchmarks.statistics import Figure
from annvq.choosing import Candidate, Choice, choose, forms, grid, halving, recipe_text, sampling, webpage
from annvq.choosing.asked import Asked
from annvq.choosing.finals import FormCode
from annvq.choosing.forms import PLAIN, Form, Second, forms_of, kept_type, split_forms
from annvq.choosing.recommending import recommend
from annvq.datasets import exact_neighbors
from annvq.indexes.recipes import load_recipe, make_index
from annvq.kernels import lookup_cost
from annvq.training.parts import KMeans
from annvq.training.recipe import Recipe


@pytest.fixture(autouse=True)
def _short_training(quick_fits):
    quick_fits(Recipe((KMeans(iterations=2),)))


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((3000, 6)) @ rng.standard_normal((6, 24))).astype(np.float32)


REST = Form(by=Second("product", (4, 4, 4, 4), "rest"))
STAGES = Form(by=Second("residual", (4, 4, 4, 4), "stages"))
MADE = [
    Candidate("product", (4, 4), None, "l2", 24, form=Form(lists=True)),
    Candidate("residual", (4, 4), "uint8", "l2", 24, form=Form(lists=True, residual=True)),
    Candidate("residual", (4, 4), "uint8", "l2", 24, form=STAGES),
    Candidate("additive", (4, 4), None, "cosine", 24, form=Form(lists=True, residual=True)),
    Candidate("product", (4, 4), None, "l2", 24, form=REST),
    Candidate("product", (4, 4), None, "cosine", 24, form=Form(lists=True, by="int8")),
    Candidate("product", (4, 3), None, "ip", 24, form=Form(by="float16")),
]


@pytest.mark.parametrize("c", MADE, ids=lambda c: c.label)
def test_forms_are_charged_and_recipes_make_them(c, x, tmp_path):
    if c.metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    learned = None
    if c.form == STAGES:
        learned = FormCode(replace(c, nbits=(4, 4, 4, 4), form=PLAIN), None, 3000, 0, 0.1)
        learned.fit(x)
        learned = learned.quantizer
    code = FormCode(c, learned, len(x), 0, 0.1)
    code.fit(x)
    code.add(x[:2000])
    code.add(x[2000:])
    norm = 8 if c.norm else 0
    assert code.bits_per_vector() == sum(c.nbits) + norm + c.form.bits(c.nbits, 24)
    nearest = exact_neighbors(x, x[:50], 1, metric=c.metric)[0]
    assert (code.search(x[:50], 10) == nearest).any(axis=1).mean() > 0.5
    assert code.decode(3, 7).shape == (4, 24)
    # What a recipe makes is the same, untrained.
    (tmp_path / "r.toml").write_text(recipe_text(Choice(99, 10, 10, 1, (c,), (c,), c, "Why.", 1.0), "annvq choose x"))
    recipe = load_recipe(tmp_path / "r.toml")
    made = make_index(recipe, 24, n=len(x), metric=recipe.metric)
    assert type(made) is type(code.index)
    assert made.bits_per_vector == code.index.bits_per_vector
    assert made.quantizer.config == code.index.quantizer.config
    scanned, own = (i.index if isinstance(i, RerankIndex) else i for i in (made, code.index))
    assert (type(scanned), scanned.norm, scanned.residual) == (type(own), own.norm, own.residual)
    if isinstance(made, RerankIndex):
        assert made.refinement.facts() == code.index.refinement.facts()
    if isinstance(scanned, IVFIndex):
        assert scanned.nlist == own.nlist


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize(("dim", "bits"), [(8, 64), (16, 384), (128, 64), (128, 2048), (384, 384), (24, 1024)])
def test_forms_stay_within_the_budget(metric, dim, bits):
    for n in (1000, 10**6):
        for c in grid.candidates(bits, dim, metric, 20_000):
            norm = {None: 0, "uint8": 8, "float32": 32}[c.norm]
            for nbits, form in forms_of(c.kind, c.nbits, c.norm, c.norm_free, metric, n):
                assert sum(nbits) + norm + form.bits(nbits, dim) == bits
                assert form != PLAIN
                assert not form.lists or n >= forms.LISTS_FROM
        for whole in (False, True):
            for nbits, form in split_forms(bits, dim, metric, whole, n):
                assert sum(nbits) + form.bits(nbits, dim) <= bits
                assert form.by is not None


def test_vectors_are_kept_where_they_fit():
    assert kept_type(128 * 8 + 32, 128, "l2", True) == "uint8"
    assert kept_type(128 * 8 + 31, 128, "l2", True) is None
    assert kept_type(128 * 16 + 32, 128, "l2", False) == "float16"
    assert kept_type(128 * 8 + 32, 128, "l2", False) is None
    assert kept_type(128 * 8 + 32, 128, "cosine", False) == "int8"


@pytest.fixture
def small_grid(monkeypatch, tmp_path):
    monkeypatch.setenv("ANNVQ_DATA", str(tmp_path))
    monkeypatch.setattr(grid, "GRID", (("product", 4, "auto"), ("residual", 4, "uint8"), ("product", 2, "auto")))


def test_the_best_are_tried_in_other_forms(small_grid, x, tmp_path):
    choice = choose(x, bits=24, n=10**6, nq=100, threads=1, seconds=600)
    assert choice.for_n == 10**6
    labels = [c.label for c in choice.candidates]
    assert labels[:3] == ["product 6x4", "residual 4x4 + uint8 norm", "product 12x2"]
    assert "residual 4x4 + uint8 norm, in lists of residuals" in labels
    assert "residual 2x4 + uint8 norm, re-ranked by all 4 stages" in labels
    assert "product 6x4, in lists" in labels
    assert "3 of 3 codes and" in choice.effort()
    for c in choice.candidates:
        assert c.bits_per_vector == 24
        for name, shown in (("10-recall@10", c.recall), ("recall@1", c.recall_at_1)):
            f = c.predicted[name]
            assert 0 <= f.low <= f.value <= f.high <= 1
            assert f.value < shown + 0.02
    if lookup_cost() is None:  # the generic level, whose look-ups are not timed
        assert all(c.search_us_at_n is None for c in choice.candidates)
    else:
        more = {c.label: c.search_us_at_n - c.search_us for c in choice.candidates}
        assert min(more.values()) > 0
        assert more["product 6x4, in lists"] < more["product 6x4"] / 3
    held = json.loads(json.dumps(choice.to_dict()))
    assert (
        held["recommended"]["predicted"]["10-recall@10"]["value"] == choice.recommended.predicted["10-recall@10"].value
    )
    said = choice.prediction()
    assert said.startswith("At n = 1,000,000 (predicted, from ")
    assert f"# {said}" in recipe_text(choice).splitlines()
    page = webpage.page(choice)
    assert page.sections[0].columns["predicted"].title == "10-recall@10 at n = 1,000,000 (predicted)"
    assert said in page.lead
    assert webpage.report(choice, tmp_path / "page.html") > 0
    assert choice.table().row_count == len(labels)


def test_time_that_is_left_predicts_from_more_vectors(small_grid, x, tmp_path):
    asked = {"bits": 24, "n": 10**6, "nq": 100, "threads": 1, "sample": 1500, "keep": tmp_path / "kept"}
    choice = choose(x, **asked, seconds=600)
    best = choice.recommended
    assert best.predicted_from == 800 + 1500
    assert best in choice.candidates
    assert best in choice.front
    others = [c for c in choice.candidates if c is not best]
    assert {c.predicted_from for c in others} == {800}
    assert "(predicted, from 2,300)" in choice.prediction()
    again = choose(x, **asked, seconds=600)
    assert again.recommended == best
    assert again.recommended.predicted == best.predicted
    hurried = choose(x, bits=24, n=10**6, nq=100, threads=1, sample=1500, seconds=1e-6)
    assert hurried.recommended.predicted_from == hurried.n


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_further_vectors_are_not_those_of_the_sample(metric):
    x = np.random.default_rng(0).integers(1, 100, (3000, 3)).astype(np.float32)
    x[:, 0] = np.arange(1, 3001)
    further = sampling.Further(x, metric, 2000, 3)
    assert len(further) == 1000
    data = sampling.split(x, metric, 2000, 100, 3)
    sample = np.concatenate([data.base, data.learn, data.queries])
    for count in (300, 1000):
        more = further.take(count)
        assert more.shape == (count, 3)
        whole = np.unique(np.concatenate([sample, more]), axis=0)
        assert len(whole) >= 0.99 * (len(sample) + count)
    if metric == "l2":
        assert set(whole[:, 0]) == set(x[:, 0])
    x[:, 1:] = np.nan  # what cannot be used is left out, as nobody has asked for it
    assert sampling.Further(x, metric, 2000, 3).take(1000).shape == (0, 3)


def test_a_query_may_take_only_so_long():
    def candidate(recall, us):
        return Candidate(
            "product", (8,), None, "l2", 8, 8, recall, recall, 1.0, 1.0, 1.0, 10.0, 1.0,
            figure=Figure(recall), search_us_at_n=us,
        )  # fmt: skip

    front = [candidate(0.6, 900.0), candidate(0.5, 90.0), candidate(0.4, 9.0)]
    assert recommend(front, Asked())[0] is front[0]
    assert recommend(front, Asked(query_us=100.0))[0] is front[1]
    chosen, reason = recommend(front, Asked(query_us=1.0))
    assert chosen is front[2]
    assert reason.startswith("The quickest: none takes 1 µs a query or less.")


class Seen(Observer):
    def __init__(self):
        self.now, self.earlier = [], []

    def finished(self, point, row, *, measured):
        (self.now if measured else self.earlier).append(point.label)


def test_a_choice_goes_on_where_it_was_stopped(small_grid, x, tmp_path, monkeypatch):
    asked = {"bits": 24, "n": 10**6, "nq": 100, "threads": 1, "seconds": 600, "keep": tmp_path / "kept"}
    whole = choose(x, **asked, observer=(first := Seen()))
    assert not first.earlier
    again = choose(x, **asked, observer=(second := Seen()))
    assert not [label for label in second.now if "bits" not in label]
    assert second.earlier[: len(first.now)] == first.now
    assert again.recommended == whole.recommended
    assert again.recommended.predicted == whole.recommended.predicted
    # Of a run that was stopped some rows are there; what needs the codes of these learns them anew.
    path = tmp_path / "kept" / "results.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:2]))
    third = choose(x, **asked, observer=(watch := Seen()))
    assert watch.earlier == first.now[:2]
    assert [c.label for c in third.candidates] == [c.label for c in whole.candidates]
    assert all(c.predicted for c in third.candidates)
    # Others are measured anew.
    choose(x, **asked | {"seed": 1}, observer=(other := Seen()))
    assert not other.earlier
    choose(x, **asked, fresh=True, observer=(anew := Seen()))
    assert not anew.earlier


def test_everything_is_measured_where_time_does_not_matter(small_grid, x, monkeypatch):
    monkeypatch.setattr(halving, "_SCREEN", replace(halving._SCREEN, learn=130, base=300))
    choice = choose(x, bits=24, nq=100, threads=1, seconds=1e-9, exhaustive=True)
    assert {c.stage for c in choice.candidates} == {"measured"}
    assert (choice.n, choice.for_n) == (1700, 3000)


def test_what_was_chosen_in_lists_is_built(small_grid, x, tmp_path):
    choice = choose(x, bits=24, n=10**6, nq=100, threads=1, seconds=600, query_us=1e-3)
    (tmp_path / "c.toml").write_text(recipe_text(choice))
    recipe = load_recipe(tmp_path / "c.toml")
    index = make_index(recipe, 24, n=len(x), metric="l2").fit(x).add(x)
    index.save(tmp_path / "i.annvq")
    assert len(load_index(tmp_path / "i.annvq")) == len(x)
    assert index.bits_per_vector == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be"),
        ({"query_us": 0}, "query_us must be a positive number, got 0"),
        ({"query_us": True}, "query_us must be a positive number, got True"),
        ({"recall": 1.1}, r"recall must be a number in \(0, 1\], got 1.1"),
        ({"recall": True}, r"recall must be a number in \(0, 1\], got True"),
    ],
)
def test_bad_arguments_are_named(arguments, message, x):
    with pytest.raises(ValueError, match=message):
        choose(x, bits=24, **arguments)
