"""Gradient estimators: how a gradient passes a quantizer, whose output is piecewise constant.

Each takes the input ``x`` and the decoded vectors ``xhat`` (differentiable in the codebooks, with no path to x) and
gives the layer's output in training mode. They are values, not flags: ``ProductVQ(..., estimator=StraightThrough())``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Estimator(Protocol):
    """``estimator(x, xhat) -> output``, all (n, d)."""

    def __call__(self, x: Tensor, xhat: Tensor) -> Tensor: ...


_REGISTERED: dict[str, Callable[[], Estimator]] = {}


def registered() -> dict[str, Callable[[], Estimator]]:
    """Estimator classes by name; contract tests cover each."""
    return dict(_REGISTERED)


def _register(cls: Any) -> None:
    _REGISTERED[cls.__name__] = cls


def _direction(v: Tensor) -> Tensor:
    return v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)


@dataclass(frozen=True)
class NSVQ:
    """Noise substitution: x + ‖x − x̂‖ · v/‖v‖ with v standard normal.

    The error keeps its length and takes a random direction, so the gradient reaches codebooks and input through the
    length alone. Vali and Bäckström, "NSVQ: Noise Substitution in Vector Quantization for Machine Learning", IEEE
    Access 2022, eq. 5; and "Stochastic Optimization of Vector Quantization Methods …", ICASSP 2023, section 2.
    """

    def __call__(self, x: Tensor, xhat: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x - xhat, dim=-1, keepdim=True)
        return x + length * _direction(torch.randn_like(x))


@dataclass(frozen=True)
class StraightThrough:
    """x̂ forward; backward, the identity to the input and the plain gradient to the codebooks.

    Bengio, Léonard and Courville, arXiv:1308.3432, 2013; van den Oord et al., NeurIPS 2017, section 3.2 (there the
    codebooks learn by a separate loss; here they take the output's own gradient).
    """

    def __call__(self, x: Tensor, xhat: Tensor) -> Tensor:
        return xhat + (x - x.detach())


@dataclass(frozen=True)
class DiVeQ:
    """x + ‖x − x̂‖ · u with u the direction of (x̂ − x) + v, v normal with variance ``variance``, u without gradient.

    Differentiable vector quantization by reparameterization: like NSVQ, with noise that points at the chosen entry.
    Vali, Bäckström and Solin, "DiVeQ: Differentiable Vector Quantization Using the Reparameterization Trick",
    ICLR 2026. The variance is relative to the mean squared error of the batch, so that scale does not matter.
    """

    variance: float = 1e-3

    def __call__(self, x: Tensor, xhat: Tensor) -> Tensor:
        error = xhat - x
        length = torch.linalg.vector_norm(error, dim=-1, keepdim=True)
        with torch.no_grad():
            spread = (self.variance * error.square().mean()).sqrt()
            u = _direction(error + spread * torch.randn_like(x))
        return x + length * u


@dataclass(frozen=True)
class RotationTrick:
    """x̂ forward; the gradient to the input is rotated and scaled as x is into x̂; codebooks take the plain gradient.

    Fifty et al., "Restructuring Vector Quantization with the Rotation Trick", ICLR 2025, section 4.
    """

    def __call__(self, x: Tensor, xhat: Tensor) -> Tensor:
        with torch.no_grad():
            e, q = _direction(x), _direction(xhat)
            r = _direction(e + q)
            tiny = torch.finfo(x.dtype).tiny
            lengths = [torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (xhat, x)]
            scale = lengths[0] / lengths[1].clamp_min(tiny)
        rotated = x - 2 * (x * r).sum(-1, keepdim=True) * r + 2 * (x * e).sum(-1, keepdim=True) * q
        through = scale * rotated
        return xhat + (through - through.detach())


for _cls in (NSVQ, StraightThrough, DiVeQ, RotationTrick):
    _register(_cls)
