"""Fits quantizers together with other processes of this program: ``fit_over_processes.py OUT KIND…``.

Each quantizer goes to OUT/KIND.annvq, if the first process has it. ``DIES=RANK`` in the environment has that process
killed after the first part of each recipe (stopped, with ``HANGS=1``), ``KEEP=1`` keeps what is learned in
OUT/KIND.learning, ``TIMEOUT`` is how long one waits for another.
"""

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

import annvq
from annvq import storage
from annvq.training import Processes
from annvq.training.progress import FORMAT, VERSIONS


def vectors():
    """Learn vectors of three strong directions, a few of them far out."""
    rng = np.random.default_rng(0)
    scales = np.array([9, 5, 3] + [1] * 9, np.float32)
    x = (rng.normal(size=(1500, 12)) * scales + rng.normal(size=12)).astype(np.float32)
    x[7:10] *= 1e6
    return x


def untrained(kind):
    if kind == "rotated-residual":  # not along the axes, so that rows are turned on their way to the codebooks
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0].astype(np.float32)
        return annvq.Transformed(annvq.Rotation.from_matrix(turn), annvq.ResidualVQ(12, M=2, nbits=4))
    if kind == "unequal":
        return annvq.ProductVQ(12, M=5, nbits=[5, 4, 3, 2, 1])
    if kind.endswith("-norm-free"):
        return annvq.make(kind.removesuffix("-norm-free"), dim=12, M=3, nbits=4, norm_free=True)
    return annvq.make(kind, dim=12, M=4 if kind.endswith("-additive") else 3, nbits=4)


@dataclass(frozen=True)
class Dying:
    """A part at whose beginning a process of the run is killed, or hangs."""

    part: object
    over_processes: ClassVar[bool] = True

    def __call__(self, quantizer, data):
        if os.environ.get("DIES") == str(data.processes.rank):
            os.kill(os.getpid(), signal.SIGKILL if "HANGS" not in os.environ else signal.SIGSTOP)
        self.part(quantizer, data)


def fit_all(out, kinds):
    x = vectors()
    with Processes.started(timeout=float(os.environ.get("TIMEOUT", "60"))) as processes:
        for kind in kinds:
            quantizer = untrained(kind)
            recipe = replace(quantizer.default_recipe(), max_rows=1400)
            if "DIES" in os.environ:
                first, second, *others = recipe.parts
                recipe = replace(recipe, parts=(first, Dying(second), *others))
            kept = out / f"{kind}.learning" if "KEEP" in os.environ else None
            quantizer.fit(x, seed=3, recipe=recipe, processes=processes, checkpoint=kept)
            if processes.rank == 0:
                quantizer.save(out / f"{kind}.annvq")


def parts_done(out, kind):
    """How many parts of a recipe a checkpoint holds."""
    return storage.read(out / f"{kind}.learning", FORMAT, VERSIONS).config["done"]


if __name__ == "__main__":
    annvq.set_num_threads(1)
    fit_all(Path(sys.argv[1]), sys.argv[2:])
