"""The fewest bytes that find enough: by a curve that is known, and on vectors."""

import math
from dataclasses import dataclass

import pytest
from scipy.special import ndtr

from annvq.choosing import choose, recipe_text, webpage
from annvq.choosing.fewest import fewest_bytes
from annvq.indexes.recipes import load_recipe, make_index


@dataclass(frozen=True)
class Made:
    size: int
    reached: float


class Known:
    """Recall by a curve, and a clock that each look takes some of."""

    def __init__(self, curve, ahead, seconds=60.0):
        self.curve, self.ahead, self.seconds = curve, ahead, seconds
        self.sizes, self.given = [], []

    def at(self, size, seconds):
        self.sizes.append(size)
        self.given.append(seconds)
        self.seconds -= seconds
        return Made(size, self.curve(size))

    def scout(self, size):
        self.seconds -= 0.5
        return self.curve(self.ahead * size)

    def found(self, wanted, most=512):
        made = fewest_bytes(self.at, self.scout, wanted, most, lambda: self.seconds)
        assert [m.size for m in made] == self.sizes
        return min((m.size for m in made if m.reached >= wanted), default=None)


def smooth(rise, middle):
    return lambda size: float(ndtr(rise * math.log2(size / middle)))


@pytest.mark.parametrize("rise", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("middle", [3, 10, 40])
@pytest.mark.parametrize("ahead", [0.7, 0.9])
@pytest.mark.parametrize("wanted", [0.3, 0.7, 0.9])
def test_hardly_more_than_the_fewest_are_found(rise, middle, ahead, wanted):
    curve = smooth(rise, middle)
    known = Known(curve, ahead)
    fewest = next((size for size in range(1, 513) if curve(size) >= wanted), None)  # one after another
    found = known.found(wanted)
    if fewest is None:
        assert found is None
        assert max(known.sizes) > 128
    else:
        assert fewest <= found <= max(fewest + 1, math.ceil(1.07 * fewest))
    assert len(known.sizes) == len(set(known.sizes)) <= 5
    assert sum(known.given) <= 60


def test_codes_that_are_at_odds_with_the_curve_are_looked_for_upwards():
    """Nothing that was tried reaches it at first, though product codes seemed to."""
    known = Known(lambda size: 0.5 if size < 60 else 0.8, 1.0)
    known.scout = lambda size: 0.9 if size >= 16 else 0.1
    assert 60 <= known.found(0.7) < 120
    assert known.sizes[0] < 20


def test_bounds_are_kept():
    assert Known(lambda size: 0.99, 1.0).found(0.5) == 1
    never = Known(lambda size: 0.2, 1.0)
    assert never.found(0.5, most=6) is None
    assert max(never.sizes) <= 6
    hurried = Known(smooth(0.6, 10), 0.8, seconds=1e-9)
    hurried.found(0.9)
    assert len(hurried.sizes) == 1


def test_a_recall_alone_is_a_budget(x, tmp_path):
    choice = choose(x, recall=0.5, nq=100, threads=1, seconds=600)
    tried = dict(choice.tried)
    assert choice.bits == 8 * min(size for size, recall in tried.items() if recall >= 0.5)
    assert max((recall for size, recall in tried.items() if 8 * size < choice.bits), default=0.0) < 0.5
    assert choice.reached >= 0.5
    assert choice.recommended.expected >= 0.5
    assert choice.recommended.bits_per_vector == choice.bits
    said = choice.said()[0]
    assert said.startswith(
        f"{choice.bits // 8} bytes are the fewest of those tried that are enough for 10-recall@10 0.5"
    )
    assert all(f"{size} bytes {recall:.3f}" in said for size, recall in tried.items())
    assert choice.to_dict()["tried"] == choice.tried
    assert said in webpage.page(choice).lead
    (tmp_path / "r.toml").write_text(recipe_text(choice))
    assert make_index(load_recipe(tmp_path / "r.toml"), 24, n=3000, metric="l2").bits_per_vector == choice.bits


def test_what_no_code_reaches_is_said(x):
    choice = choose(x, recall=1.0, n=10**9, nq=100, threads=1, seconds=600)
    assert choice.said()[0].startswith("None is enough for 10-recall@10 1; expected at most: ")
    assert max(dict(choice.tried)) == 30  # ten bits a dimension
    assert "it takes more bits" in choice.reason
    with pytest.raises(ValueError, match="give one of bits, bytes_per_vector and memory"):
        choose(x)


def test_budgets_that_were_looked_at_are_kept(x, tmp_path):
    asked = {"recall": 0.5, "nq": 100, "threads": 1, "seconds": 600, "keep": tmp_path / "kept"}
    first = choose(x, **asked)
    again = choose(x, **asked)
    assert again.tried == first.tried
    assert again.recommended == first.recommended
