"""Training histories as pictures."""

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from annvq.training.history import History


def plot_history(history: "History", path: str | os.PathLike[str]) -> None:
    """One figure, its format from the file's suffix: the loss over time, replaced entries over time, and how evenly
    each codebook is used (entries from the most to the least used)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    loss, usage, replaced = figure.subplot_mosaic([["loss", "usage"], ["replaced", "usage"]]).values()

    loss.plot(np.arange(1, len(history.loss) + 1), history.loss, lw=0.6, alpha=0.6, label="training batches")
    if history.validation:
        loss.plot(*np.array(history.validation).T, marker=".", label="validation")
        loss.axvline(history.best_step, color="0.6", lw=0.8, ls="--", label=f"kept: step {history.best_step}")
    loss.set(xlabel="step", ylabel="mean ‖x − x̂‖²", title="error", yscale="log")
    loss.legend()

    for m, counts in enumerate(history.usage):
        ordered = np.sort(np.array(counts, float))[::-1]
        usage.plot(
            np.linspace(0, 1, len(ordered)), ordered / max(1.0, ordered.sum()) * len(ordered), lw=1, label=f"{m}"
        )
    usage.axhline(1, color="0.6", lw=0.8, ls="--")
    usage.set(
        xlabel="entries, most used first",
        ylabel="use relative to even use",
        title=f"usage, last {history.usage_steps} steps",
    )
    if history.usage:
        usage.legend(title="codebook", ncols=2, fontsize="small")

    if history.replaced:
        steps = [s for s, _ in history.replaced]
        counts = np.array([c for _, c in history.replaced]).T
        replaced.stackplot(steps, counts, step="mid", labels=[str(m) for m in range(len(counts))])
    replaced.set(xlabel="step", ylabel="entries", title="replaced entries, by codebook")
    figure.savefig(path, dpi=120)
