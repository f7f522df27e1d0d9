"""Sets that need no network: patches of photographs, and samples of normal distributions.

``patches``: the 8×8 grey patches (d = 64, uint8) of the two photographs that scikit-learn ships. Base patches
lie wholly in some tiles of the photographs, learn patches in others and queries in the rest, so that no pixel
is shared between the three.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.datasets.dataset import Vectors, check_positive

PATCHES_LICENCE = "CC BY 2.0 (photographs: china.jpg by ultraviolet, flower.jpg by dany13, shipped with scikit-learn)"

_PATCH = 8
_TILE = 48
N, N_LEARN, NQ = 100_000, 20_000, 1_000
#: One row of tiles after another takes its roles from this cycle; its length shares no factor with a row's
#: tiles.
_ROLES = "bbqblbbl"


def patches() -> tuple[Vectors, Vectors, Vectors]:
    """``(base (100000, 64), learn (20000, 64), queries (1000, 64))``, uint8, the same on every call.

    Each set has distinct rows; no query equals a base or learn row, no learn row equals a base row.
    """
    pools: dict[str, list[npt.NDArray[np.uint8]]] = {"b": [], "l": [], "q": []}
    tile = 0
    for photo in _photographs():
        for top in range(0, photo.shape[0] - _TILE + 1, _TILE):
            for left in range(0, photo.shape[1] - _TILE + 1, _TILE):
                role = _ROLES[tile % len(_ROLES)]
                pools[role].append(_cut(photo[top : top + _TILE, left : left + _TILE]))
                tile += 1
    rng = np.random.default_rng(0)
    queries = _draw(pools["q"], NQ, [], rng)
    base = _draw(pools["b"], N, [queries], rng)
    learn = _draw(pools["l"], N_LEARN, [queries, base], rng)
    return base, learn, queries


def normal(
    d: int,
    n: int = 10_000,
    n_learn: int = 10_000,
    nq: int = 1_000,
    *,
    correlation: float = 0.0,
    seed: int = 0,
) -> tuple[Vectors, Vectors, Vectors]:
    """``(base, learn, queries)`` float32 samples of a normal distribution of dimension ``d``.

    Every component has mean 0 and variance 1; components i and j have correlation ``correlation ** |i - j|``
    (a first-order autoregressive process).

    Raises:
        ValueError: a size that is not positive, or a correlation outside [0, 1).
    """
    for name, value in (("d", d), ("n", n), ("n_learn", n_learn), ("nq", nq)):
        check_positive(name, value)
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation must be in [0, 1), got {correlation}")
    parts: list[Any] = []
    # One stream each: a larger base leaves learn and queries as they were.
    for rows, child in zip((n, n_learn, nq), np.random.SeedSequence(seed).spawn(3), strict=True):
        x = np.random.default_rng(child).standard_normal((rows, d), dtype=np.float32)
        for i in range(1, d if correlation else 0):
            x[:, i] = correlation * x[:, i - 1] + np.float32(np.sqrt(1 - correlation**2)) * x[:, i]
        parts.append(x)
    return parts[0], parts[1], parts[2]


def _photographs() -> list[npt.NDArray[np.uint8]]:
    from sklearn.datasets import load_sample_images

    # Integer arithmetic (ITU-R BT.601 luma): the same grey everywhere.
    weights = np.array([299, 587, 114], np.int64)
    return [
        ((image.astype(np.int64) @ weights + 500) // 1000).astype(np.uint8) for image in load_sample_images().images
    ]


def _cut(tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """All patches that lie wholly in ``tile``, one per row."""
    windows = np.lib.stride_tricks.sliding_window_view(tile, (_PATCH, _PATCH))
    return windows.reshape(-1, _PATCH * _PATCH)


def _draw(
    pool: list[npt.NDArray[np.uint8]], size: int, taken: list[npt.NDArray[np.uint8]], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """``size`` distinct rows of the pool, none of them in ``taken``, in random order."""
    rows = np.concatenate(pool)
    rows = rows[rng.permutation(len(rows))]
    keys = _row_keys(rows)
    _, first = np.unique(keys, return_index=True)
    keep = np.zeros(len(rows), bool)
    keep[first] = True
    for other in taken:
        keep &= ~np.isin(keys, _row_keys(other))
    return np.ascontiguousarray(rows[keep][:size])


def _row_keys(rows: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    rows = np.ascontiguousarray(rows)
    return rows.view(f"V{rows.shape[1]}")[:, 0]
