"""Quantizers in files."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from annvq import storage
from annvq.errors import FormatError
from annvq.quantizers.contract import FORMAT, VERSIONS, Quantizer
from annvq.quantizers.registry import quantizer_class


def from_stored(
    config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], where: str = "the file"
) -> Quantizer:
    """The inverse of :meth:`Quantizer.to_stored`; FormatError where config and tensors do not fit together."""
    arguments = dict(config)
    try:
        kind = arguments.pop("kind")
        # On the meta device nothing is allocated, so a hostile config costs nothing before shapes are compared.
        with torch.device("meta"):
            quantizer = quantizer_class(kind).from_config(arguments)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as e:
        raise FormatError(f"{where} holds a quantizer that cannot be built: {e}") from None
    expected = {
        name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in quantizer.state_dict().items()
    }
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
    quantizer.load_state_dict({k: torch.from_numpy(np.array(a)) for k, a in tensors.items()}, assign=True)
    return quantizer.eval()


def _absent_in_earlier_versions(
    expected: Mapping[str, tuple[str, tuple[int, ...]]], tensors: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """Norm offsets of zero and codes that do not weigh the norm, which is what a norm byte meant in version 1; norms
    about zero, which they were before version 3; bytes without a share of the error, before version 4."""
    added = ("norm_offsets", "weighs_norm", "centred", "error_share")
    new = [n for n in expected if n.split(".")[-1] in added and n not in tensors]
    return {name: np.zeros(expected[name][1], expected[name][0]) for name in new}


def load_quantizer(source: storage.Source) -> Quantizer:
    """Read a quantizer written by :meth:`Quantizer.save`, in eval mode.

    Args:
        source: a path, a file object opened in binary mode, or bytes (:meth:`Quantizer.to_bytes`).

    Raises:
        FileNotFoundError: no such file.
        TypeError: none of these.
        FormatError: not such a file, an unknown version, truncated or corrupt.
    """
    stored = storage.read(source, FORMAT, VERSIONS)
    return from_stored(stored.config, stored.tensors, storage.name_of(source))
