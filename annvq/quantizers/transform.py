"""A learned change of coordinates before a quantizer: rotations and general linear maps.

Optimized product quantization (Ge, He, Ke and Sun, TPAMI 2014) is ``Transformed(Rotation(d), ProductVQ(d, M))``, or
:class:`RotatedProductVQ` for short.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import Self

from annvq import kernels
from annvq.arrays import normalized, positive_int, to_numpy
from annvq.kernels import LazyTables
from annvq.quantizers.base import Quantizer, TableQuantizer, check_metric
from annvq.quantizers.product import ProductVQ
from annvq.quantizers.registry import make, register
from annvq.quantizers.sums import NORM_FREE_ROWS, SumQuantizer
from annvq.types import F32, Array

if TYPE_CHECKING:
    from collections.abc import Callable

    from annvq.complexity import OperationCounts
    from annvq.training.estimators import Estimator

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
    return cast(Tensor, _RowProducts.apply(x, rows))  # type: ignore[no-untyped-call]


def row_products(x: npt.NDArray[Any], rows: npt.NDArray[Any]) -> F32:
    """``x @ rows.T`` in float32, the same for a row of x in every batch, with any number of threads."""
    x, rows = (np.ascontiguousarray(a, dtype=np.float32) for a in (x, rows))
    return kernels.TableCache().tables(x, rows, (len(rows),), (0,), squared=False).build()[:, 0]


class Transform(nn.Module, ABC):
    """An invertible affine map of vectors, ``y = A (x − shift)``.

    Args:
        dim: d.
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
        if g.is_meta or not bool(g.any()):
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
    arguments = {"kind": config, "dim": dim} if isinstance(config, str) else dict(config)
    kind = arguments.pop("kind", None)
    if kind not in TRANSFORMS:
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, got {kind!r}")
    return TRANSFORMS[kind](**arguments)


@register("transformed")
class Transformed(TableQuantizer):
    """A quantizer of transformed vectors: ``encode`` transforms first, ``decode`` transforms back.

    The codes are those of ``quantizer``; saved, encoded, searched and exported, the transform goes with it. Tables are
    built from transformed queries. Under a rotation the codes of a norm-free quantizer stay norm-free. Under a general
    linear map squared distance needs ‖x̂‖², as for additive codes, which these then are: ``codebooks`` shows them as
    entries over all d dimensions whose sum is x̂.

    ``make("transformed", transform="rotation", quantizer="product", dim=128, M=8)`` makes both parts by name.

    Args:
        transform: a :class:`Rotation` or :class:`LinearMap` of the quantizer's dimension.
        quantizer: a product, residual or additive quantizer.
        estimator: how gradients pass in training mode, over transform and quantizer together; default NSVQ.

    Raises:
        TypeError, ValueError: parts of another kind, or of different dimensions.
    """

    sums = True
    needs_norm = True

    def __init__(
        self, transform: Transform, quantizer: TableQuantizer, *, estimator: "Estimator | None" = None
    ) -> None:
        if not isinstance(transform, Transform):
            raise TypeError(f"transform must be a Rotation or a LinearMap, got {type(transform).__name__}")
        if not isinstance(quantizer, TableQuantizer) or isinstance(quantizer, Transformed):
            raise TypeError(
                f"quantizer must be a product, residual or additive quantizer, got {type(quantizer).__name__}"
            )
        if transform.dim != quantizer.dim:
            raise ValueError(f"transform must have the quantizer's dim={quantizer.dim}, got dim={transform.dim}")
        if isinstance(quantizer, SumQuantizer) and quantizer.norm_free and not transform.orthogonal:
            raise ValueError("quantizer must not be norm_free behind a transform that changes norms; use a Rotation")
        # Not TableQuantizer's own: the codebooks are the inner quantizer's.
        Quantizer.__init__(self, quantizer.dim, quantizer.M, list(quantizer.bits_per_codebook), estimator)
        self.transform, self.quantizer = transform, quantizer
        self.width, self.offsets, self.starts = self.dim, quantizer.offsets, (0,) * quantizer.M
        self.needs_norm = quantizer.needs_norm or not transform.orthogonal
        if self.needs_norm:
            self._register_norm_byte()
        if not quantizer.fitted.is_meta and bool(quantizer.fitted):
            self.mark_fitted()

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]
        """The inner quantizer's entries, (ΣK, its width), in transformed coordinates."""
        return self.quantizer.weight

    @property
    def config(self) -> dict[str, Any]:
        return {
            "transform": self.transform.config,
            "quantizer": {"kind": self.quantizer.kind, **self.quantizer.config},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From :attr:`config`; or from the kinds of transform (default ``"linear"``) and quantizer (default
        ``"product"``) and the quantizer's arguments."""
        rest = dict(config)
        transform, inner = rest.pop("transform", "linear"), rest.pop("quantizer", "product")
        inner_config = {"kind": inner} if isinstance(inner, str) else dict(inner)
        kind = inner_config.pop("kind", None)
        if kind in ("transformed", "rotated-product"):
            raise ValueError(f"quantizer must not be transformed itself, got {kind!r}")
        quantizer = make(str(kind), **inner_config, **rest)
        return cls(make_transform(transform, quantizer.dim), cast(TableQuantizer, quantizer))

    def reset_parameters(self) -> None:
        """Random codebooks after the identity."""
        self.transform.reset()
        self.quantizer.reset_parameters()
        self.fitted.fill_(False)

    def mark_fitted(self) -> None:
        super().mark_fitted()
        self.quantizer.mark_fitted()

    def costs(self) -> "OperationCounts":
        from annvq.complexity import OperationCounts, linear_map

        shift = OperationCounts(additions=self.dim if self.transform.shift is not None else 0)
        return self.quantizer.costs() + linear_map(self.dim, self.dim) + shift

    # -- codebooks -----------------------------------------------------------------------------------------------

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """M codebooks (K_m, d) in the vectors' own coordinates, whose entries add up to x̂; computed, not views."""
        back, books = self.transform.inverse(), []
        for book, start in zip(self.quantizer.codebooks, self.quantizer.starts, strict=True):
            books.append(book @ back[:, start : start + self.quantizer.width].T)
        if self.transform.shift is not None:
            books[0] = books[0] + self.transform.shift
        return tuple(books)

    def set_codebooks(self, codebooks: Sequence[Array]) -> Self:
        raise TypeError("codebooks of a Transformed follow from its parts: call .quantizer.set_codebooks(…)")

    def _entries(self) -> F32:
        with torch.no_grad():
            return torch.cat(self.codebooks).cpu().numpy()

    @torch.no_grad()
    def move(self, mean: F32, scale: float) -> None:
        shift = self.transform.shift
        if shift is not None:
            shift.mul_(scale).add_(torch.from_numpy(mean).to(shift.device))
            self.quantizer.move(np.zeros_like(mean), scale)
        else:
            inner_mean = mean.astype(np.float64) @ self.transform.matrix().cpu().numpy().T.astype(np.float64)
            self.quantizer.move(inner_mean.astype(np.float32), scale)
        self.forget_norms()
        self.mark_fitted()

    # -- codes ---------------------------------------------------------------------------------------------------

    def _row_encoder(self) -> "Callable[[F32], npt.NDArray[Any]]":
        if not self._on_cpu:
            return self._encode_in_torch
        encode = self.quantizer._row_encoder()
        with torch.no_grad():
            matrix = self.transform.matrix().numpy()
            shift = None if self.transform.shift is None else self.transform.shift.numpy().copy()
        return lambda x: encode(row_products(x if shift is None else x - shift, matrix))

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        return self.quantizer._encode(self.transform(x))

    def _decode(self, codes: Tensor) -> Tensor:
        return self.transform.invert(self.quantizer._decode(codes))

    def fit_norms(self, x: Array, *, seed: int = 0) -> Self:
        if self.needs_norm or not self.quantizer.sums:
            return super().fit_norms(x, seed=seed)
        self.require_fitted("fit_norms")
        sample = torch.from_numpy(self._norm_sample(x, NORM_FREE_ROWS, seed)).to(self.fitted.device)
        with torch.no_grad():
            inner = self.transform(sample).cpu()
        self.quantizer.fit_norms(inner, seed=seed)
        return self

    # -- tables --------------------------------------------------------------------------------------------------

    def lazy_tables(self, queries: Array, metric: str = "l2") -> tuple[LazyTables, F32]:
        self.require_fitted("tables")
        check_metric(metric)
        q = to_numpy(queries, self.dim, "queries", rows="nq")
        if metric == "cosine":
            q = normalized(q, "queries")
        with torch.no_grad():
            if metric == "l2" and not self.needs_norm:
                turned = self.transform(torch.from_numpy(q).to(self.fitted.device)).cpu()
                return self.quantizer.lazy_tables(turned, "l2")
            back = self.transform.inverse().cpu().numpy()
        shift, centred = self.transform.shift, metric == "l2" and self.about_origin
        constant = np.full(len(q), 1.0 if metric == "cosine" else 0.0)
        if metric == "l2":
            q = q - self.origin
            constant += np.einsum("ij,ij->i", q, q, dtype=np.float64)
        # ⟨q, x̂⟩ = ⟨A⁻ᵀ q, ŷ⟩ + ⟨q, shift⟩; the shift is part of the origin.
        if shift is not None and not centred:
            constant -= (2 if metric == "l2" else 1) * (q.astype(np.float64) @ shift.cpu().numpy())
        scale = -2.0 if metric == "l2" else -1.0
        luts = LazyTables(
            self.quantizer._builder(centred=centred)[0], row_products(q, back.T), squared=False, scale=scale
        )
        return luts, constant.astype(np.float32)

    @torch.no_grad()
    def _centre(self) -> F32:
        centre = torch.from_numpy(self.quantizer._centre()).to(self.fitted.device)
        return self.transform.invert(centre[None])[0].cpu().numpy()

    def _centred_entries(self) -> F32:
        with torch.no_grad():
            back = self.transform.inverse().cpu().numpy()
        return row_products(self.quantizer._whole(self.quantizer._centred_entries()), back)


@register("rotated-product")
class RotatedProductVQ(Transformed):
    """Product quantization after a learned rotation; as many bits and as fast a search as :class:`ProductVQ`.

    Ge, He, Ke and Sun, "Optimized Product Quantization", TPAMI 2014; here rotation and codebooks are also learned
    end to end (see :mod:`annvq.training.rotation`).

    Args:
        dim: d, divisible by M.
        M: codebooks.
        nbits: bits per codebook, 1..16, or a sequence of M of them.
        estimator: how gradients pass in training mode; default NSVQ.
    """

    needs_norm = False

    def __init__(
        self, dim: int, M: int, nbits: int | Sequence[int] = 8, *, estimator: "Estimator | None" = None
    ) -> None:
        super().__init__(Rotation(dim), ProductVQ(dim, M, nbits), estimator=estimator)

    @property
    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "M": self.M, "nbits": self.quantizer.config["nbits"]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)
