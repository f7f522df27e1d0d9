"""Quantizers in files."""

import itertools
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annvq import storage
from annvq.errors import FormatError
from annvq.optional import needed_by
from annvq.quantizers.additive import AdditiveCoder
from annvq.quantizers.coder import FORMAT, VERSIONS, CodebookCoder, Coder, Shapes
from annvq.quantizers.conditional import ConditionalCoder
from annvq.quantizers.principal import PrincipalAdditiveCoder, PrincipalProductCoder
from annvq.quantizers.product import ProductCoder
from annvq.quantizers.product_additive import ProductAdditiveCoder
from annvq.quantizers.residual import ResidualCoder
from annvq.quantizers.transformed import RotatedProductCoder, TransformedCoder

if TYPE_CHECKING:
    from annvq.quantizers.modules import Quantizer

_CODERS: dict[str, type[Coder]] = {
    coder.kind: coder
    for coder in (
        ProductCoder,
        ResidualCoder,
        AdditiveCoder,
        ProductAdditiveCoder,
        TransformedCoder,
        RotatedProductCoder,
        PrincipalProductCoder,
        PrincipalAdditiveCoder,
        ConditionalCoder,
    )
}


def from_stored(config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], where: str = "the file") -> Coder:
    """The inverse of :meth:`Coder.to_stored`; FormatError where config and tensors do not fit together."""
    arguments = dict(config)
    try:
        # Nothing is allocated, so a hostile config costs nothing before shapes are compared.
        coder = _unfilled(arguments.pop("kind"), arguments)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as e:
        raise FormatError(f"{where} holds a quantizer that cannot be built: {e}") from None
    expected = coder.shapes()
    tensors = {**_absent_in_earlier_versions(expected, tensors), **tensors}
    found = {name: (str(a.dtype), a.shape) for name, a in tensors.items()}
    if expected != found:
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        raise FormatError(f"{where} is corrupt: quantizer tensors {', '.join(wrong)} do not fit its config")
    for name, a in tensors.items():
        # Norm levels are NaN until they are learned; whoever needs them asks.
        if a.dtype.kind == "f" and name.split(".")[-1] != "norm_levels" and not np.isfinite(a).all():
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} holds NaN or infinity")
        if name.split(".")[-1] == "error_share" and not 0 <= float(a) <= 1:
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} is not in [0, 1] ({float(a):.3g})")
        # Zero is that of codes whose norms were never learned.
        if name.split(".")[-1] == "norm_weight" and float(a) < 0:
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} is negative ({float(a):.3g})")
    for name, of in (("weight", coder), ("quantizer.weight", getattr(coder, "quantizer", None))):
        if isinstance(of, CodebookCoder) and name in tensors and _reaches_beyond(of, tensors[name]):
            raise FormatError(f"{where} is corrupt: quantizer tensor {name} has entries beyond their dimensions")
    return coder.fill({name: np.array(a) for name, a in tensors.items()})


def _reaches_beyond(coder: CodebookCoder, weight: npt.NDArray[Any]) -> bool:
    """Whether a codebook has numbers in columns beyond its own dimensions."""
    places = zip(coder.widths, itertools.pairwise(coder.offsets), strict=True)
    return any(weight[a:b, width:].any() for width, (a, b) in places if width < coder.width)


def _unfilled(kind: Any, arguments: dict[str, Any]) -> Coder:
    """What waits for its arrays: a coder, or of kinds that have none the quantizer itself."""
    if kind in _CODERS:
        return _CODERS[kind].from_config(arguments)
    with needed_by(f"a quantizer of kind {kind!r}"):
        made: Coder = import_module("annvq.quantizers.modules").unfilled(kind, arguments)
        return made


def usable(coder: Coder) -> Any:
    """The quantizer as a module, or, where PyTorch is not installed, the coder, which does all but learn."""
    try:
        return coder.as_module()
    except ImportError:
        return coder


def _absent_in_earlier_versions(
    expected: Shapes, tensors: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Norm offsets of zero and codes that do not weigh the norm, which is what a norm byte meant in version 1; norms
    about zero, which they were before version 3; bytes without a share of the error, before version 4; networks that
    expect no error."""
    added = ("norm_offsets", "weighs_norm", "centred", "error_share", "error_mean", "error_weights")
    new = [n for n in expected if n.split(".")[-1] in added and n not in tensors]
    return {name: np.zeros(expected[name][1], expected[name][0]) for name in new}


def load_quantizer(source: storage.Source) -> "Quantizer":
    """Read a quantizer written by :meth:`Quantizer.save`, in eval mode. Where PyTorch is not installed it comes as a
    :class:`~annvq.quantizers.Coder`, which encodes, decodes and gives tables, and does not learn.

    Args:
        source: a path, a file object opened in binary mode, or bytes (:meth:`Quantizer.to_bytes`).

    Raises:
        FileNotFoundError: no such file.
        TypeError: none of these.
        FormatError: not such a file, an unknown version, truncated or corrupt.
    """
    stored = storage.read(source, FORMAT, VERSIONS)
    loaded: Quantizer = usable(from_stored(stored.config, stored.tensors, storage.name_of(source)))
    return loaded
