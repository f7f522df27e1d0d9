"""Quantizers: vectors to codes and back."""

from annvq.quantizers.additive import AdditiveVQ
from annvq.quantizers.contract import Quantized, Quantizer
from annvq.quantizers.files import load_quantizer
from annvq.quantizers.imported import from_codebooks
from annvq.quantizers.maps import LinearMap, Rotation, Transform
from annvq.quantizers.principal import PrincipalAdditiveVQ, PrincipalProductVQ
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.product_additive import ProductAdditiveVQ
from annvq.quantizers.registry import make, register, registered
from annvq.quantizers.residual import ResidualVQ
from annvq.quantizers.tables import TableQuantizer, Tables
from annvq.quantizers.transformed import RotatedProductVQ, Transformed

__all__ = [
    "AdditiveVQ",
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
