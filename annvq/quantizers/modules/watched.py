"""Tensors as they were at one time, to tell in a microsecond whether they still are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from annvq.kernels import _native


class Watched:
    """What a module's tensors were when something was made of them, for modules whose tensors are too large to be
    compared at every search.

    A change is told by PyTorch's own count of them, by another tensor or other memory in a tensor's place, or by the
    values themselves: one of every row and column and a thousand more are compared, since fused optimizers and
    whatever writes through ``.data`` or NumPy change tensors without being counted. So all changes are seen but those
    that are not counted and reach a few values only, no whole row or column.

    Args:
        tensors: None where there is none. Matrices of float32 in main memory can be watched, others count as changed.
    """

    def __init__(self, tensors: "Sequence[Tensor | None]") -> None:
        self._seen = [_seen(tensor) for tensor in tensors]

    def still(self, tensors: "Sequence[Tensor | None]") -> bool:
        """Whether these are the tensors, and hold what they held."""
        if len(tensors) != len(self._seen):
            return False
        for tensor, (then, version, pointer, sample) in zip(tensors, self._seen, strict=True):
            if tensor is not then:
                return False
            if tensor is None:
                continue
            if sample is None or tensor._version != version or tensor.data_ptr() != pointer or not sample.unchanged():
                return False
        return True


def _seen(tensor: "Tensor | None") -> tuple[Any, ...]:
    """A tensor, how often PyTorch has counted it changed, where its values lie, and some of them; None for the last
    where that cannot be told."""
    unknown = (tensor, 0, 0, None)
    if tensor is None or tensor.device.type != "cpu" or tensor.is_inference() or tensor.ndim not in (1, 2):
        return unknown
    array = tensor.detach().numpy()
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        return unknown
    # The sample keeps the memory, so that its address is no other tensor's.
    return tensor, tensor._version, tensor.data_ptr(), _native.Sample(array.reshape(len(array), -1))
