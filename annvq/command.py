"""The program ``annvq``: the command line, or one line on what it needs and does not find."""

import sys
from importlib import import_module

from annvq.optional import needed_by


def main() -> None:
    """Run the command line and exit."""
    try:
        with needed_by("the annvq command"):
            cli = import_module("annvq.cli")
    except ImportError as e:
        sys.stderr.write(f"annvq: {e}\n")
        sys.exit(1)
    cli.main()
