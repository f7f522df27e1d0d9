"""What this installation runs with: versions, SIMD level, threads."""

import platform
import sys
from importlib import metadata

from annvq import kernels
from annvq._version import __version__
from annvq.threads import get_num_threads, usable_cores

_LIBRARIES = ("numpy", "torch", "faiss-cpu", "h5py", "scikit-learn", "safetensors", "tqdm")


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
    found = {"annvq": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def config() -> dict[str, object]:
    """The facts behind :func:`show_config`, as benchmark rows store them."""
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
