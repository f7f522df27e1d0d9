"""Libraries that a serving process can do without: what is said where one that is needed is missing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

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
    "pyarrow": "pyarrow",
    "datasets": "datasets",
    "langchain_core": "langchain-core",
    "llama_index": "llama-index-core",
    "haystack": "haystack-ai",
    "txtai": "txtai",
    "ray": "ray",
}
"""What is imported by which name, and the package that has it. ``pip install annvq`` brings those before pyarrow; the
others come with extras."""


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


def on_first_use(namespace: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` (PEP 562), so that its names load on first use.

    Args:
        namespace: ``globals()`` of the package.
        homes: the module below the package that has each name; a name that is its own home is the module itself.
    """
    package = namespace["__name__"]

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needed_by(f"{package}.{name}"):
            value: Any = import_module(f"{package}.{homes[name]}")
            if homes[name] != name:
                value = getattr(value, name)
        namespace[name] = value
        return value

    return load
