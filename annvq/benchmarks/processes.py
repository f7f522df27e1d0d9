"""Engines in processes of their own: each at its SIMD level, none in another's way.

Requests and answers are JSON, one a line, on the standard input and output of ``python -m MODULE ENGINE``. The SIMD
level is the environment's (``ANNVQ_SIMD``, ``FAISS_SIMD_LEVEL``), which both libraries read when they are loaded.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

_PIPE = subprocess.PIPE
# What sets the SIMD level of each engine; FAISS before 1.13 has another variable than later ones.
_LEVELS = {"annvq": ("ANNVQ_SIMD",), "faiss": ("FAISS_SIMD_LEVEL", "FAISS_OPT_LEVEL")}


class Worker:
    """A worker process: ``module`` serves, ``engine`` is its argument; ``level`` forces the SIMD level, None leaves the
    choice to the library.

    Raises:
        RuntimeError: it does not start, as where the processor lacks the level.
    """

    def __init__(self, module: str, engine: str, level: str | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in _LEVELS["faiss"]}
        if level is not None:
            environment |= dict.fromkeys(_LEVELS.get(engine, ()), level)
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, engine],
            stdin=_PIPE, stdout=_PIPE, stderr=self._said, text=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        self.engine = engine
        self.level = str(self._read()["level"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["it said nothing"]
            self.close()
            raise RuntimeError(f"the {self.engine} process ended: {said[-1].strip()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.engine}: {reply['error']}")
        return reply

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request; RuntimeError where it failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()


def serve(level: str, answer: Callable[[dict[str, Any]], dict[str, Any]], pipe: Any) -> None:
    """The other end of a :class:`Worker`: answer requests until standard input ends."""

    def send(reply: dict[str, Any]) -> None:
        pipe.write(json.dumps(reply) + "\n")
        pipe.flush()

    send({"level": level})
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


def faiss_levels(only: str | None = None) -> list[str | None]:
    """The SIMD levels at which FAISS is measured on this kind of processor, those it lacks among them."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return [None]
    return [only] if only else ["AVX2", "AVX512"]
