"""annvq: approximate nearest-neighbour search on learned vector quantization.

Axis names used throughout: ``n`` base vectors, ``nq`` queries, ``d`` (``dim``) dimension, ``M`` codebooks,
``K`` entries per codebook (``2**nbits``), ``k`` neighbours asked for.

Names load on first use, so that ``import annvq`` stays light.
"""

from typing import TYPE_CHECKING

from annvq._version import __version__
from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq import adapters as adapters
    from annvq import benchmarks as benchmarks
    from annvq import choosing as choosing
    from annvq import complexity, datasets, training
    from annvq import distributed as distributed
    from annvq import errors as errors
    from annvq import indexes as indexes
    from annvq import interop as interop
    from annvq import kernels as kernels
    from annvq import norms as norms
    from annvq import quantizers as quantizers
    from annvq import sklearn as sklearn
    from annvq.facts import show_config
    from annvq.indexes import FlatIndex, IVFIndex, KeyedIndex, PreparedFilter, RerankIndex, load_index
    from annvq.interop.faiss import from_faiss, to_faiss
    from annvq.quantizers import (
        AdditiveVQ,
        ConditionalVQ,
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
    "ConditionalVQ": "quantizers",
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
    "KeyedIndex": "indexes",
    "PreparedFilter": "indexes",
    "RerankIndex": "indexes",
    "load_index": "indexes",
    "from_faiss": "interop.faiss",
    "to_faiss": "interop.faiss",
    "from_codebooks": "quantizers",
}
_MODULES = (
    "adapters",
    "benchmarks",
    "choosing",
    "complexity",
    "datasets",
    "distributed",
    "errors",
    "indexes",
    "interop",
    "kernels",
    "norms",
    "quantizers",
    "sklearn",
    "training",
)

__all__ = [
    "AdditiveVQ",
    "ConditionalVQ",
    "FlatIndex",
    "IVFIndex",
    "KeyedIndex",
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


__getattr__ = on_first_use(globals(), _HOME | {name: name for name in _MODULES})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
