"""Quantizers: vectors to codes and back.

Coders are what indexes need of them, and take NumPy alone. Quantizers themselves are PyTorch modules, and load on first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from annvq.optional import needed_by
from annvq.quantizers.coder import Coder
from annvq.quantizers.files import load_quantizer
from annvq.quantizers.tables import TableCoder, Tables

if TYPE_CHECKING:
    from annvq.quantizers.modules import (
        AdditiveVQ,
        LinearMap,
        PrincipalAdditiveVQ,
        PrincipalProductVQ,
        ProductAdditiveVQ,
        ProductVQ,
        Quantized,
        Quantizer,
        ResidualVQ,
        RotatedProductVQ,
        Rotation,
        TableQuantizer,
        Transform,
        Transformed,
        from_codebooks,
        make,
        register,
        registered,
    )

__all__ = [
    "AdditiveVQ",
    "Coder",
    "LinearMap",
    "PrincipalAdditiveVQ",
    "PrincipalProductVQ",
    "ProductAdditiveVQ",
    "ProductVQ",
    "Quantized",
    "Quantizer",
    "ResidualVQ",
    "RotatedProductVQ",
    "Rotation",
    "TableCoder",
    "TableQuantizer",
    "Tables",
    "Transform",
    "Transformed",
    "from_codebooks",
    "load_quantizer",
    "make",
    "register",
    "registered",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'annvq.quantizers' has no attribute {name!r}")
    with needed_by(f"annvq.quantizers.{name}"):
        value = getattr(import_module("annvq.quantizers.modules"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
