"""Engines in processes of their own: each at its SIMD level, none in another's way.

Requests and answers are JSON, one a line, on the standard input and output of ``python -m COMMAND``. A process first
says which SIMD level it runs at, and which it could. The level is the environment's (``ANNVQ_SIMD``,
``FAISS_SIMD_LEVEL``), which libraries read when they are loaded; where the environment names none, it is the library's
own choice.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

_log = logging.getLogger("annvq.benchmarks")
_PIPE = subprocess.PIPE
_PATIENCE_S = 5.0  # for a process that has closed its output to end


class EndedError(RuntimeError):
    """A process ended where an answer was awaited; the message says how, and what it said last."""


class Worker:
    """A worker process.

    Attributes:
        level: the SIMD level in use, as the library says.
        levels: those that the library has here and is not kept from by the environment, lowest first.

    Args:
        engine: whose process it is, for messages.
        level: forces the SIMD level, which must be one that the library has here; None leaves the choice to the
            environment and the library.
        command: a module that serves, and its arguments.
        variables: the environment variables that force the level.

    Raises:
        EndedError: it does not start.
    """

    def __init__(
        self, engine: str, level: str | None = None, *, command: Sequence[str], variables: Sequence[str] = ()
    ) -> None:
        environment = dict(os.environ)
        if level is not None:
            environment |= dict.fromkeys(variables, level)
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (close())
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=_PIPE, stdout=_PIPE, stderr=self._said, text=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        self.engine = engine
        self.level = level or "its own"
        self._ended: str | None = None
        hello = self._read("at its start")
        self.level, self.levels = str(hello["level"]), tuple(map(str, hello["levels"]))

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    @property
    def ended(self) -> str | None:
        """How the process ended; None while it lives. One that has ended answers no more: start another."""
        if self._ended is None and self._process.poll() is not None:
            self._end("while it was not asked")
        return self._ended

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            EndedError: the process ended, now or earlier.
            RuntimeError: the request failed; the process goes on.
        """
        if self.ended is not None:
            raise EndedError(self.ended)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what has ended cannot be written to: reading says why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._read(f"in request {request.get('do')!r}")

    def _read(self, when: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):  # nothing, or an answer cut short
            raise EndedError(self._end(when))
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.engine}: {reply['error']}")
        return reply

    def _end(self, when: str) -> str:
        """Notice that the process has ended, and say how."""
        ended = f"the {self.engine} process (SIMD level {self.level}) ended {when}: {self._how()}"
        self.close()
        self._ended = ended
        return ended

    def _how(self) -> str:
        """How the process ended, and the last line that it wrote to standard error."""
        try:
            code = self._process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            how = "it closed its output"
        else:
            how = _signal(-code) if code < 0 else f"exit code {code}"
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return f"{how}; its last words: {lines[-1].strip()}" if lines else f"{how}; it said nothing"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # a request that it did not live to read
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()
        self._ended = self._ended or f"the {self.engine} process was closed"


W = TypeVar("W", bound=Worker)


class Pool(Generic[W]):
    """Workers by engine and SIMD level, started when first asked for; one that has ended is started anew.

    Args:
        start: of an engine and a level, or None, makes a worker.
    """

    def __init__(self, start: Callable[[str, str | None], W]) -> None:
        self._start = start
        self._workers: dict[tuple[str, str | None], W] = {}

    def worker(self, engine: str, level: str | None = None) -> W:
        """The worker of this engine and level; None: of the level that the library takes by itself.

        Raises:
            EndedError: it does not start.
            RuntimeError: the library has no such level here.
        """
        if level is not None:
            own = self.worker(engine)
            level = _among(own, level)
            if level == own.level:
                return own
        held = self._workers.get((engine, level))
        if held is None or held.ended is not None:
            self._workers[engine, level] = held = self._start(engine, level)
        return held

    def at_every_level(self, engine: str) -> list[W]:
        """A worker at each SIMD level that the library has here; without those at which it does not start.

        Raises:
            EndedError: it starts at none.
        """
        found: dict[str, W] = {}
        for level in self.worker(engine).levels:
            try:
                worker = self.worker(engine, level)
            except EndedError as error:
                _log.warning("%s", error)
            else:
                found.setdefault(worker.level, worker)
        return list(found.values()) or [self.worker(engine)]

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


def _among(worker: Worker, wanted: str) -> str:
    """``wanted`` as the worker's library spells it."""
    for level in worker.levels:
        if level.lower() == wanted.lower():
            return level
    raise RuntimeError(f"{worker.engine} has no SIMD level {wanted} on this machine; it has {', '.join(worker.levels)}")


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    text = signal.strsignal(number)
    return f"{name} ({text})" if text else name


def serve(level: str, levels: Sequence[str], answer: Callable[[dict[str, Any]], dict[str, Any]], pipe: Any) -> None:
    """The other end of a :class:`Worker`: answer requests until standard input ends."""

    def send(reply: dict[str, Any]) -> None:
        pipe.write(json.dumps(reply) + "\n")
        pipe.flush()

    send({"level": level, "levels": list(levels)})
    for line in sys.stdin:
        try:
            send(answer(json.loads(line)))
        except Exception as error:
            send({"error": f"{type(error).__name__}: {error}"})


def own_pipe() -> Any:
    """The pipe that was standard output; whatever a library prints goes to standard error from now on."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe
