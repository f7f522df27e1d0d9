"""Where tables are printed."""

from typing import Any

TABLE_WIDTH = 160


def wide_console() -> Any:
    """A rich console on standard output that never cuts numbers short: lines too long for the terminal, or written to
    a file, stay whole."""
    from rich.console import Console

    console = Console()
    return console if console.width >= TABLE_WIDTH else Console(width=TABLE_WIDTH)
