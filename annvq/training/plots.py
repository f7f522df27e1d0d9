"""Training histories as pictures."""

import os
from collections.abc import Sequence

import numpy as np


def plot_training(
    path: str | os.PathLike[str],
    *,
    loss: Sequence[float],
    validation: Sequence[tuple[int, float]],
    replaced: Sequence[tuple[int, Sequence[int]]],
    usage: Sequence[Sequence[int]],
    usage_steps: int,
    best_step: int,
) -> None:
    """One figure, its format from the file's suffix: the loss over time, replaced entries over time, and how evenly
    each codebook is used (entries from the most to the least used). The arguments are the fields of a
    :class:`~annvq.training.History`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    loss_axis, usage_axis, replaced_axis = figure.subplot_mosaic([["loss", "usage"], ["replaced", "usage"]]).values()

    loss_axis.plot(np.arange(1, len(loss) + 1), loss, lw=0.6, alpha=0.6, label="training batches")
    if validation:
        loss_axis.plot(*np.array(validation).T, marker=".", label="validation")
        loss_axis.axvline(best_step, color="0.6", lw=0.8, ls="--", label=f"kept: step {best_step}")
    loss_axis.set(xlabel="step", ylabel="mean ‖x − x̂‖²", title="error", yscale="log")
    loss_axis.legend()

    for m, counts in enumerate(usage):
        ordered = np.sort(np.array(counts, float))[::-1]
        usage_axis.plot(
            np.linspace(0, 1, len(ordered)), ordered / max(1.0, ordered.sum()) * len(ordered), lw=1, label=f"{m}"
        )
    usage_axis.axhline(1, color="0.6", lw=0.8, ls="--")
    usage_axis.set(
        xlabel="entries, most used first",
        ylabel="use relative to even use",
        title=f"usage, last {usage_steps} steps",
    )
    if usage:
        usage_axis.legend(title="codebook", ncols=2, fontsize="small")

    if replaced:
        steps = [s for s, _ in replaced]
        counts = np.array([c for _, c in replaced]).T
        replaced_axis.stackplot(steps, counts, step="mid", labels=[str(m) for m in range(len(counts))])
    replaced_axis.set(xlabel="step", ylabel="entries", title="replaced entries, by codebook")
    figure.savefig(path, dpi=120)
