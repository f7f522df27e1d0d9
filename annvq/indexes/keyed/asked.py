"""What is asked by keys, whatever holds the vectors: keys become ids, and ids that are found become keys."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from annvq.arrays import check_vectors, host_array
from annvq.indexes.keyed.keymap import KeyMap
from annvq.indexes.keyed.kinds import Keys, key_list
from annvq.indexes.within import Within
from annvq.types import I64, Array

KeyFilter: TypeAlias = "Keys | Callable[[npt.NDArray[Any]], Any] | None"
"""Which keys a search may return: these keys, of which those that are not there match nothing, or a function that is
called once with the stored keys (n,), objects, and returns which are allowed, bool (n,)."""


class AskedByKeys:
    """An index whose vectors are known by keys.

    Attributes:
        index: has the vectors, under ids.
        keys: says which keys these stand for.
    """

    index: Any
    keys: KeyMap

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self.index.dim

    @property
    def metric(self) -> str:
        """``"l2"``, ``"ip"`` or ``"cosine"``."""
        return self.index.metric

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def _named(self, x: Array, keys: Keys, what: str) -> list[Any]:
        """A key for each of ``x``, once that is known to be (n, d) of a trained index."""
        self.index.require_fitted(what)
        x = check_vectors(x, self.dim)
        return key_list(keys, int(x.shape[0]))

    def _known(self, keys: Keys) -> I64:
        """The ids of keys, all of which are there."""
        listed = key_list(keys)
        ids = self.keys.ids_of(listed)
        if (ids < 0).any():
            raise ValueError(f"keys must be there; not there: {[listed[i] for i in np.flatnonzero(ids < 0)[:5]]}")
        return ids

    def reconstruct(self, keys: Keys) -> Any:
        """Decoded vectors (n, d) of stored keys; ValueError where one is not there."""
        return self.index.reconstruct(self._known(keys))

    # -- searching -----------------------------------------------------------------------------------------------

    def search(self, queries: Array, k: int, *, filter: KeyFilter = None, **settings: Any) -> tuple[Any, Any]:
        """The ``k`` nearest stored vectors of each query.

        Args:
            queries: (nq, d).
            k: neighbours per query.
            filter: the keys that may be returned, see :data:`KeyFilter`.
            settings: what else the index's own ``search`` takes: ``nprobe``, ``shortlist``, …

        Returns:
            distances (nq, k) float32, as the index gives them, and keys (nq, k), a NumPy array of objects; places that
            stay empty hold +inf and None.
        """
        distances, keys = self._found(lambda allowed: self.index.search(queries, k, filter=allowed, **settings), filter)
        return distances, keys

    def search_within(self, queries: Array, radius: float, *, filter: KeyFilter = None, **settings: Any) -> Within:
        """All stored vectors whose distance to a query is at most ``radius``.

        Args:
            queries, radius: see :meth:`Index.search_within <annvq.indexes.contract.Index.search_within>`.
            filter, settings: as for :meth:`search`.

        Returns:
            (lims, distances, ids) as the index gives them; in place of ids the keys (lims[-1],), a NumPy array of
            objects.
        """
        find = self.index.search_within
        return Within(*self._found(lambda allowed: find(queries, radius, filter=allowed, **settings), filter))

    def _found(self, find: Callable[[Any], tuple[Any, ...]], filter: KeyFilter) -> tuple[Any, ...]:
        """What ``find`` finds, with keys in place of its last part, ids.

        Where other threads have removed so much meanwhile that keys were freed, it is asked again: ids of that time may
        have none, or since :meth:`reset` another.
        """
        listed = filter if filter is None or callable(filter) else key_list(filter, name="filter")
        while True:
            freed = self.keys.freed
            *others, ids = find(_allowed_ids(self.keys, listed))
            numbers = host_array(ids)
            keys, known = self.keys.known_keys_of(numbers)
            if freed != self.keys.freed:
                continue
            if (numbers[~known] >= 0).any():
                raise ValueError(
                    f"index holds vectors without a key: add and remove them by the {type(self).__name__} alone"
                )
            return *others, keys


def _allowed_ids(stored: KeyMap, filter: KeyFilter) -> Any:
    """A filter of keys as one of the ids that ``stored`` gives them."""
    if filter is None:
        return None
    if not callable(filter):
        ids = stored.ids_of(filter, "filter")
        return ids[ids >= 0]

    def judge(ids: I64) -> npt.NDArray[np.bool_]:
        keys, known = stored.known_keys_of(ids)
        n = np.count_nonzero(known)
        answer = np.asarray(filter(keys[known]))
        if answer.dtype != np.bool_ or answer.shape != (n,):
            found = f"{answer.dtype} {answer.shape}"
            raise ValueError(f"filter must return bool of shape ({n},) for as many keys, got {found}")
        known[known] = answer
        return known

    return judge
