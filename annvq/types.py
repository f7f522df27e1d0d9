"""Names of the array types that annvq passes about: shapes stand beside each use."""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

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
