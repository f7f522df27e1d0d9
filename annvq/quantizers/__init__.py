"""Quantizers: vectors to codes and back."""

from annvq.quantizers.additive import AdditiveVQ
from annvq.quantizers.base import Quantized, Quantizer, TableQuantizer, Tables, load_quantizer
from annvq.quantizers.imported import from_codebooks
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.registry import make, register, registered
from annvq.quantizers.residual import ResidualVQ
from annvq.quantizers.transform import LinearMap, RotatedProductVQ, Rotation, Transform, Transformed

__all__ = [
    "AdditiveVQ",
    "LinearMap",
    "ProductVQ",
    "Quantized",
    "Quantizer",
    "ResidualVQ",
    "RotatedProductVQ",
    "Rotation",
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
