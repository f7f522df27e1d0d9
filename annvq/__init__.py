"""annvq: approximate nearest-neighbour search on learned vector quantization.

Axis names used throughout: ``n`` base vectors, ``nq`` queries, ``d`` (``dim``) dimension, ``M`` codebooks,
``K`` entries per codebook (``2**nbits``), ``k`` neighbours asked for.

Names load on first use, so that ``import annvq`` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from annvq._version import __version__
from annvq.optional import needed_by

if TYPE_CHECKING:
    from annvq import complexity, datasets, training
    from annvq.facts import show_config
    from annvq.indexes import FlatIndex, IVFIndex, PreparedFilter, RerankIndex, load_index
    from annvq.interop.faiss import from_faiss, to_faiss
    from annvq.quantizers import (
        AdditiveVQ,
        LinearMap,
        PrincipalAdditiveVQ,
        PrincipalProductVQ,
        ProductAdditiveVQ,
        ProductVQ,
        ResidualVQ,
        RotatedProductVQ,
        Rotation,
        Transformed,
        from_codebooks,
        load_quantizer,
        make,
    )
    from annvq.threads import get_num_threads, set_num_threads

_HOME = {
    "show_config": "facts",
    "set_num_threads": "threads",
    "get_num_threads": "threads",
    "ProductVQ": "quantizers",
    "ResidualVQ": "quantizers",
    "AdditiveVQ": "quantizers",
    "PrincipalAdditiveVQ": "quantizers",
    "PrincipalProductVQ": "quantizers",
    "ProductAdditiveVQ": "quantizers",
    "RotatedProductVQ": "quantizers",
    "Transformed": "quantizers",
    "Rotation": "quantizers",
    "LinearMap": "quantizers",
    "load_quantizer": "quantizers",
    "make": "quantizers",
    "FlatIndex": "indexes",
    "IVFIndex": "indexes",
    "PreparedFilter": "indexes",
    "RerankIndex": "indexes",
    "load_index": "indexes",
    "from_faiss": "interop.faiss",
    "to_faiss": "interop.faiss",
    "from_codebooks": "quantizers",
}
_MODULES = ("complexity", "datasets", "training")

__all__ = [
    "AdditiveVQ",
    "FlatIndex",
    "IVFIndex",
    "LinearMap",
    "PreparedFilter",
    "PrincipalAdditiveVQ",
    "PrincipalProductVQ",
    "ProductAdditiveVQ",
    "ProductVQ",
    "RerankIndex",
    "ResidualVQ",
    "RotatedProductVQ",
    "Rotation",
    "Transformed",
    "__version__",
    "complexity",
    "datasets",
    "from_codebooks",
    "from_faiss",
    "get_num_threads",
    "load_index",
    "load_quantizer",
    "make",
    "set_num_threads",
    "show_config",
    "to_faiss",
    "training",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME and name not in _MODULES:
        raise AttributeError(f"module 'annvq' has no attribute {name!r}")
    with needed_by(f"annvq.{name}"):
        value = import_module(f"annvq.{_HOME.get(name, name)}")
        if name in _HOME:
            value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
