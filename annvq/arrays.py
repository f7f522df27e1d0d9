"""Arrays in and out: what annvq accepts as vectors, checked once and read in chunks.

Vectors are float32. uint8, int8, float16 and bfloat16 are exact in float32 and are converted chunk by chunk; float64 is
converted too and loses precision beyond float32's 24 bits. Anything else is refused. NumPy arrays and memory maps,
torch tensors, arrays of other libraries that export DLPack, columns in Arrow's layout and of Hugging Face data sets
(:mod:`annvq.columns`), and whatever has ``shape``, ``dtype`` and NumPy slicing (an HDF5 data set) are accepted; results
come back as torch tensors for torch tensors, else as NumPy arrays.

NumPy itself has no bfloat16. ml_dtypes' is taken, and so are its two bytes without a name (``V2``), which is what
``numpy.save`` makes of it.
"""

import operator
import sys
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from annvq.columns import column_rows, exports_arrow, refuse_no_table
from annvq.kernels import _native
from annvq.types import F32, Array

if TYPE_CHECKING:
    from torch import Tensor

VECTOR_DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8")
BFLOAT16 = np.dtype("V2")
"""How NumPy arrays hold bfloat16 where nobody has given it a better type."""
# NumPy makes a name anew whenever it is asked for.
_NAMES = {BFLOAT16: "bfloat16", **{np.dtype(name): name for name in VECTOR_DTYPES if name != "bfloat16"}}
CHUNK_BYTES = 1 << 26
FEW = 16
"""Rows that are normalised by native code where that gives just what NumPy gives; of more, one in which the order of a
sum tells would cost all of them twice."""


def is_tensor(x: Any) -> "TypeGuard[Tensor]":
    """Whether ``x`` is a PyTorch tensor; while PyTorch is not loaded there are none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def dtype_name(x: Array) -> str:
    """``"float32"`` for ``np.float32`` of either byte order, ``torch.float32`` and the float32 of other libraries."""
    if not isinstance(x.dtype, np.dtype):
        return str(x.dtype).rpartition(".")[2]
    return _NAMES.get(x.dtype) or str(x.dtype if x.dtype.isnative else x.dtype.newbyteorder("="))


def host_array(x: Array) -> Any:
    """``x`` as a NumPy array over the same memory where it lies in main memory (torch tensors, arrays that export
    DLPack), a copy of it where it lies on a device; anything else as it is."""
    if is_tensor(x):
        held = x.detach().cpu()
        # Neither PyTorch nor NumPy knows the other's bfloat16: the bits of one become those of the other.
        return held.view(_as("int16")).numpy().view(BFLOAT16) if dtype_name(x) == "bfloat16" else held.numpy()
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return x
    on_device = hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] != 1  # kDLCPU
    if on_device or dtype_name(x) == "bfloat16":
        import torch

        return host_array(torch.utils.dlpack.from_dlpack(x))
    return np.from_dlpack(x)


def _as(name: str) -> Any:
    """PyTorch's dtype of this name."""
    return getattr(sys.modules["torch"], name)


def as_float32(x: npt.NDArray[Any]) -> F32:
    """A NumPy array of one of :data:`VECTOR_DTYPES` as C-contiguous float32, ``x`` itself where it is that already.

    float64 values beyond float32 become infinite.
    """
    if dtype_name(x) != "bfloat16":
        with np.errstate(over="ignore"):
            # (Within archives numbers may begin at any byte.)
            out = np.ascontiguousarray(x, dtype=np.float32)
            return out if out.flags.aligned else out.copy()
    bits = np.ascontiguousarray(x).view(np.uint16).astype(np.uint32)
    bits <<= 16  # bfloat16 is the first half of float32
    return bits.view(np.float32)


def as_bfloat16(x: F32) -> npt.NDArray[Any]:
    """Finite float32 rounded to bfloat16 (:data:`BFLOAT16`), halves to the even neighbour; infinite beyond it."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))
    return (rounded >> 16).astype(np.uint16).view(BFLOAT16)


def item_bytes(dtype: str) -> int:
    """Bytes of a number of this type, by its name among :data:`VECTOR_DTYPES`."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def positive_int(value: Any, name: str, *, low: int = 1, high: int | None = None) -> int:
    """``value`` as an int in [low, high]; bools and floats are refused.

    Raises:
        TypeError: not an integer.
        ValueError: out of range.
    """
    number = value if type(value) is int else _integer(value, name)
    if number < low or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {bounds}, got {number}")
    return number


def _integer(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def check_vectors(x: Array, dim: int | None, name: str = "x", *, rows: str = "n") -> Array:
    """``x`` itself once its kind, dtype and shape ``(rows, dim)`` are known to be right (values are not read). Of a
    column in Arrow's layout, its vectors, which are read as they are asked for.

    Raises:
        TypeError: not an array, or a dtype outside :data:`VECTOR_DTYPES`.
        ValueError: wrong shape, or masked values.
    """
    if not isinstance(x, np.ndarray) and not is_tensor(x) and exports_arrow(x):
        x = column_rows(x, name)
    refuse_no_table(x, name)
    if type(x) is not np.ndarray and np.ma.is_masked(x):
        raise ValueError(f"{name} must have no masked values, got {int(x.mask.sum())}; drop their rows, or fill them")
    if not isinstance(x, np.ndarray) and not all(hasattr(x, a) for a in ("shape", "dtype", "__getitem__")):
        raise TypeError(f"{name} must be {_wanted(dim, rows)}, got {type(x).__name__}")
    found = dtype_name(x)
    if found not in VECTOR_DTYPES:
        raise TypeError(f"{name} must be {_wanted(dim, rows)} (or {', '.join(VECTOR_DTYPES[1:])}), got {found}")
    shape = tuple(x.shape)
    if len(shape) != 2 or (dim is not None and shape[1] != dim) or shape[1] < 1:
        one = f"; for a single vector give {name}[None]" if len(shape) == 1 and dim in (None, *shape) else ""
        raise ValueError(f"{name} must be {_wanted(dim, rows)}, got {found} {shape}{one}")
    return x


def _wanted(dim: int | None, rows: str) -> str:
    return f"float32 of shape ({rows}, {'d' if dim is None else dim})"


def rows_to_numpy(x: Array, start: int, stop: int, name: str = "x") -> F32:
    """Rows [start, stop) of checked vectors, C-contiguous float32, finite.

    Raises:
        ValueError: NaN or infinity among them, or float64 values beyond float32.
    """
    part = host_array(x[start:stop, :])
    if type(part) is not np.ndarray or part.dtype != np.float32 or not (part.flags.c_contiguous and part.flags.aligned):
        part = as_float32(np.asarray(part))
    require_finite(part, name, start)
    return part


def require_finite(part: F32, name: str, start: int = 0) -> None:
    """Raise ValueError naming the first row with NaN or infinity."""
    if not _native.all_finite(part):
        row = int(np.argmin(np.isfinite(part).all(axis=1)))
        raise ValueError(f"{name} must be finite in float32; row {start + row} has NaN or infinity")


LEAST = 1e-19
"""The largest number of vectors must reach it, or all their squares vanish in float32."""


def largest(x: F32) -> float:
    """The largest magnitude in checked rows; 0 without any."""
    return max(float(x.max(initial=0)), -float(x.min(initial=0)))


def require_far_from_zero(found: float, least: float, name: str) -> None:
    """Raise ValueError where ``found``, the largest magnitude in vectors, is not 0 and below ``least``."""
    if 0 < found < least:
        raise ValueError(
            f"{name} must not lie as near zero as that: its largest number is {found:.3g}, below {least:.3g} distances "
            f"vanish; multiply all vectors and queries by one number, which changes no order"
        )


def sample_crc(x: Array) -> int:
    """A checksum of a hundred rows spread over the vectors: enough to tell one data set from another."""
    n = int(x.shape[0])
    rows = [np.asarray(host_array(x[i])) for i in np.unique(np.linspace(0, n - 1, 100).astype(int))] if n else []
    return zlib.crc32(np.stack(rows).tobytes()) if rows else 0


def chunks(n: int, dim: int, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int]]:
    """Row ranges whose float32 vectors take about ``chunk_bytes`` each."""
    step = max(1, chunk_bytes // (4 * max(1, dim)))
    for start in range(0, n, step):
        yield start, min(n, start + step)


def to_numpy(x: Array, dim: int | None = None, name: str = "x", *, rows: str = "n") -> F32:
    """All rows as one C-contiguous float32 NumPy array, checked for kind, shape and finiteness; ``x`` itself where it
    is one."""
    if type(x) is np.ndarray and dim is not None and _native.plain_rows(x, dim):  # one look instead of many
        return x
    x = check_vectors(x, dim, name, rows=rows)
    return rows_to_numpy(x, 0, int(x.shape[0]), name)


def like(result: npt.NDArray[Any], x: Array) -> Any:
    """``result`` as ``x`` came: a torch tensor on x's device for a tensor, else NumPy."""
    if not is_tensor(x):
        return result
    import torch

    return torch.from_numpy(result).to(x.device)


def normalized(x: F32, name: str = "x", start: int = 0) -> F32:
    """Rows divided by their Euclidean norm (computed in float64), for the cosine metric.

    Raises:
        ValueError: a zero vector, which has no direction; it is named by its number, counted from ``start``.
    """
    out = np.empty(x.shape, np.float32)
    if len(x) <= FEW and _native.unit_rows(x, out):
        return out
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    if np.count_nonzero(norms) < len(norms):  # of finite rows they are finite
        raise ValueError(f"{name} must not hold zero vectors under cosine; row {start + int(np.argmin(norms))} is zero")
    # In float64, rounded as it is written: no float64 copy is made.
    return np.divide(x, norms[:, None], out=out, casting="same_kind")
