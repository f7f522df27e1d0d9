"""Paths that callers give."""

import os
from typing import Any


def check_path(path: Any, name: str) -> str:
    """``path``, a str or :class:`os.PathLike`, as a str.

    Raises:
        TypeError: anything else, bytes too; the message calls it ``name``.
    """
    found = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(found, str):
        raise TypeError(f"{name} must be a path (str or os.PathLike), got {type(path).__name__}")
    return found


def home_hint(path: str) -> str:
    """What to add to an error where a path that begins with ``~`` is not there."""
    return " (~ is not expanded: os.path.expanduser does)" if path.startswith("~") else ""
