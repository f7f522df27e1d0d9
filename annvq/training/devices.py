"""Where PyTorch computes, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


def torch_device(name: str) -> torch.device:
    """The device of this name; ``"auto"`` is a GPU when there is one.

    Raises:
        ValueError: PyTorch cannot use it here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device must be one that PyTorch can use here, got {name!r}: {error}") from error


def fast_products(device: torch.device) -> AbstractContextManager[object]:
    """Within it matrix products of float32 are of bfloat16, summed in float32, where the device has instructions for
    them: half of the time and less. Elsewhere they are what they were."""
    if not multiplies_bfloat16(device):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16."""
    return _instructions(device.type)


@cache
def _instructions(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # (Of a processor without them PyTorch would compute as slowly as it can.)
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return kind == "cpu" and capable is not None and bool(capable())
