"""Learned changes of coordinates: rotations and general linear maps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from annvq.arrays import positive_int, to_numpy
from annvq.codebooks import row_products
from annvq.quantizers.transformed import map_kind
from annvq.types import F32, Array, Self

#: How far ``R Rᵀ`` may be from the identity, entry by entry, for R to count as orthogonal: float32 rounding of a
#: matrix from a singular value decomposition stays well below it.
ORTHOGONAL_TOLERANCE = 1e-4
#: Beyond this condition number decoding would magnify float32 rounding beyond use.
MAX_CONDITION = 1e5


class _RowProducts(torch.autograd.Function):
    """``x @ rows.T``; on the CPU each sum in dimension order, so that no row depends on its batch or on threads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows)
        return x @ rows.T if x.device.type != "cpu" else torch.from_numpy(row_products(x.numpy(), rows.numpy()))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, rows = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return grad @ rows if wanted[0] else None, grad.T @ x if wanted[1] else None


def _multiply(x: Tensor, rows: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return x @ rows.T
    return cast(Tensor, _RowProducts.apply(x, rows))  # type: ignore[no-untyped-call]


class Transform(nn.Module, ABC):
    """An invertible affine map of vectors, ``y = A (x − shift)``.

    Args:
        dim: d of the vectors.
        shift: whether vectors are shifted first (by what ``fit`` learns, the mean of the learn vectors). Squared
            distances and codes do without; it matters where a map is meant to keep zero-mean data small.
    """

    kind: ClassVar[str]
    orthogonal: ClassVar[bool]
    """Whether the map keeps distances."""

    shift: Tensor | None

    def __init__(self, dim: int, *, shift: bool = False) -> None:
        super().__init__()
        self.dim = positive_int(dim, "dim", high=1 << 20)
        self.register_buffer("shift", torch.zeros(self.dim) if shift else None)

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments and kind, as JSON holds them."""
        return {"kind": self.kind, "dim": self.dim, "shift": self.shift is not None}

    def extra_repr(self) -> str:
        return f"dim={self.dim}, shift={self.shift is not None}"

    @abstractmethod
    def matrix(self) -> Tensor:
        """A, (d, d), differentiable in the parameters."""

    @abstractmethod
    def inverse(self) -> Tensor:
        """A⁻¹, (d, d), differentiable in the parameters."""

    @abstractmethod
    def set_matrix(self, matrix: Array, shift: Array | None = None) -> Self:
        """Take a matrix A (d, d) and, where this map has one, a shift (d,); without one the shift becomes zero.

        Raises:
            TypeError, ValueError: wrong kind or shape, NaN or infinity, or a matrix this map cannot have; nothing
                has changed then.
        """

    def tensors(self) -> list[Tensor | None]:
        """All that the map follows from, parametrizations and modules within it included."""
        own: list[Tensor | None] = [*self._parameters.values(), *self._buffers.values()]
        for module in self._modules.values():
            own += [] if module is None else [*module.parameters(), *module.buffers()]
        return own

    def reset(self) -> None:
        """Become the identity."""
        self.set_matrix(torch.eye(self.dim))

    def forward(self, x: Tensor) -> Tensor:
        """y (n, d) of x (n, d)."""
        shifted = x if self.shift is None else x - self.shift
        return _multiply(shifted, self.matrix())

    def invert(self, y: Tensor) -> Tensor:
        """x (n, d) of y (n, d)."""
        x = _multiply(y, self.inverse())
        return x if self.shift is None else x + self.shift

    @classmethod
    def from_matrix(cls, matrix: Array, shift: Array | None = None) -> Self:
        """The map ``y = A (x − shift)`` of a matrix A (d, d) and a shift (d,); see :meth:`set_matrix`."""
        shape = tuple(getattr(matrix, "shape", ()))
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"matrix must be square, of shape (d, d), got {shape or type(matrix).__name__}")
        return cls(shape[0], shift=shift is not None).set_matrix(matrix, shift)

    def _checked(self, matrix: Array, shift: Array | None) -> tuple[F32, F32]:
        a = to_numpy(matrix, self.dim, "matrix", rows="d")
        if len(a) != self.dim:
            raise ValueError(f"matrix must have shape ({self.dim}, {self.dim}), got {a.shape}")
        if shift is None:
            return a, np.zeros(self.dim, np.float32)
        if self.shift is None:
            raise ValueError(f"shift must be None: this {type(self).__name__} was made without one (shift=True)")
        if tuple(getattr(shift, "shape", ())) != (self.dim,):
            raise ValueError(f"shift must have shape ({self.dim},), got {getattr(shift, 'shape', type(shift))}")
        return a, to_numpy(shift[None], self.dim, "shift", rows="1")[0]

    def _set_shift(self, shift: F32) -> None:
        if self.shift is not None:
            self.shift.copy_(torch.from_numpy(shift))


def _any(values: Tensor) -> bool:
    """Whether one of the values is not zero. NumPy tells four times as fast as PyTorch, which single queries feel."""
    return bool(values.numpy().any() if values.device.type == "cpu" else values.any())


class Rotation(Transform):
    """An orthogonal map, rotation or reflection: ``y = R (x − shift)``.

    As a layer it stays orthogonal whatever an optimizer does: R = R₀ exp(G − Gᵀ), with G the parameter (Lezcano-Casado
    and Martínez-Rubio, "Cheap Orthogonal Constraints in Neural Networks", ICML 2019). Files hold R alone.
    """

    kind = "rotation"
    orthogonal = True

    base: Tensor

    def __init__(self, dim: int, *, shift: bool = False) -> None:
        super().__init__(dim, shift=shift)
        self.register_buffer("base", torch.eye(self.dim))
        self.generator = nn.Parameter(torch.zeros(self.dim, self.dim))

    def matrix(self) -> Tensor:
        if torch.is_grad_enabled() and self.generator.requires_grad and self.training:
            return self.base @ torch.matrix_exp(self.generator - self.generator.T)
        g = self.generator.detach()
        # (A trace cannot ask what values are; the exponential of zero is the identity, exactly.)
        if g.is_meta or (not torch.compiler.is_compiling() and not _any(g)):
            return self.base
        return self.base @ torch.matrix_exp(g - g.T)

    def inverse(self) -> Tensor:
        return self.matrix().T

    @torch.no_grad()
    def set_matrix(self, matrix: Array, shift: Array | None = None) -> Self:
        a, s = self._checked(matrix, shift)
        gram = a.astype(np.float64) @ a.T
        off = float(np.abs(gram - np.eye(self.dim)).max())
        if off > ORTHOGONAL_TOLERANCE:
            raise ValueError(
                f"matrix must be orthogonal, but A Aᵀ is off the identity by {off:.3g}; LinearMap takes any "
                f"invertible matrix"
            )
        self.base.copy_(torch.from_numpy(a))
        self.generator.zero_()
        self._set_shift(s)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with torch.no_grad():
            destination[prefix + "matrix"] = self.matrix().clone() if not self.base.is_meta else self.base
        if self.shift is not None:
            destination[prefix + "shift"] = self.shift

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        wanted = {"matrix": "base", **({"shift": "shift"} if self.shift is not None else {})}
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        for key, name in wanted.items():
            value = state_dict.get(prefix + key)
            held = getattr(self, name)
            if value is None:
                missing_keys.append(prefix + key)
            elif value.shape != held.shape:
                error_msgs.append(f"{prefix}{key} has shape {tuple(value.shape)}, expected {tuple(held.shape)}")
            elif assign:
                setattr(self, name, value)
            else:
                held.copy_(value)
        if assign:
            self.generator = nn.Parameter(torch.zeros_like(self.base))
        else:
            with torch.no_grad():
                self.generator.zero_()
        unexpected_keys += [k for k in state_dict if k.startswith(prefix) and k[len(prefix) :] not in wanted]


class LinearMap(Transform):
    """Any invertible map: ``y = A (x − shift)``, with A the parameter ``weight``."""

    kind = "linear"
    orthogonal = False

    def __init__(self, dim: int, *, shift: bool = False) -> None:
        super().__init__(dim, shift=shift)
        self.weight = nn.Parameter(torch.eye(self.dim))

    def matrix(self) -> Tensor:
        return self.weight

    def inverse(self) -> Tensor:
        return torch.linalg.inv(self.weight.double()).float()

    @torch.no_grad()
    def set_matrix(self, matrix: Array, shift: Array | None = None) -> Self:
        a, s = self._checked(matrix, shift)
        singular = np.linalg.svd(a.astype(np.float64), compute_uv=False)
        if not singular[-1] * MAX_CONDITION > singular[0]:
            raise ValueError(
                f"matrix must be invertible with a condition number of at most {MAX_CONDITION:g}, "
                f"got singular values from {singular[-1]:.3g} to {singular[0]:.3g}"
            )
        self.weight.copy_(torch.from_numpy(a))
        self._set_shift(s)
        return self


TRANSFORMS: dict[str, type[Transform]] = {"rotation": Rotation, "linear": LinearMap}


def make_transform(config: str | Mapping[str, Any], dim: int) -> Transform:
    """A transform of its kind's name, or of its :attr:`Transform.config`.

    Raises:
        ValueError, TypeError: an unknown kind or argument.
    """
    kind, arguments = map_kind(config, dim)
    return TRANSFORMS[kind](**arguments)
