"""What a query takes among more vectors than it was measured on, about."""

from annvq.bits import NORM_BITS
from annvq.choosing.grid import Candidate
from annvq.indexes import default_nlist
from annvq.kernels import lookup_cost
from annvq.threads import get_num_threads

_STEP = 5  # times as long as a look-up where nothing else is done takes each step of a search
_PROBED = 50  # lists, about


def query_us(c: Candidate, m: int, n: int) -> float | None:
    """Microseconds of a query among ``n`` vectors of a code that was measured on ``m``: what it took there, and the
    steps that more vectors take, at the speed of this machine; None where that is not known."""
    cost = lookup_cost()
    if c.search_us is None or cost is None:
        return None
    more = _steps(c, max(n, m)) - _steps(c, m)
    return c.search_us + more * _STEP * cost / 1e3 / get_num_threads()


def _steps(c: Candidate, n: int) -> float:
    """Look-ups of codes, and numbers compared with centroids, of a query among ``n`` vectors."""
    width = sum(c.nbits) / 8 + NORM_BITS[c.norm] / 8
    if not c.form.lists:
        return n * width
    lists = default_nlist(n)
    return lists * c.dim + _PROBED * n / lists * width
