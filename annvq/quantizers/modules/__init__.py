"""Quantizers as PyTorch modules: coders that learn, and layers."""

import torch

from annvq.quantizers.coder import Coder
from annvq.quantizers.modules.additive import AdditiveVQ
from annvq.quantizers.modules.codebooks import TableQuantizer
from annvq.quantizers.modules.conditional import ConditionalVQ
from annvq.quantizers.modules.contract import Quantized, Quantizer
from annvq.quantizers.modules.imported import from_codebooks
from annvq.quantizers.modules.maps import LinearMap, Rotation, Transform
from annvq.quantizers.modules.principal import PrincipalAdditiveVQ, PrincipalProductVQ
from annvq.quantizers.modules.product import ProductVQ
from annvq.quantizers.modules.product_additive import ProductAdditiveVQ
from annvq.quantizers.modules.registry import make, quantizer_class, register, registered
from annvq.quantizers.modules.residual import ResidualVQ
from annvq.quantizers.modules.transformed import RotatedProductVQ, Transformed
from annvq.threads import use_in_torch

use_in_torch()  # what was asked for before PyTorch was loaded

__all__ = [
    "AdditiveVQ",
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
    "TableQuantizer",
    "Transform",
    "Transformed",
    "from_codebooks",
    "make",
    "register",
    "registered",
]


def unfilled(kind: str, config: dict[str, object]) -> Quantizer:
    """A quantizer of the class registered as ``kind``, which waits for its tensors: nothing is allocated."""
    with torch.device("meta"):
        return quantizer_class(kind).from_config(config)


def module_of(coder: Coder) -> Quantizer:
    """The quantizer of a coder's kind over the coder's own arrays."""
    config, arrays = coder.to_stored()
    kind = config.pop("kind")
    return unfilled(kind, config).fill(arrays)
