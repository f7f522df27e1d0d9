"""Codes can be scored by NumPy alone from what is exported: the functions of the guide do it."""

import re
from pathlib import Path

import numpy as np
import pytest

import annvq

GUIDE = Path(__file__).parents[2] / "docs" / "indexes.md"


@pytest.fixture(scope="module")
def guide():
    """Names that the guide's code defines."""
    code = next(c for c in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "def score" in c)
    names = {"np": np}
    exec(code, names)
    return names


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("norm", ["uint8", "float32"])
def test_scores_are_those_of_the_index(guide, table_kind, small, metric, norm):
    q, x = small(table_kind, nbits=(2, 5, 3))
    paid = metric == "l2" and q.needs_norm
    index = annvq.FlatIndex(q, metric, norm if paid else None).fit(x).add(x)
    codes, norms, ids, _ = index.export()
    codes = q.from_rows(q.to_rows(codes))
    view = q.scan_view()
    luts, bias = view.tables(x[:6], metric)
    if paid and norm == "uint8":
        luts, norms = luts + view.norm_term.table_offsets(), view.norm_term.levels[norms]
    scores = guide["score"](luts, bias, codes, norms)
    order = np.lexsort((np.broadcast_to(ids, scores.shape), scores))
    distances, found = index.search(x[:6], len(x))
    np.testing.assert_array_equal(found, ids[order])
    scores = np.take_along_axis(scores, order, 1)
    np.testing.assert_array_equal(distances, np.maximum(scores, 0) if metric == "l2" else scores)


def test_norm_free_codes_need_their_tables_alone(guide, small):
    q, x = small("residual", norm_free=True)
    index = annvq.FlatIndex(q).add(x)
    codes, norms, ids, _ = index.export()
    assert norms is None
    scores = guide["score"](*q.tables(x[:6], "l2"), codes)
    order = np.lexsort((np.broadcast_to(ids, scores.shape), scores))
    np.testing.assert_array_equal(index.search(x[:6], len(x))[1], ids[order])


def test_tables_can_be_made_of_the_codebooks(guide, table_kind, small):
    q, x = small(table_kind, nbits=(2, 5, 3))
    books = q.scan_view().books()
    made = guide["products"](books.split(), books.starts, x[:6])
    luts, bias = q.tables(x[:6], "ip")
    assert made.shape == luts.shape
    assert not bias.any()
    np.testing.assert_array_equal(np.isinf(made), np.isinf(luts))
    finite = np.isfinite(luts)
    np.testing.assert_allclose(made[finite], luts[finite], rtol=1e-4, atol=1e-4 * np.abs(luts[finite]).max())
