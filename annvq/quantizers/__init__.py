"""Quantizers: vectors to codes and back."""

from annvq.quantizers.additive import AdditiveVQ
from annvq.quantizers.base import Quantized, Quantizer, TableQuantizer, Tables, load_quantizer
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.registry import make, register, registered
from annvq.quantizers.residual import ResidualVQ

__all__ = [
    "AdditiveVQ",
    "ProductVQ",
    "Quantized",
    "Quantizer",
    "ResidualVQ",
    "TableQuantizer",
    "Tables",
    "load_quantizer",
    "make",
    "register",
    "registered",
]
