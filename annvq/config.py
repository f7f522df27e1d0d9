"""What this installation runs with: versions, SIMD level, threads."""

import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

_threads: int | None = None
_lock = threading.Lock()
_single, _torch_threads = 0, 1  # blocks of one_torch_thread under way; PyTorch's threads before the first

_LIBRARIES = ("numpy", "torch", "faiss-cpu", "h5py", "scikit-learn", "safetensors", "tqdm")


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads that annvq's kernels use."""
    return _threads if _threads is not None else usable_cores()


def set_num_threads(n: int) -> None:
    """Use ``n`` threads in annvq's kernels, and in PyTorch, which trains annvq's quantizers.

    Raises:
        ValueError: ``n`` is not a positive integer.
    """
    global _threads
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a positive integer, got {n!r}")
    _threads = n
    import torch

    torch.set_num_threads(n)


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


def cpu_name() -> str:
    """The processor's name as the operating system gives it."""
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def library_versions() -> dict[str, str]:
    """Installed versions of annvq and of the libraries it stands on; ``"missing"`` where one is not installed."""
    from annvq import __version__

    found = {"annvq": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def config() -> dict[str, object]:
    """The facts behind :func:`show_config`, as benchmark rows store them."""
    from annvq import kernels

    return {
        "versions": library_versions(),
        "cpu": cpu_name(),
        "platform": platform.platform(),
        "simd": kernels.simd_level(),
        "simd_available": kernels.available_levels(),
        "threads": get_num_threads(),
        "cores": usable_cores(),
    }


def show_config() -> None:
    """Print versions, SIMD level (in use and available) and threads."""
    facts = config()
    versions = facts.pop("versions")
    assert isinstance(versions, dict)
    lines = [f"{name:<16}{version}" for name, version in versions.items()]
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        lines.append(f"{name:<16}{shown}")
    sys.stdout.write("\n".join(lines) + "\n")
