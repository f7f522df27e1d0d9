"""Names of the array types that annvq passes about: shapes stand beside each use."""

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if sys.version_info >= (3, 11):
    from typing import Self as Self
elif TYPE_CHECKING:
    from typing_extensions import Self as Self
else:
    Self = Any

Array: TypeAlias = Any
"""A NumPy array, torch tensor, memory map or HDF5 data set (see :mod:`annvq.arrays`)."""

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Codes: TypeAlias = npt.NDArray[Any]
"""Codes of vectors, (n, M): uint8 where every codebook has at most 256 entries, else uint16."""

Norm: TypeAlias = Literal["auto", "uint8", "float32"] | None
"""How an index stores what squared distance needs of ‖x̂‖²."""
