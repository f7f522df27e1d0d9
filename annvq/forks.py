"""Locks and kept values that hold up where a process forks while its other threads work.

Of those threads nothing is left in the child but what they held: a lock of theirs would never be free again, and what
it guards might be half changed. So a fork waits until no thread holds a :class:`Lock`, and none is taken meanwhile.
(The kernels' own mutexes do the same, see ``csrc/common/mutex.h``.)
"""

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from annvq.types import Self

T = TypeVar("T")


class _Gate:
    """What a thread passes through for as long as it holds locks; closed while the process forks."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._open(0)

    def _open(self, inside: int) -> None:
        self._changed = threading.Condition()
        self._inside = inside  # threads
        self._closed = False

    @property
    def _depth(self) -> int:
        """Locks that this thread holds or waits for."""
        return getattr(self._own, "depth", 0)

    def enter(self) -> None:
        if not self._depth:
            with self._changed:
                self._changed.wait_for(lambda: not self._closed)
                self._inside += 1
        self._own.depth = self._depth + 1

    def leave(self) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def before(self) -> None:
        own = int(self._depth > 0)
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)  # another thread may be forking
            self._closed = True
            self._changed.wait_for(lambda: self._inside == own)

    def after_in_parent(self) -> None:
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    def after_in_child(self) -> None:
        self._open(int(self._depth > 0))


_gate = _Gate()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_gate.before, after_in_parent=_gate.after_in_parent, after_in_child=_gate.after_in_child)


class Lock:
    """A reentrant lock, free in the child of a fork unless the thread that forked held it. Use it in ``with``."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        _gate.enter()
        try:
            self._lock.acquire()
        except BaseException:
            _gate.leave()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self._lock.release()
        finally:
            _gate.leave()


class made_once(Generic[T]):  # noqa: N801
    """``functools.cached_property`` without a lock, as which Python has it from 3.12 on: threads that ask at the same
    moment may each make the value."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Self | T:
        if instance is None:
            return self
        made: T = instance.__dict__.setdefault(self._name, self._make(instance))
        return made
