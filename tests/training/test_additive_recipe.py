"""The default recipes of residual and additive codes against one another and in their parts."""

import numpy as np
import pytest

import annvq
from annvq.training import Alternate, BestOf, KMeans, Recipe, Refit
from annvq.training.alternating import Alternation


def correlated(seed, n=4000, d=16):
    mixing = np.random.default_rng(9).normal(size=(d // 4, d))
    return (np.random.default_rng(seed).normal(size=(n, d // 4)) @ mixing).astype(np.float32)


def error(quantizer, x):
    return float(((x - quantizer.decode(quantizer.encode(x))) ** 2).sum(1).mean())


@pytest.mark.parametrize("nbits", [3, 5])
def test_additive_codes_are_no_worse_than_residual_ones(nbits):
    learn, held = correlated(0), correlated(1)
    additive, residual = (annvq.make(kind, dim=16, M=4, nbits=nbits).fit(learn) for kind in ("additive", "residual"))
    assert error(additive, held) <= error(residual, held) * 1.01


def test_best_of_keeps_the_better_end():
    learn, held = correlated(0), correlated(1)
    hot = Alternate(Alternation(iterations=3, rounds=1, temperature=3.0))
    good = Alternate(Alternation(iterations=40))

    def fitted(*parts):
        return annvq.AdditiveVQ(16, 3, 4).fit(learn, recipe=Recipe(parts))

    best = fitted(BestOf((hot, KMeans(5), good), finish=Refit(1)))
    assert error(best, held) <= min(error(fitted(KMeans(5)), held), error(fitted(hot), held))
    again = fitted(BestOf((hot, KMeans(5), good), finish=Refit(1)))
    np.testing.assert_array_equal(best.codebooks_copy(), again.codebooks_copy())
