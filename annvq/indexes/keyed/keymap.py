"""Keys, each of which stands for an int64 id."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import positive_int
from annvq.forks import Lock
from annvq.indexes.ids import END_OF_IDS, check_distinct, check_ids, following_ids
from annvq.indexes.keyed.kinds import KINDS, Keys, key_list, require_valid, to_bytes
from annvq.indexes.keyed.rows import NamedRows
from annvq.types import I64, Array, Self


class KeyMap:
    """Keys of one type, each of which stands for an int64 id.

    Ids are given in ascending order, never one twice before :meth:`reset`. A key takes its bytes (UTF-8; 16 of a UUID)
    and 29 more, and while keys are added up to a quarter of that again for those to come. (A ``dict`` of str and int
    takes about 150.) What is removed is freed when it is half of all. Several threads may use one map.

    Args:
        kind: ``"str"``, ``"bytes"`` or ``"uuid"``; default: that of the first keys.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str | None = None) -> None:
        if kind is not None and kind not in KINDS:
            raise ValueError(f"kind must be {', '.join(map(repr, KINDS))} or None, got {kind!r}")
        self._lock = Lock()
        self._given = self._kind = kind
        self._rows, self._count, self._next_id = NamedRows.none(), 0, 0
        self._freed = 0

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str | None:
        """``"str"``, ``"bytes"`` or ``"uuid"``; None while nothing has said it."""
        return self._kind

    @property
    def next_id(self) -> int:
        """The id that the next key will have."""
        return self._next_id

    @property
    def freed(self) -> int:
        """How often ids have lost their keys for good: while this stays the same, :meth:`keys_of` knows every id that
        has had a key."""
        return self._freed

    @property
    def ids(self) -> I64:
        """A copy of the ids of all keys, ascending."""
        with self._lock:
            return self._rows.ids[self._rows.there]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._rows.nbytes

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: object) -> bool:
        return self._kind is not None and isinstance(key, KINDS[self._kind].type) and self.ids_of([key])[0] >= 0

    def __iter__(self) -> Iterator[Any]:
        """The keys, in the order of their ids, as they are now."""
        with self._lock:
            return iter(self.keys_of(self.ids).tolist())

    # -- look-ups ------------------------------------------------------------------------------------------------

    def ids_of(self, keys: Keys, name: str = "keys") -> I64:
        """The ids (n,) of keys; −1 for those that are not there.

        Raises:
            TypeError: no keys of this kind, or a single one.
        """
        with self._lock:
            return self._ids_at(self._rows.of_names(to_bytes(key_list(keys, name=name), self._kind, name)[1]))

    def _ids_at(self, rows: I64) -> I64:
        """The ids of rows (n,), −1 for −1."""
        return np.where(rows >= 0, self._rows.ids[rows], -1) if self._rows.n else rows

    def keys_of(self, ids: Array) -> npt.NDArray[Any]:
        """The keys of ids of any shape, an array of objects of the same; None where there is none.

        Of ids that have been removed the key may still be known, or not: see :attr:`freed`.
        """
        return self.known_keys_of(ids)[0]

    def known_keys_of(self, ids: Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """What :meth:`keys_of` gives, and which ids have a key."""
        asked = np.asarray(ids)
        out = np.full(asked.size, None, object)
        with self._lock:
            rows = self._rows.of_ids(asked.reshape(-1))
            known = rows >= 0
            if known.any():
                names = self._rows.names(rows[known])
                out[known] = np.fromiter(map(KINDS[str(self._kind)].from_bytes, names), object, len(names))
        return out.reshape(asked.shape), known.reshape(asked.shape)

    # -- changes -------------------------------------------------------------------------------------------------

    def assign(self, keys: Keys, ids: Array | None = None) -> I64:
        """Give new keys ids (n,): the next ones, or ``ids``, which ascend and come after all others.

        Raises:
            TypeError, ValueError: no keys of this kind, keys that repeat or are there, other ids; nothing has changed
                then.
        """
        return self._assigned(key_list(keys), ids, known=False)[0]

    def assign_or_find(self, keys: Keys) -> tuple[I64, int]:
        """The ids (n,) of keys, each once, new ones for those that are not there; and how many are new.

        Raises:
            TypeError, ValueError: no keys of this kind, or keys that repeat; nothing has changed then.
        """
        return self._assigned(key_list(keys), None, known=True)

    def _assigned(self, keys: list[Any], ids: Array | None, *, known: bool) -> tuple[I64, int]:
        with self._lock:
            kind, names = to_bytes(keys, self._kind, "keys")
            rows = self._rows.of_names(names)
            _require_new(keys, names, np.zeros(len(keys), np.bool_) if known else rows >= 0)
            out, new = self._ids_at(rows), np.flatnonzero(rows < 0)
            given = following_ids(self._next_id, len(new)) if ids is None else self._later(check_ids(ids, len(new)))
            if len(new):
                self._rows.append([names[i] for i in new.tolist()], given)
                self._kind, self._count, self._next_id = kind, self._count + len(new), int(given[-1]) + 1
            out[new] = given
            return out, len(new)

    def _later(self, ids: I64) -> I64:
        if (np.diff(ids, prepend=self._next_id - 1) <= 0).any():
            raise ValueError(f"ids must ascend, from at least {self._next_id}")
        return ids

    def take_back(self, n: int) -> None:
        """Undo the last :meth:`assign`, of ``n`` keys, whose ids nobody has used."""
        if not n:
            return
        with self._lock:
            self._next_id = int(self._rows.ids[-n])
            self._set(self._rows.kept(np.arange(self._rows.n) < self._rows.n - n))
            self._kind = self._kind if self._rows.n else self._given

    def remove(self, ids: Array) -> None:
        """Forget the keys of ids (n,).

        Raises:
            TypeError, ValueError: ids that have no key, or come twice; nothing has changed then.
        """
        with self._lock:
            gone = check_ids(ids, None)
            rows = self._rows.of_ids(gone)
            known = rows >= 0
            known[known] = self._rows.there[rows[known]]
            if not known.all():
                raise ValueError(f"ids must have keys; these have none: {gone[~known].tolist()[:5]}")
            if len(np.unique(gone)) < len(gone):
                raise ValueError("ids must differ from one another")
            self._rows.remove(rows)
            self._count -= len(rows)
            if 2 * self._count < self._rows.n:
                self._set(self._rows.kept(self._rows.there))

    def _set(self, rows: NamedRows) -> None:
        """Hold these rows in place of others."""
        self._rows, self._count = rows, int(np.count_nonzero(rows.there))
        self._freed += 1

    def reset(self) -> None:
        """Forget all keys; ids begin at 0 again."""
        with self._lock:
            self._set(NamedRows.none())
            self._kind, self._next_id = self._given, 0

    # -- files ---------------------------------------------------------------------------------------------------

    def to_stored(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Config and tensors of a file: ``keys.bytes`` (bytes,) uint8, all keys in a row; ``keys.ends`` (n,) int64,
        where each ends; ``keys.ids`` (n,) int64, left out where they are consecutive from ``first_id``."""
        with self._lock:
            data, ends, ids = self._rows.arrays(self._rows.there)
            config = {"kind": self._kind, "given": self._given, "next_id": self._next_id}
        tensors: dict[str, npt.NDArray[Any]] = {"keys.bytes": data, "keys.ends": ends}
        if len(ids) and (np.diff(ids) == 1).all():
            return config | {"first_id": int(ids[0])}, tensors
        return config, tensors | {"keys.ids": ids}

    @classmethod
    def from_stored(cls, config: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], *, verify: bool = True) -> Self:
        """The inverse of :meth:`to_stored`; takes its tensors out of ``tensors``.

        Args:
            verify: see whether keys differ from one another, which takes a while where there are many.

        Raises:
            KeyError, TypeError, ValueError: something is missing or does not fit.
        """
        kind, given = config["kind"], config["given"]
        if kind not in (None, *KINDS) or given not in (None, kind):
            raise ValueError(f"its keys are of kind {kind!r}, asked for {given!r}")
        data, ends, ids = tensors.pop("keys.bytes"), tensors.pop("keys.ends"), tensors.pop("keys.ids", None)
        if data.dtype != np.uint8 or ends.dtype != np.int64 or data.ndim != 1 or ends.ndim != 1:
            raise ValueError(f"its keys are {data.dtype} {data.shape}, their ends {ends.dtype} {ends.shape}")
        starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
        if (ends < starts).any() or int(ends[-1] if len(ends) else 0) != len(data):
            raise ValueError("its keys do not end where they should")
        require_valid(kind, data, starts, ends)
        if ids is None:
            first = positive_int(config["first_id"], "first_id", low=0, high=END_OF_IDS - len(ends))
            ids = following_ids(first, len(ends))
        if ids.dtype != np.int64 or ids.shape != ends.shape:
            raise ValueError(f"the ids of its {len(ends)} keys are {ids.dtype} {ids.shape}")
        check_distinct(ids)
        if (np.diff(ids) < 0).any():
            raise ValueError("the ids of its keys do not ascend")
        made, low = cls(given), int(ids[-1]) + 1 if len(ids) else 0
        made._kind, made._next_id = kind, positive_int(config["next_id"], "next_id", low=low, high=END_OF_IDS)
        made._set(NamedRows(np.array(data), np.array(ends), np.array(ids)))
        if verify and (twice := made._rows.repeated()):
            raise ValueError(f"its keys repeat: {twice[:5]}")
        return made


def _require_new(keys: list[Any], names: list[bytes], there: npt.NDArray[np.bool_]) -> None:
    """Raise ValueError where keys repeat or, as ``there`` (n,) says, are stored."""
    if not there.any() and len(set(names)) == len(names):
        return
    times: dict[bytes, int] = {}
    for name in names:
        times[name] = times.get(name, 0) + 1
    repeated = {n: key for key, n, old in zip(keys, names, there.tolist(), strict=True) if old or times[n] > 1}
    wanted = "be new and differ" if there.any() else "differ"
    raise ValueError(f"keys must {wanted} from one another; repeated: {list(repeated.values())[:5]}")
