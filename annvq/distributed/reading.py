"""Reading a sharded index: questions to all shards, each answered as of one moment, and answers put together."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.arrays import chunks
from annvq.distributed.calls import Answers, Asked, Replicas, shared
from annvq.distributed.folder import Folder
from annvq.distributed.forms import Form, scanned
from annvq.distributed.manifest import of_shard
from annvq.distributed.shard import Position
from annvq.indexes.filters import Allowed, Filter, most_allowed, resolve_filter
from annvq.indexes.ivf import IVFIndex
from annvq.indexes.rerank import RerankIndex
from annvq.indexes.within import Within, all_within
from annvq.kernels.store import PreparedAllowed
from annvq.types import F32, I32, I64

_PART = 64  # queries, at least, that a replica is asked where several share them
_OPTIMISTIC = 3  # times that a read which writes have overtaken is done again before it holds writes up


class Asking:
    """A read: until when, whether shards may be missing, and which were; these are not asked again."""

    def __init__(self, timeout: float, partial: bool = False) -> None:
        self.until, self.whole = time.monotonic() + timeout, not partial
        self.missing: dict[int, str] = {}
        self.positions: set[Position] = set()
        """As of which writes shards have answered."""

    @property
    def left(self) -> float:
        """Seconds for the next question. Where shards may be missing it is half of what there is: waiting for one must
        not leave the others without time for what is asked next."""
        return (self.until - time.monotonic()) / (1 if self.whole else 2)


class Reader:
    """What searches need of a sharded index.

    Args:
        empty: the index without vectors.
        replicas: whom to ask.
        folder: says what is acknowledged, which every answer has in it; who writes to it holds ``writing``.
    """

    def __init__(self, empty: Form, replicas: Replicas, folder: Folder) -> None:
        self.empty, self.replicas, self.folder = empty, replicas, folder
        self.shards = len(replicas.actors)
        self.writing = threading.RLock()

    def ask(self, method: str, arguments: Mapping[Asked, tuple[Any, ...]], asking: Asking) -> Answers:
        """Ask the shards that ``arguments`` are for, and again where a write came between their answers."""
        for _ in range(_OPTIMISTIC):
            answers = self._asked_once(method, arguments, asking)
            if len({position for position, _ in answers.given.values()}) <= 1:
                break
        else:
            with self.writing:
                answers = self._asked_once(method, arguments, asking)
        asking.positions |= {position for position, _ in answers.given.values()}
        return answers

    def _asked_once(self, method: str, arguments: Mapping[Asked, tuple[Any, ...]], asking: Asking) -> Answers:
        asked = {call: given for call, given in arguments.items() if call.shard not in asking.missing}
        answers = self.replicas.ask(method, self.folder.state.position, asked, asking.left, whole=asking.whole)
        asking.missing |= answers.missing
        return answers

    def _of_ids(self, method: str, ids: I64, out: npt.NDArray[Any], asking: Asking) -> npt.NDArray[Any]:
        """What the shards of ``ids`` (n,) say of them, written into ``out`` (n, …); others are not asked."""
        masks = {number: of_shard(ids, number, self.shards) for number in np.unique(ids % self.shards).tolist()}
        answers = self.ask(method, {Asked(number): (ids[mask],) for number, mask in masks.items()}, asking)
        for asked, (_, found) in answers.given.items():
            out[masks[asked.shard]] = found
        return out

    def contains(self, ids: I64, asking: Asking) -> npt.NDArray[np.bool_]:
        """Which of ``ids`` (n,) are stored; for as long as :attr:`writing` is held."""
        return self._of_ids("contains", ids, np.zeros(len(ids), np.bool_), asking)

    def reconstruct(self, ids: I64, asking: Asking) -> F32:
        """Decoded vectors (n, d) of ids; ValueError where one is not stored."""
        return self._of_ids("reconstruct", ids, np.empty((len(ids), self.empty.dim), np.float32), asking)

    def ids(self, asking: Asking) -> I64:
        answers = self.ask("ids", dict.fromkeys(map(Asked, range(self.shards)), ()), asking)
        return np.sort(np.concatenate([np.empty(0, np.int64), *(found for _, found in answers.given.values())]))

    def allowed(self, filter: Filter, asking: Asking) -> Allowed:
        """A filter as shards take it: a bitmap, or a list of ids."""
        resolved = resolve_filter(filter, lambda: self.ids(asking))
        return resolved.allowed if isinstance(resolved, PreparedAllowed) else resolved

    def _nearest(
        self,
        method: str,
        queries: F32,
        k: int,
        rest: Callable[[int, slice], tuple[Any, ...]],
        asking: Asking,
    ) -> tuple[F32, I64]:
        """The first ``k`` of what shards find for queries (nq, d), which are dealt out to replicas where they are many;
        ``rest`` says what a shard is told beside a part of them."""
        nq = len(queries)
        ends = np.linspace(0, nq, 1 + max(1, min(self.replicas.count, nq // _PART))).astype(int).tolist()
        parts = [slice(start, stop) for start, stop in itertools.pairwise(ends)]
        sent = [shared(queries[part]) for part in parts]
        arguments = {
            Asked(shard, number): (sent[number], *rest(shard, part))
            for number, part in enumerate(parts)
            for shard in range(self.shards)
        }
        answers = self.ask(method, arguments, asking)
        found = []
        for number, part in enumerate(parts):
            theirs = [
                one
                for asked, (_, one) in answers.given.items()
                if asked.part == number and asked.shard not in answers.missing
            ]
            found.append(merged(theirs, part.stop - part.start, k))
        if len(found) == 1:
            return found[0]
        distances, ids = (np.concatenate(column) for column in zip(*found, strict=True))
        return distances, ids

    def find(
        self,
        queries: F32,
        k: int,
        allowed: Allowed,
        nprobe: int | None,
        asking: Asking,
        wanted: int | None = None,
    ) -> tuple[F32, I64]:
        """What :meth:`StoreIndex.find` of one process finds."""
        sent, n, empty = shared(allowed), self.folder.state.n, scanned(self.empty)

        def scan(rows: F32, probes: int | None) -> tuple[F32, I64]:
            return self._nearest("find", rows, k, lambda *_: (k, sent, probes), asking)

        if not n:
            return merged([], len(queries), k)
        if not isinstance(empty, IVFIndex):
            if nprobe is not None:
                raise ValueError(f"nprobe must be None where a {type(empty).__name__} is scanned, got {nprobe}")
            return scan(queries, None)
        return empty.in_lists(scan, queries, wanted or k, most_allowed(allowed, n), n, nprobe)

    def ranked(
        self, queries: F32, k: int, depth: int, allowed: Allowed, nprobe: int | None, asking: Asking
    ) -> tuple[I64, tuple[F32, I64]]:
        """Shortlists (nq, ``depth`` or as many as there are vectors), and what :meth:`RerankIndex.search` of one
        process finds on them: both as of one moment, of the same shards."""
        for _ in range(_OPTIMISTIC):
            asking.positions, missing = set(), len(asking.missing)
            answer = self._ranked_once(queries, k, depth, allowed, nprobe, asking)
            if len(asking.positions) <= 1 and len(asking.missing) == missing:
                return answer
        with self.writing:
            return self._ranked_once(queries, k, depth, allowed, nprobe, asking)

    def _ranked_once(
        self, queries: F32, k: int, depth: int, allowed: Allowed, nprobe: int | None, asking: Asking
    ) -> tuple[I64, tuple[F32, I64]]:
        assert isinstance(self.empty, RerankIndex)
        n = self.folder.state.n
        depth = min(depth, max(k, n))
        listed = np.empty((len(queries), depth), np.int64)
        distances, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for start, stop in chunks(len(queries), depth * 8):
            rows = queries[start:stop]
            found = listed[start:stop] = self.find(self.empty.seen(rows), depth, allowed, nprobe, asking, k)[1]
            if not n:
                distances[start:stop], ids[start:stop] = merged([], len(rows), k)
                continue

            def rest(shard: int, part: slice, found: I64 = found) -> tuple[Any, ...]:
                return _own(found[part], shard, self.shards), k

            distances[start:stop], ids[start:stop] = self._nearest("rank", rows, k, rest, asking)
        return listed, (distances, ids)

    def within(
        self,
        queries: F32,
        radius: np.floating[Any],
        allowed: Allowed,
        nprobe: int | None,
        shortlist: int | None,
        asking: Asking,
    ) -> Within:
        """What :meth:`StoreIndex.search_within` or :meth:`RerankIndex.search_within` of one process finds."""
        empty = scanned(self.empty)
        probes = empty.lists_within if nprobe is None else nprobe

        def there() -> int:
            most = most_allowed(allowed, self.folder.state.n)
            return most if shortlist is None else min(most, shortlist)

        def find(rows: F32, k: int) -> tuple[F32, I64]:
            if not isinstance(self.empty, RerankIndex):
                return empty.above_zero(self.find(rows, k, allowed, probes, asking))
            if shortlist is not None:
                return self.ranked(rows, k, max(1, there()), allowed, probes, asking)[1]
            sent = shared(allowed)
            return self._nearest("rank_all", rows, k, lambda *_: (k, sent, probes), asking)

        return all_within(find, queries, radius, there)


def _own(ids: I64, shard: int, shards: int) -> I64:
    """Those of ``ids`` (nq, s; −1 for none) that lie in a shard, (nq, as many as the most of a row), −1 behind them."""
    mine = (ids >= 0) & of_shard(ids, shard, shards)
    order = np.argsort(~mine, axis=1, kind="stable")[:, : max(1, int(mine.sum(1).max(initial=0)))]
    return np.take_along_axis(np.where(mine, ids, -1), order, 1)


def merged(parts: Sequence[tuple[F32, I32 | I64]], nq: int, k: int) -> tuple[F32, I64]:
    """The first ``k`` of what shards found, by (distance, id): distances and ids (nq, k), padded with +inf and −1."""
    if len(parts) == 1 and parts[0][1].shape[1] == k:
        return parts[0][0], parts[0][1].astype(np.int64, copy=False)
    padding = np.full((nq, k), np.inf, np.float32), np.full((nq, k), -1, np.int64)
    distances, ids = (np.concatenate(column, axis=1) for column in zip(*parts, padding, strict=True))
    last = np.where(ids < 0, np.iinfo(np.int64).max, ids)
    order = np.lexsort((last, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)
