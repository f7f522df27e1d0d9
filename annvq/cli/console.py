"""Where tables are printed."""

from rich.console import Console

TABLE_WIDTH = 160


def wide_console() -> Console:
    """A rich console on standard output that never cuts numbers short: lines too long for the terminal, or written to
    a file, stay whole."""
    console = Console()
    return console if console.width >= TABLE_WIDTH else Console(width=TABLE_WIDTH)
