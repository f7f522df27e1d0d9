"""After codes were measured: other forms of the best of them, and recall predicted at as many vectors as are asked for.

Forms reuse what was learned where they can: only lists, short codes that are scanned before others, and codes of
residuals are learned anew.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from annvq.benchmarks.rivals.annvq import FlatCode, bounded
from annvq.benchmarks.statistics import Figure
from annvq.benchmarks.vectors import Vectors
from annvq.choosing.forms import PLAIN, Second, forms_of, quantizer_keys, split_forms
from annvq.choosing.grid import Candidate
from annvq.choosing.measuring import CRITERION, Measuring, Stage, figures
from annvq.choosing.predicting import DEPTH, NAMES, curve_of, order_of, predicted
from annvq.datasets import exact_neighbors
from annvq.indexes import FlatIndex, IVFIndex, RerankIndex, default_nlist
from annvq.kernels import lookup_cost
from annvq.quantizers import Quantizer, make
from annvq.threads import get_num_threads
from annvq.types import F32, I64

_BEST = 2  # codes that have their forms measured
_PREDICTING = 1.0  # seconds that a prediction is expected to take before one was made
_FIXED = 2.0  # seconds that every form takes
_LISTS = 1e-9  # seconds of learning lists, for each, for each dimension of each learn vector


class FormCode:
    """A code in one of its forms, as benchmarks measure it.

    Args:
        c: with its form.
        learned: the quantizer where it is learned already; of stages that of them all.
        n: vectors that lists are made for.
        effort: share of the iterations of ``fit``'s own recipes.
    """

    def __init__(self, c: Candidate, learned: Quantizer | None, n: int, seed: int, effort: float) -> None:
        self.c, self.learned, self.seed, self.effort = c, learned, seed, effort
        stages = isinstance(c.form.by, Second) and c.form.by.refines == "stages"
        self.whole = learned if stages else None
        self.quantizer = learned if learned is not None and not stages else self._new(c.kind, c.nbits)
        norm: Any = c.norm or "auto"
        self.scanned: FlatIndex | IVFIndex
        if c.form.lists:
            self.scanned = IVFIndex(self.quantizer, default_nlist(n), c.metric, norm, residual=c.form.residual)
        else:
            self.scanned = FlatIndex(self.quantizer, c.metric, norm)
        self.index: FlatIndex | IVFIndex | RerankIndex = self.scanned
        self.config = c.identity

    def _new(self, kind: str, nbits: tuple[int, ...]) -> Quantizer:
        free = {"norm_free": True} if self.c.norm_free else {}
        return make(kind, dim=self.c.dim, **quantizer_keys(nbits), **free)

    def fit(self, learn: F32) -> None:
        by: Any = "decoded" if self.c.decoded else self.c.form.by
        if by == "decoded":  # which codes are to know of
            self.index = RerankIndex(self.scanned, by)
        if self.whole is None:
            recipe = bounded(self.quantizer, effort=self.effort)
            self.index.fit(learn, seed=self.seed, recipe=recipe)
        if self.index is not self.scanned or by is None:
            return
        if isinstance(by, Second):
            self.index = RerankIndex(self.scanned, self.whole or self._of_the_rest(by, learn), refines=by.refines)
        else:
            self.index = RerankIndex(self.scanned, by)
        self.index.fit(learn, seed=self.seed)

    def _of_the_rest(self, second: Second, learn: F32) -> Quantizer:
        """The second code, of what the first leaves over."""
        q = make(second.kind, dim=self.c.dim, **quantizer_keys(second.nbits))
        rest = learn - self.quantizer.decode(self.quantizer.encode(learn))
        return q.fit(rest, seed=self.seed, recipe=bounded(q, effort=self.effort))

    def add(self, x: F32) -> None:
        self.index.add(x)

    def decode(self, start: int, stop: int) -> F32:
        rows: F32 = self.index.reconstruct(np.arange(start, stop))
        return rows

    def search(self, queries: F32, k: int) -> I64:
        ids: I64 = self.index.search(queries, k)[1]
        return ids

    def bits_per_vector(self) -> float:
        return self.index.bits_per_vector

    def wmops(self) -> float | None:
        return (self.whole or self.quantizer).costs().wmops()


class Finals:
    """What is measured once the codes of the grid were.

    Args:
        work: that measured them.
        n: vectors that recall is predicted among.
    """

    def __init__(self, work: Measuring, n: int) -> None:
        self.work, self.n = work, n
        self._truth: tuple[I64, F32] | None = None
        self._took = _PREDICTING  # seconds of the last prediction

    def run(self) -> list[Candidate]:
        """Every code of the grid as it was left, those of the last stage with predictions, and forms of the best of
        these, as far as there is time."""
        work = self.work
        if work.last is None:
            return list(work.result.values())
        stage = work.last[0]
        there = [c for c, figures in work.result.items() if figures.stage == stage.name and figures.error is None]
        ranked = sorted(there, key=lambda c: -(work.result[c].recall or 0.0))
        forms = []
        for at, c in enumerate(ranked):
            self._predict(c, needed=at == 0)
            if at < _BEST and stage.name == "measured":
                forms += self._forms(c)
        if stage.name == "measured" and ranked:
            forms += self._splits(ranked[0])
        return [*work.result.values(), *forms]

    # -- predictions ---------------------------------------------------------------------------------------------

    def _predict(self, c: Candidate, *, needed: bool) -> None:
        """Give the result of a code of the grid its prediction, where there is time or it is ``needed``."""
        work = self.work
        stage, data = self._last()
        figures = work.result[c]
        timed = replace(figures, search_us_at_n=self._query_us(figures))
        what = {"predicted": self.n, **work.what(c, data, stage.effort)}
        row = work.kept.find(what)
        if row is None and (needed or self._time_for(self._took)):
            code = self._code(c)
            if code is not None:
                row = self._prediction(code, {CRITERION: figures.recall, "recall@1": figures.recall_at_1})
                work.kept.keep(what, row)
        work.result[c] = replace(timed, predicted=_figures_of(row))

    def _prediction(self, code: Any, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Recall among n vectors of what was measured, as a row holds it."""
        begun = self.work.elapsed()
        _, data = self._last()
        depth = min(DEPTH, len(data.base))
        if self._truth is None:
            self._truth = exact_neighbors(data.base, data.queries, depth, metric=data.metric)
        curve = curve_of(order_of(code.index, data.queries, depth), *self._truth, len(data.base), self.work.seed)
        found = predicted(curve, self.n, {name: measured.get(name) for name in NAMES})
        self._took = self.work.elapsed() - begun
        return {"predicted": {name: [f.value, f.low, f.high] for name, f in found.items()}}

    def _query_us(self, c: Candidate) -> float | None:
        """About what a query takes among n vectors: look-ups of all codes at the speed of this machine, or lists that
        grow in number and size as the root of n."""
        m, cost = len(self._last()[1].base), lookup_cost()
        if c.search_us is None or cost is None or self.n <= m:
            return c.search_us if cost is not None else None
        if c.form.lists:
            return c.search_us * math.sqrt(self.n / m)
        return c.search_us + (self.n - m) * len(c.nbits) * cost / 1e3 / get_num_threads()

    # -- forms ---------------------------------------------------------------------------------------------------

    def _forms(self, c: Candidate) -> list[Candidate]:
        """Other forms of a code of the grid."""
        figures = self.work.result[c]
        encoding = 1e-6 * (figures.encode_us or 0.0) * len(self._last()[1].base)
        found = []
        for nbits, form in forms_of(c.kind, c.nbits, c.norm, c.norm_free, c.metric, self.n):
            made = replace(c, nbits=nbits, form=form)
            if form.residual:
                found.append(self._form(made, None, self.work.expects(c)))
            else:
                found.append(self._form(made, c, encoding))
        return [f for f in found if f is not None]

    def _splits(self, c: Candidate) -> list[Candidate]:
        """Forms that share out the bits between a scanned product code and what re-ranks."""
        data = self._last()[1]
        whole = bool((data.base == np.clip(np.rint(data.base), 0, 255)).all())
        found = []
        for nbits, form in split_forms(self.work.bits, c.dim, c.metric, whole, self.n):
            made = Candidate("product", nbits, None, c.metric, c.dim, form=form)
            needed = self.work.expects(replace(made, form=PLAIN))
            if isinstance(form.by, Second):
                needed += self.work.expects(replace(made, nbits=form.by.nbits, form=PLAIN))
            found.append(self._form(made, None, needed))
        return [f for f in found if f is not None]

    def _form(self, made: Candidate, of: Candidate | None, needed: float) -> Candidate | None:
        """A form, measured; None where there is no time, or it failed.

        Args:
            of: the code of the grid that has learned what it needs; None: it learns itself.
            needed: seconds, lists and predictions aside.
        """
        work = self.work
        stage, data = self._last()
        what = {"predicted": self.n, **work.what(made, data, stage.effort)}
        lists = _LISTS * default_nlist(len(data.base)) * made.dim * len(data.learn) if made.form.lists else 0.0
        code = None
        if work.kept.find(what) is None:
            if not self._time_for(needed + lists + _FIXED + self._took):
                return None
            source = None if of is None else self._code(of)
            if of is not None and source is None:
                return None
            code = FormCode(made, None if source is None else source.quantizer, len(data.base), work.seed, stage.effort)
        learned = 0.0 if of is None else work.result[of].train_s or 0.0

        def measure() -> dict[str, Any]:
            assert code is not None  # else there is a row
            row = work.measure(code, data)
            if row.get("stopped"):
                return row
            return {**row, "train_s": row["train_s"] + learned, **self._prediction(code, row)}

        work.expect(1)
        row = work.row(made.label, what, measure)
        if row.get("stopped") or row["error"] is not None:
            return None
        measured = replace(made, stage=stage.name, **figures(row))
        return replace(measured, predicted=_figures_of(row), search_us_at_n=self._query_us(measured))

    # -- what there is -------------------------------------------------------------------------------------------

    def _last(self) -> tuple[Stage, Vectors]:
        assert self.work.last is not None  # something was measured
        return self.work.last

    def _time_for(self, seconds: float) -> bool:
        return self.work.elapsed() + seconds <= self.work.seconds

    def _code(self, c: Candidate) -> FlatCode | None:
        """A code of the grid with the base vectors of the last stage; learned anew where it was measured by an earlier
        run, if there is time."""
        work = self.work
        if c not in work.codes:
            stage, data = self._last()
            figures = work.result[c]
            if not self._time_for((figures.train_s or 0.0) + 1e-6 * (figures.encode_us or 0.0) * len(data.base)):
                return None
            code = work.new_code(c, stage.effort)
            code.fit(data.learn)
            code.add(data.base)
            work.codes[c] = code
        found: Any = work.codes[c]
        return found


def _figures_of(row: Mapping[str, Any] | None) -> dict[str, Figure] | None:
    return None if row is None else {name: Figure(*values) for name, values in row["predicted"].items()}
