"""What is asked of a code beside bits: other k than ten, and how long learning may take."""

import json
from dataclasses import replace

import numpy as np
import pytest

from annvq.benchmarks.statistics import Figure
from annvq.choosing import Candidate, choose, measuring, recipe_text, webpage
from annvq.choosing.asked import Asked
from annvq.choosing.costs import Rows, training
from annvq.choosing.forms import PLAIN, Form, Second
from annvq.choosing.learning import form_train_s_at, train_s_at
from annvq.choosing.recommending import front_within, recommend, too_long
from annvq.datasets import exact_neighbors

# -- k ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 20, 100])
def test_codes_are_ranked_by_the_recall_that_was_asked_for(k, x, tmp_path, monkeypatch):
    made = {}
    plain = measuring.Measuring.new_code

    def kept(self, c, *rest):
        made[c] = (self, plain(self, c, *rest))
        return made[c][1]

    monkeypatch.setattr(measuring.Measuring, "new_code", kept)
    choice = choose(x, bits=24, k=k, nq=100, threads=1, seconds=600)
    name = "recall@1" if k == 1 else f"{k}-recall@{k}"
    for c, (work, code) in made.items():
        if work.result.get(c) not in choice.candidates:  # more bits than were asked for
            continue
        data = work.vectors
        # By brute force: which of the first k results are among the true k nearest.
        true, _ = exact_neighbors(data.base, data.queries, k)
        found = code.search(data.queries, k)
        shares = [len(set(f) & set(t)) / k for f, t in zip(found.tolist(), true.tolist(), strict=True)]
        assert work.result[c].recall == pytest.approx(np.mean(shares), abs=1e-9)
        np.testing.assert_allclose(work.result[c].figure.samples, shares)
        assert work.result[c].k == k
    assert len(made) >= 3
    assert name in choice.recommended.predicted
    assert name in choice.reason
    assert choice.prediction().partition("): ")[2].startswith(f"{name} ")
    columns = choice.table().columns
    assert columns[2].header == name
    assert [c.header for c in columns].count("recall@1") == 1
    page = webpage.page(choice)
    assert next(iter(c for c in page.sections[0].columns.values() if c.recall)).title == name
    assert webpage.report(choice, tmp_path / "page.html") > 0
    assert name in recipe_text(choice)
    held = json.loads(json.dumps(choice.to_dict()))
    assert held["asked"]["k"] == held["recommended"]["k"] == k


def test_another_k_is_measured_anew(x, tmp_path):
    asked = {"bits": 24, "nq": 100, "threads": 1, "seconds": 600, "keep": tmp_path / "kept"}
    ten = choose(x, **asked)
    five = choose(x, **asked, k=5)
    assert choose(x, **asked).recommended == ten.recommended
    assert choose(x, **asked, k=5).recommended == five.recommended
    assert {c.label: c.recall for c in five.candidates} != {c.label: c.recall for c in ten.candidates}


# -- learning -----------------------------------------------------------------------------------------------------


def candidate(recall, train_s_at_n, encode=1.0):
    return Candidate(
        "product", (8,), None, "l2", 8, 8, recall, recall, 1.0, 1.0, encode, 10.0, 1.0,
        figure=Figure(recall, recall - 0.001, recall + 0.001), stage="measured", train_s_at_n=train_s_at_n,
    )  # fmt: skip


def test_codes_that_take_too_long_to_learn_are_not_recommended():
    # The second is no part of the front of all: the first finds more and costs no more.
    slow, second, third = candidate(0.6, 500.0), candidate(0.5, 90.0, 2.0), candidate(0.4, 9.0)
    found = [third, slow, second]
    assert recommend(front_within(found, Asked()), Asked())[0] is slow
    asked = Asked(train_s=100.0)
    front = front_within(found, asked)
    assert front == [second, third]
    chosen, reason = recommend(front, asked)
    assert chosen is second
    assert reason.startswith("Highest recall of the codes measured")
    assert too_long(found, chosen, asked) == (
        "product 1x8 finds 0.600 ±.001, but learning it is expected to take about 500 s at n, where 100 s are allowed."
    )
    assert recommend(front_within(found, Asked(train_s=10.0)), Asked(train_s=10.0))[0] is third
    nothing = Asked(train_s=1.0)
    chosen, reason = recommend(front_within(found, nothing), nothing)
    assert chosen is third
    assert reason.startswith("The quickest to learn: none is learned in about 1 s at n.")
    assert too_long(found, chosen, nothing) == ""
    # What nobody knows is no reason against a code.
    assert front_within([replace(slow, train_s_at_n=None), third], asked)[0].recall == 0.6


def test_what_would_take_too_long_is_marked(x, tmp_path):
    whole = choose(x, bits=24, n=10**6, nq=100, threads=1, seconds=600)
    assert all(c.train_s_at_n > c.train_s for c in whole.candidates if c.form == PLAIN)
    times = sorted(c.train_s_at_n for c in whole.candidates)
    between = (times[0] + times[-1]) / 2
    choice = choose(x, bits=24, n=10**6, nq=100, threads=1, seconds=600, train_s=between)
    late = [c for c in choice.candidates if c.train_s_at_n > between]
    marks = dict(zip(choice.table().columns[1]._cells, choice.table().columns[0]._cells, strict=True))
    assert {label for label, mark in marks.items() if "×" in mark} == {c.label for c in late}
    assert choice.recommended not in late
    assert not set(choice.front) & set(late)
    assert f"×: learning is expected to take more than {between:g} s" in choice.table().caption
    page = webpage.page(choice)
    stages = [line.values["stage"].shown for line in page.sections[0].lines]
    assert sum("× too long to learn" in stage for stage in stages) == len(late)
    assert choice.learning() in page.lead
    seconds = choice.recommended.train_s_at_n
    assert (f"{seconds:,.0f} s (predicted)" if seconds >= 1 else "less than a second") in choice.learning()
    none = choose(x, bits=24, n=10**6, nq=100, threads=1, seconds=600, train_s=1e-6)
    assert none.reason.startswith("The quickest to learn: none is learned in about 1e-06 s at n.")


CODE = Candidate("product", (8,) * 8, None, "l2", 64)
KINDS = ("product", "rotated-product", "principal-product", "residual", "additive", "conditional")


@pytest.mark.parametrize("kind", KINDS)
def test_learning_is_scaled_from_the_sample(kind):
    c = replace(CODE, kind=kind)
    rows = Rows(8000, 10_000, 500, 0.5)
    # As long as on the sample where it is the same.
    assert train_s_at(c, 7.0, replace(rows, effort=1.0), 8000) == pytest.approx(7.0)
    times = [train_s_at(c, 7.0, rows, n) for n in (8000, 20_000, 60_000)]
    assert 7 < times[0] < times[1] < times[2]
    assert train_s_at(c, 14.0, rows, 20_000) == pytest.approx(2 * times[1])
    # No more than fit looks at.
    assert train_s_at(c, 7.0, rows, 10**6) == train_s_at(c, 7.0, rows, 10**8)
    ratio = training(c, Rows(20_000, 0, 0, 1.0)) / training(c, rows)
    assert 0.5 < times[1] / (7 * ratio) < 1.01  # less where it takes no time to speak of


def test_learning_of_forms_counts_what_they_learn():
    rows = Rows(8000, 10_000, 500, 0.5)
    lists = replace(CODE, form=Form(lists=True))
    # Lists alone: as many as is usual, of as many vectors as there are for each.
    one, more = (form_train_s_at(lists, 1.0, rows, n, learned=True) for n in (10_000, 10**6))
    assert one == pytest.approx(10_000 / 8000, rel=0.2)
    assert more > 30
    anew = form_train_s_at(replace(CODE, form=Form(lists=True, residual=True)), 1.0, rows, 10**6, learned=False)
    assert 1 < anew < more
    rest = replace(CODE, form=Form(by=Second("product", (8,) * 8, "rest")))
    assert form_train_s_at(rest, 1.0, rows, 10**5, learned=False) == pytest.approx(
        train_s_at(CODE, 1.0, rows, 10**5), rel=0.1
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be"),
        ({"k": 101}, ValueError, "k must be at most 100, got 101"),
        ({"k": 2.5}, TypeError, "k must be"),
        ({"train_s": 0}, ValueError, "train_s must be a positive number, got 0"),
        ({"train_s": "1"}, ValueError, "train_s must be a positive number, got '1'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message, x):
    with pytest.raises(error, match=message):
        choose(x, bits=24, **arguments)
