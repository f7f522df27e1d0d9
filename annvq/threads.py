"""How many threads annvq's kernels and PyTorch use."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from annvq.forks import Lock

_threads: int | None = None
_lock = Lock()
_single, _torch_threads = 0, 1  # blocks of one_torch_thread under way; PyTorch's threads before the first


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads that annvq's kernels use."""
    return _threads if _threads is not None else usable_cores()


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in annvq's kernels, and in PyTorch, which trains annvq's quantizers: at once where that is
    loaded, else when annvq first trains with it.

    Raises:
        ValueError: ``n`` is not a positive integer.
    """
    global _threads
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a positive integer, got {n!r}")
    _threads = n
    use_in_torch()


def use_in_torch() -> None:
    """Tell PyTorch, if it is loaded, how many threads were asked for, if any were."""
    torch = sys.modules.get("torch")
    if torch is not None and _threads is not None:
        torch.set_num_threads(_threads)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let PyTorch use one thread for a while, in the whole process; blocks that overlap, in several threads, end with
    the last of them."""
    global _single, _torch_threads
    import torch

    with _lock:
        if not _single:
            _torch_threads = torch.get_num_threads()
            torch.set_num_threads(1)
        _single += 1
    try:
        yield
    finally:
        with _lock:
            _single -= 1
            if not _single:
                torch.set_num_threads(_torch_threads)


def _end_blocks() -> None:
    """In the child of a fork: blocks under way in other threads do not end there by themselves."""
    global _single
    if _single:
        import torch

        _single = 0
        torch.set_num_threads(_torch_threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_blocks)
