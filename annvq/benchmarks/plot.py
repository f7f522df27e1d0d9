"""What pictures of results have in common. They are drawn without a display."""

from collections.abc import Sequence
from typing import Any

# Colours distinguishable without colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"


def figure(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5.2 * columns, 4.2 * rows + 0.6), dpi=130, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def style(methods: Sequence[str], method: str) -> dict[str, Any]:
    """How the line of one of these methods is drawn; others than annvq's are dashed."""
    at = methods.index(method)
    other = not method.startswith("annvq")
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[at % len(MARKERS)],
        "linestyle": "--" if other else "-",
        "markerfacecolor": "none" if other else None,
    }
