"""Errors that annvq raises beside plain ``ValueError`` and ``TypeError``."""


class NotFittedError(ValueError):
    """Something that learns from data was used before ``fit``."""


class FormatError(ValueError):
    """A file is not what it should be: wrong format, unknown version, truncated or corrupt."""
