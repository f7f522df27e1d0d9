"""How many neighbours codes could find, were the vectors normal: a table of docs/embeddings.md.

    python benchmarks/normal_source.py PATH --bits 384
    python benchmarks/normal_source.py PATH --bits 384 --after residual:8:beam=16

Of all codes of so many bits of a normal source, the one of least squared error spends them by reverse water-filling
on the principal axes (Cover and Thomas, Elements of Information Theory, section 10.3.3). What such a code of endless
blocks would decode is drawn here, axis by axis, for the base of PATH, and searched by ⟨q, x̂⟩ / ‖x̂‖. Vectors are not
normal, and a code may gain by that: with ``--after`` a code of annvq comes first, which is charged, and what it leaves
over is taken for normal. PATH is an HDF5 file of the ann-benchmarks layout with `learn`, searched by cosine; axes and
energies are those of the base itself, which flatters such a code, if anything.
"""

from typing import Any

import click
import h5py
import numpy as np
from cosine import made, nearest, recalls

from annvq.arrays import normalized


def water_filled(energies: Any, bits: float) -> Any:
    """The least squared error of each axis, (d,), where ``bits`` in all are spent on axes of these energies (d,)."""
    low, high = 0.0, float(energies.max())
    for _ in range(100):
        level = (low + high) / 2
        wanted = 0.5 * np.log2(np.maximum(energies / level, 1)).sum()
        low, high = (level, high) if wanted > bits else (low, level)
    return np.minimum(energies, high)


def decoded(x: Any, bits: float, seed: int) -> tuple[Any, float]:
    """What the best code of ``bits`` would decode for x (n, d), were it normal, (n, d), and its squared error."""
    mean = x.mean(axis=0, dtype=np.float64)
    axes = np.linalg.eigh(np.cov((x - mean).T))[1]
    along = (x - mean) @ axes
    energies = np.square(along).mean(axis=0)
    errors = water_filled(energies, bits)
    kept = 1 - errors / energies
    noise = np.random.default_rng(seed).normal(size=along.shape) * np.sqrt(errors * kept)
    return ((kept * along + noise) @ axes.T + mean).astype(np.float32), float(errors.sum())


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option("--bits", multiple=True, type=int, default=(64, 128, 256, 384, 768), show_default=True)
@click.option("--after", help="A code that comes first: KIND:M:OPTION=VALUE, as benchmarks/cosine.py takes it.")
def main(path: str, bits: tuple[int, ...], after: str | None) -> None:
    with h5py.File(path) as file:
        learn, base, queries = (normalized(np.asarray(file[n], np.float32), n) for n in ("learn", "train", "test"))
        true = np.asarray(file["neighbors"])[:, :10]
    first, charged = np.zeros_like(base), 0
    if after is not None:
        quantizer: Any = made(after, base.shape[1]).fit(learn)
        first, charged = quantizer.decode(quantizer.encode(base)), sum(quantizer.bits_per_codebook)
    for budget in bits:
        if budget <= charged:
            raise click.ClickException(f"--bits {budget} must be more than the {charged} bits of --after {after}")
        rest, error = decoded(base - first, budget - charged, seed=0)
        found = nearest(-(queries @ normalized(first + rest, "x̂").T))
        print(f"{budget} bits, error {error:.4f}: {recalls(found, true)}", flush=True)


if __name__ == "__main__":
    main()
