"""Names of quantizers: ``@register("residual")`` on a class, ``make("residual", dim=128, M=8)`` for an instance."""

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from annvq.quantizers.modules.contract import Quantizer

Q = TypeVar("Q", bound=type[Quantizer])

_REGISTERED: dict[str, type[Quantizer]] = {}


def register(name: str) -> Callable[[Q], Q]:
    """Class decorator: make the class known as ``name``; contract tests then cover it."""

    def add(cls: Q) -> Q:
        if name in _REGISTERED:
            raise ValueError(f"a quantizer named {name!r} is registered already: {_REGISTERED[name].__name__}")
        cls.kind = name
        _REGISTERED[name] = cls
        return cls

    return add


def registered() -> dict[str, type[Quantizer]]:
    """Registered quantizer classes by name."""
    return dict(_REGISTERED)


def quantizer_class(name: str) -> type[Quantizer]:
    """The class registered as ``name``.

    Raises:
        ValueError: unknown; the message lists the known ones and the nearest.
    """
    if name not in _REGISTERED:
        near = difflib.get_close_matches(str(name), _REGISTERED, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown quantizer {name!r}; registered: {', '.join(sorted(_REGISTERED))}.{hint}")
    return _REGISTERED[name]


def pays_norm(name: str, metric: str = "l2") -> bool:
    """Whether codes of quantizers registered as ``name`` need ‖x̂‖² beside their tables under ``metric``."""
    return metric == "l2" and bool(quantizer_class(name).needs_norm)


def make(name: str, **config: Any) -> Quantizer:
    """A new quantizer of the class registered as ``name``: ``make("residual", dim=128, M=8)``.

    Raises:
        ValueError: an unknown name, or what the class refuses.
    """
    return quantizer_class(name).from_config(config)
