"""Libraries that a serving process can do without: what is said where one that is needed is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

PACKAGES = {
    "torch": "torch",
    "faiss": "faiss-cpu",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "h5py": "h5py",
    "tqdm": "tqdm",
    "threadpoolctl": "threadpoolctl",
    "matplotlib": "matplotlib",
    "requests": "requests",
    "safetensors": "safetensors",
    "PIL": "Pillow",
    "click": "click",
    "rich": "rich",
    "tomli": "tomli",
}
"""What is imported by which name, and the package that has it. ``pip install annvq`` brings all."""


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Where a library is missing within this block (or function), say in one line that ``what`` needs it.

    Raises:
        ImportError: one of :data:`PACKAGES` is not installed; the message names it and what to install.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        name = (e.name or "").partition(".")[0]
        if name not in PACKAGES:
            raise
        raise ImportError(
            f"{what} needs {name}, which is not installed: pip install {PACKAGES[name]}", name=name
        ) from None
