"""Quantizers: vectors to codes and back.

Coders are what indexes need of them, and take NumPy alone. Quantizers themselves are PyTorch modules, and load on first
use.
"""

from typing import TYPE_CHECKING

from annvq.optional import on_first_use
from annvq.quantizers.coder import Coder
from annvq.quantizers.files import load_quantizer
from annvq.quantizers.tables import TableCoder, Tables

if TYPE_CHECKING:
    from annvq.quantizers.modules import (
        AdditiveVQ,
        ConditionalVQ,
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
    "ConditionalVQ",
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


__getattr__ = on_first_use(globals(), dict.fromkeys(__all__, "modules"))


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
