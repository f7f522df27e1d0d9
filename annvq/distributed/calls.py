"""Asking shards, which are Ray actors: of several replicas the first that answers, until time is up."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, PendingCallsLimitExceeded, RayActorError, RayError, RayTaskError

from annvq.distributed.shard import Position, Shard
from annvq.errors import FormatError

_LARGE = 100_000  # bytes, from which on Ray would copy an argument for each call
_PAUSE = 0.05  # seconds before a replica that was dead or busy is asked again
MOST_PENDING = 64
"""Calls that may wait for one replica; further ones wait with their caller, for as long as its timeout allows."""


def shared(array: Any) -> Any:
    """An argument for several calls: a large array is put where all can read it."""
    return ray.put(array) if getattr(array, "nbytes", 0) > _LARGE else array


class MissingShardError(RuntimeError):
    """Shards gave no answer in time, from any replica.

    Attributes:
        shards: their numbers, with what was last heard of each.
    """

    def __init__(self, folder: object, shards: Mapping[int, str]) -> None:
        named = "; ".join(f"shard {shard}: {why}" for shard, why in sorted(shards.items()))
        super().__init__(f"{folder} gave no whole answer: {named}")
        self.shards = dict(shards)


class Asked(NamedTuple):
    """A call: to a shard, as one part of several that a question has, which go to replicas in turn."""

    shard: int
    part: int = 0


class Answers(NamedTuple):
    """What shards said, and of those that did not why, by their number."""

    given: dict[Asked, tuple[Position, Any]]
    missing: dict[int, str]


class _Call:
    """One call of a question, on its way to one replica after another."""

    def __init__(self, actors: Sequence[Any], asked: Asked, first: int, arguments: tuple[Any, ...], patience: float):
        self.asked = asked
        self._actors, self._next, self._arguments, self._patience = actors, first, arguments, patience
        self.why = "no answer in time"
        self.again_at = 0.0
        self.ref: Any = None

    def send(self, method: str, now: float) -> None:
        actor = self._actors[self._next % len(self._actors)]
        self._next += 1
        try:
            self.ref = getattr(actor, method).remote(*self._arguments)
            self.again_at = now + self._patience
        except (PendingCallsLimitExceeded, RayActorError) as e:
            self.failed(e, now)

    def failed(self, error: Exception, now: float) -> None:
        self.ref, self.again_at = None, now + _PAUSE
        self.why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class Replicas:
    """The actors of all shards.

    Args:
        folder: of the sharded index.
        shards, replicas: how many, and actors for each.
        threads: of each actor's kernels.
        options: for Ray's ``Actor.options``: resources, placement.
    """

    def __init__(self, folder: str, shards: int, replicas: int, threads: int, options: Mapping[str, Any]) -> None:
        # An actor that dies is made anew and reads its files. It does not redo calls: those go to another replica.
        made = ray.remote(Shard).options(
            **{"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0, "max_pending_calls": MOST_PENDING, **options}
        )
        self._folder, self.count = folder, replicas
        self.actors = [[made.remote(folder, shard, threads) for _ in range(replicas)] for shard in range(shards)]
        self._turn = 0

    def ask(
        self,
        method: str,
        position: Position,
        arguments: Mapping[Asked, tuple[Any, ...]],
        timeout: float,
        *,
        whole: bool = True,
    ) -> Answers:
        """Call a method of shards.

        A replica that dies, is busy, or takes longer than its share of the time is passed over for the next.

        Args:
            arguments: of each call.
            timeout: seconds for all.
            whole: whether all must answer.

        Raises:
            MissingShardError: some did not, and ``whole``.
            ValueError, TypeError: a shard refuses what it was asked.
        """
        if not self.actors:
            raise ValueError(f"{self._folder} is closed")
        self._turn += 1  # replicas take turns
        begun = time.monotonic()
        calls = [
            _Call(self.actors[asked.shard], asked, self._turn + asked.part, (position, *its), timeout / self.count)
            for asked, its in arguments.items()
        ]
        given: dict[Asked, tuple[Position, Any]] = {}
        while len(given) < len(calls) and (now := time.monotonic()) < begun + timeout:
            left = [call for call in calls if call.asked not in given]
            for call in left:
                if now >= call.again_at:
                    call.send(method, now)
            until = min(begun + timeout, *(call.again_at for call in left))
            for call, answer in _arrived(left, max(0.0, until - now)):
                if isinstance(answer, ValueError | TypeError) and not isinstance(answer, FormatError):
                    raise answer
                if isinstance(answer, Exception):
                    call.failed(answer, time.monotonic())
                else:
                    given[call.asked] = answer
        missing = {call.asked.shard: call.why for call in calls if call.asked not in given}
        if missing and whole:
            raise MissingShardError(self._folder, missing)
        return Answers(given, missing)

    def tell(self, position: Position) -> None:
        """Let all replicas read the log up to a position, without waiting; those that are dead or busy will when they
        are asked."""
        for actor in (actor for replicas in self.actors for actor in replicas):
            with contextlib.suppress(PendingCallsLimitExceeded, RayActorError):
                actor.process.remote(position)

    def close(self) -> None:
        """End the actors. They hold nothing that is not in files."""
        for actor in (actor for replicas in self.actors for actor in replicas):
            ray.kill(actor)
        self.actors = []


def _arrived(calls: Sequence[_Call], patience: float) -> Iterator[tuple[_Call, Any]]:
    """Calls that have come back, at least one of them unless time is up first, with the answer or an exception."""
    waiting = {call.ref: call for call in calls if call.ref is not None}
    if not waiting:
        time.sleep(patience)
        return
    for ref in ray.wait(list(waiting), num_returns=1, timeout=patience)[0]:
        try:
            yield waiting[ref], ray.get(ref, timeout=patience + 1)
        except RayTaskError as e:
            yield waiting[ref], e.cause if isinstance(e.cause, Exception) else e
        except (RayError, GetTimeoutError) as e:
            yield waiting[ref], e
