"""What codes that were measured on a sample will do among as many vectors as are asked for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from annvq.benchmarks.statistics import Figure
from annvq.choosing.grid import Candidate
from annvq.choosing.measuring import Measuring
from annvq.choosing.predicting import Curve, curve_of, depth_of, kept_shares, order_of, predicted
from annvq.choosing.sampling import Further
from annvq.choosing.speeds import query_us
from annvq.datasets import exact_neighbors
from annvq.types import F32, I64

_FIRST = 1.0  # seconds that a prediction is expected to take before one was made
_SHARE = 0.7  # of the time that is left goes to more vectors
_WORTHWHILE = 0.5  # fewer than so many times the sample's vectors say little more
_MOST_NUMBERS = 1 << 28  # of more vectors in memory


class Ahead:
    """Recall and the time of a query among as many vectors as were asked about, of codes that ``work`` measured.

    Args:
        work: that measured them.
        further: vectors that are not in the sample.

    Attributes:
        took: seconds that the next prediction is expected to take.
    """

    def __init__(self, work: Measuring, further: Further) -> None:
        self.work, self.n, self.further = work, work.asked.n, further
        self.k, self.depth = work.asked.k, depth_of(work.asked.k)
        self.took = _FIRST
        self._truth: tuple[I64, F32] | None = None
        self._truth_took = 0.0

    def row(self, code: Any, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Recall of a code that holds the base vectors of the last stage, as a row holds it.

        Args:
            code: with an ``index``.
            measured: its recall by its own search, by name.
        """
        data, begun = self.work.vectors, self.work.elapsed()
        if self._truth is None:
            self._truth = exact_neighbors(data.base, data.queries, min(self.depth, len(data.base)), metric=data.metric)
            self._truth_took = self.work.elapsed() - begun
        begun = self.work.elapsed()
        curve = self._curve(code, self._truth, len(data.base))
        kept = kept_shares(curve, measured)
        self.took = self.work.elapsed() - begun
        return self._read_off(curve, kept)

    def _curve(self, code: Any, truth: tuple[I64, F32], n: int) -> Curve:
        found = order_of(code.index, self.work.vectors.queries, truth[0].shape[1])
        return curve_of(found, *truth, n, self.work.seed, self.k)

    def _read_off(self, curve: Curve, kept: Mapping[str, float]) -> dict[str, Any]:
        figures = predicted(curve, self.n, kept)
        values = {name: [f.value, f.low, f.high] for name, f in figures.items()}
        return {"predicted": values, "kept": dict(kept), "from": int(curve.sizes[0])}

    def closer(self, c: Candidate, code: Any, kept: Mapping[str, float]) -> dict[str, Any] | None:
        """A row from more vectors than the sample has, as many as there is time for, which ``code`` then holds, too;
        None where that would say little more. ``kept`` is that of the first row."""
        work, data = self.work, self.work.vectors
        each = 1e-6 * (c.encode_us or 0.0) + self._truth_took / len(data.base)  # seconds a vector
        time = _SHARE * (work.seconds - work.elapsed()) - self.took
        most = min(time / max(each, 1e-9), _MOST_NUMBERS / c.dim, len(self.further), self.n)
        if most < _WORTHWHILE * len(data.base):
            return None
        more = self.further.take(int(most))
        code.add(more)
        base = np.concatenate([data.base, more])
        truth = exact_neighbors(base, data.queries, min(self.depth, len(base)), metric=data.metric)
        return self._read_off(self._curve(code, truth, len(base)), kept)

    def with_figures(self, c: Candidate, row: Mapping[str, Any] | None) -> Candidate:
        """A measured code with what a row says, and about what a query takes."""
        timed = replace(c, search_us_at_n=query_us(c, len(self.work.vectors.base), self.n))
        if row is None:
            return timed
        figures = {name: Figure(*values) for name, values in row["predicted"].items()}
        return replace(timed, predicted=figures, predicted_from=row["from"])
