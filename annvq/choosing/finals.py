"""After codes were measured: other forms of the best of them, and recall predicted at as many vectors as are asked for.

Forms reuse what was learned where they can: only lists, short codes that are scanned before others, and codes of
residuals are learned anew.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from annvq.benchmarks.results import Row
from annvq.benchmarks.rivals.annvq import FlatCode, IndexCode, bounded
from annvq.choosing.ahead import Ahead
from annvq.choosing.costs import lists_training
from annvq.choosing.forms import PLAIN, Second, forms_of, quantizer_keys, split_forms
from annvq.choosing.grid import Candidate
from annvq.choosing.learning import form_train_s_at
from annvq.choosing.measuring import Measuring, figures
from annvq.indexes import FlatIndex, IVFIndex, RerankIndex, default_nlist
from annvq.quantizers import Quantizer, make
from annvq.types import F32

_BEST = 2  # codes that have their forms measured
_LAST_SHARE = 0.06  # of the time is left to a closer prediction
_FIXED = 2.0  # seconds that every form takes


class FormCode(IndexCode):
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
        self.index = self.scanned
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

    def wmops(self) -> float | None:
        return (self.whole or self.quantizer).costs().wmops()


class Finals:
    """What is measured once the codes of the grid were.

    Args:
        work: that measured them.
        ahead: predicts what they will do.
    """

    def __init__(self, work: Measuring, ahead: Ahead) -> None:
        self.work, self.ahead = work, ahead
        self._rows: dict[str, Row] = {}  # predictions, by label
        self._made: dict[str, FormCode] = {}  # by label

    def run(self, *, forms: bool = True) -> list[Candidate]:
        """Every code of the grid as it was left, those of the last stage with predictions, and, where asked for,
        ``forms`` of the best of these, as far as there is time."""
        work = self.work
        if work.last is None:
            return list(work.result.values())
        stage = work.last[0]
        there = [c for c, figures in work.result.items() if figures.stage == stage.name and figures.error is None]
        ranked = sorted(there, key=lambda c: -(work.result[c].recall or 0.0))
        found = []
        for at, c in enumerate(ranked):
            self._predict(c, needed=at == 0)
            if forms and at < _BEST and stage.name == "measured":
                found += self._forms(c)
        if forms and stage.name == "measured" and ranked:
            found += self._splits(ranked[0])
        return [*work.result.values(), *found]

    def closer(self, c: Candidate) -> Candidate:
        """A code of :meth:`run`, its prediction made from more vectors where there is time."""
        what = {"closer": self.ahead.n, **self._what(c)}
        row = self.work.kept.find(what)
        if row is None and c.label in self._rows:
            planned = [p for p, figures in self.work.result.items() if figures.label == c.label]
            code = self._made.get(c.label) or next((self.work.codes.get(p) for p in planned), None)
            row = None if code is None else self.ahead.closer(c, code, self._rows[c.label]["kept"])
            if row is not None:
                self.work.kept.keep(what, row)
        return c if row is None else self.ahead.with_figures(c, row)

    def _what(self, c: Candidate) -> dict[str, Any]:
        assert self.work.last is not None  # something was measured
        stage, data = self.work.last
        return self.work.what(c, data, stage.effort)

    def _predict(self, c: Candidate, *, needed: bool) -> None:
        """Give the result of a code of the grid its prediction, where there is time or it is ``needed``."""
        figures = self.work.result[c]
        what = {"predicted": self.ahead.n, **self._what(c)}
        row = self.work.kept.find(what)
        if row is None and (needed or self._time_for(self.ahead.took)):
            code = self._code(c)
            if code is not None:
                row = self.ahead.row(code, {c.criterion: figures.recall, "recall@1": figures.recall_at_1})
                self.work.kept.keep(what, row)
        if row is not None:
            self._rows[figures.label] = row
        self.work.result[c] = self.ahead.with_figures(figures, row)

    # -- forms ---------------------------------------------------------------------------------------------------

    def _forms(self, c: Candidate) -> list[Candidate]:
        """Other forms of a code of the grid."""
        figures = self.work.result[c]
        encoding = 1e-6 * (figures.encode_us or 0.0) * len(self.work.vectors.base)
        found = []
        for nbits, form in forms_of(c.kind, c.nbits, c.norm, c.norm_free, c.metric, self.ahead.n):
            made = replace(c, nbits=nbits, form=form)
            if form.residual:
                found.append(self._form(made, None, self.work.expects(c)))
            else:
                found.append(self._form(made, c, encoding))
        return [f for f in found if f is not None]

    def _splits(self, c: Candidate) -> list[Candidate]:
        """Forms that share out the bits between a scanned product code and what re-ranks."""
        base = self.work.vectors.base
        whole = bool((base == np.clip(np.rint(base), 0, 255)).all())
        found = []
        for nbits, form in split_forms(self.work.bits, c.dim, c.metric, whole, self.ahead.n):
            made = Candidate("product", nbits, None, c.metric, c.dim, form=form, k=c.k)
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
        work, data = self.work, self.work.vectors
        what = {"predicted": self.ahead.n, **self._what(made)}
        if work.kept.find(what) is None:
            nlist = default_nlist(len(data.base))
            lists = lists_training(nlist, made.dim, len(data.learn)) if made.form.lists else 0.0
            if not self._time_for(needed + lists + _FIXED + self.ahead.took):
                return None
            source = None if of is None else self._code(of)
            if of is not None and source is None:
                return None
            learned = None if source is None else source.quantizer
            self._made[made.label] = FormCode(made, learned, len(data.base), work.seed, what["effort"])
        before = 0.0 if of is None else work.result[of].train_s or 0.0

        def measure() -> Row:
            code = self._made[made.label]
            row = work.measure(code, data)
            if row.get("stopped"):
                return row
            return {**row, "train_s": row["train_s"] + before, **self.ahead.row(code, row)}

        work.expect(1)
        row = work.row(made.label, what, measure)
        if row.get("stopped") or row["error"] is not None:
            return None
        self._rows[made.label] = row
        later = form_train_s_at(made, row["train_s"] - before, work.last_rows, self.ahead.n, learned=of is not None)
        if of is not None:
            later += work.result[of].train_s_at_n or 0.0
        measured = replace(made, stage="measured", **figures(row, made.criterion), train_s_at_n=later)
        return self.ahead.with_figures(measured, row)

    # -- what there is -------------------------------------------------------------------------------------------

    def _time_for(self, seconds: float) -> bool:
        return self.work.elapsed() + seconds <= (1 - _LAST_SHARE) * self.work.seconds

    def _code(self, c: Candidate) -> FlatCode | None:
        """A code of the grid with the base vectors of the last stage; learned anew where it was measured by an earlier
        run, if there is time."""
        work, data = self.work, self.work.vectors
        if c not in work.codes:
            figures = work.result[c]
            if not self._time_for((figures.train_s or 0.0) + 1e-6 * (figures.encode_us or 0.0) * len(data.base)):
                return None
            code = work.new_code(c, self._what(c)["effort"])
            code.fit(data.learn)
            code.add(data.base)
            work.codes[c] = code
        found: Any = work.codes[c]
        return found
