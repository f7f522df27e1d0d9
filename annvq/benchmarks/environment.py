"""Where a measurement was made, and how many threads it may use."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

import annvq
from annvq.facts import config
from annvq.threads import get_num_threads, set_num_threads


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The git commit of annvq's checkout, ``+changes`` where files differ from it; None outside one."""
    root = Path(annvq.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def facts(threads: int) -> dict[str, Any]:
    """What every row says of its origin: processor, SIMD level, threads, versions, commit."""
    found = config()
    kept = {key: found[key] for key in ("cpu", "platform", "simd", "cores", "versions")}
    return {**kept, "threads": threads, "commit": commit()}


@contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """Let annvq, PyTorch, FAISS and every BLAS use exactly ``threads`` threads; restore them afterwards."""
    import faiss
    import torch

    before = get_num_threads(), torch.get_num_threads(), faiss.omp_get_max_threads()
    with threadpool_limits(limits=threads):
        set_num_threads(threads)
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        try:
            yield
        finally:
            set_num_threads(before[0])
            torch.set_num_threads(before[1])
            faiss.omp_set_num_threads(before[2])


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What ``call`` returns, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def repeated(call: Callable[[], Any], repeats: int, *, budget_s: float) -> tuple[Any, list[float]]:
    """The last result of up to ``repeats`` calls and the seconds each took.

    At least one call is made; no further one is started once ``budget_s`` seconds are spent.
    """
    result, seconds = timed(call)
    times = [seconds]
    while len(times) < repeats and sum(times) < budget_s:
        result, seconds = timed(call)
        times.append(seconds)
    return result, times
