"""How long learning a code takes at the user's size, from what it took on the sample."""

from functools import lru_cache

from annvq.choosing.costs import Rows, lists_training, training
from annvq.choosing.forms import PLAIN, Second
from annvq.choosing.grid import Candidate
from annvq.indexes import default_nlist
from annvq.quantizers import make

_OTHER = 0.2  # seconds beside all that is estimated


def train_s_at(c: Candidate, train_s: float, rows: Rows, n: int) -> float:
    """Seconds that ``fit`` by itself takes to learn a code of the grid from ``n`` vectors.

    What it took on the sample is multiplied by what the estimates of :mod:`annvq.choosing.costs` say of both sizes, so
    the speed of this machine counts, and of the estimates only how they grow.

    Args:
        train_s: seconds that learning it from ``rows`` took.
    """
    return train_s * (training(c, _full(c.kind, n)) + _OTHER) / (training(c, rows) + _OTHER)


def form_train_s_at(c: Candidate, train_s: float, rows: Rows, n: int, *, learned: bool) -> float:
    """The same of what a form learns beside the code of the grid that it is a form of; ``learned``: that has been."""
    there = _form(c, _full(c.kind, n), default_nlist(n), learned)
    return train_s * (there + _OTHER) / (_form(c, rows, default_nlist(rows.base), learned) + _OTHER)


def _form(c: Candidate, rows: Rows, nlist: int, learned: bool) -> float:
    seconds = lists_training(nlist, c.dim, rows.learn) if c.form.lists else 0.0
    if learned:
        return seconds
    scanned = Candidate(c.kind, c.nbits, c.norm, c.metric, c.dim, norm_free=c.norm_free, form=PLAIN)
    seconds += training(scanned, rows)
    if isinstance(c.form.by, Second):
        seconds += training(Candidate(c.form.by.kind, c.form.by.nbits, None, c.metric, c.dim), rows)
    return seconds


def _full(kind: str, n: int) -> Rows:
    return Rows(min(n, _most_rows(kind)), n, 0, 1.0)


@lru_cache(maxsize=64)
def _most_rows(kind: str) -> int:
    """How many vectors ``fit`` learns from at most."""
    return make(kind, dim=16, M=4, nbits=2).default_recipe().max_rows
