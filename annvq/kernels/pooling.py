"""Labels for stored codes, so that near entries of a codebook share their low bits.

A table of minima over entries that share their low 7, 6, … bits is a lower bound of the table at a fraction of the
look-up's cost, and the closer the entries, the closer the bound. Labels never change a result.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from annvq.types import F32

_SIZE = 256
_ROUNDS = 200


def near_labels(codebooks: Sequence[F32]) -> npt.NDArray[np.uint8]:
    """(M, 256) permutations: the label to store for each entry of M codebooks (K_m, width), K_m at most 256.

    Entries are paired, pairs paired, and so on, each time so that the squared distances within groups sum to little
    (greedy matching, then exchanges between two pairs while one helps). The pairing of level i is bit 7 − i.
    """
    return np.stack([_labels(np.asarray(book, np.float64)) for book in codebooks])


def _labels(book: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    labels = np.arange(_SIZE, dtype=np.uint8)
    if len(book) < _SIZE:  # a short table fits few registers as it is
        return labels
    groups = np.arange(_SIZE)[:, None]  # (groups, members)
    squares = (book**2).sum(1)
    # Σ over members a of one group and b of another of ‖a − b‖². By einsum, whose sums are the same with any BLAS, and
    # which has no threads that wait for one another on a busy machine: a product this small takes them longer.
    apart = squares[:, None] + squares - 2 * np.einsum("id,jd->ij", book, book)
    while len(groups) > 1:
        a, b = _matching(apart).T
        groups = np.concatenate([groups[a], groups[b]], axis=1)
        apart = apart[a] + apart[b]
        apart = apart[:, a] + apart[:, b]
    # The last pairing is the lowest bit: member i's bits, most significant first, say its side in each pairing.
    bits = np.arange(_SIZE)
    reverse = sum(((bits >> b) & 1) << (7 - b) for b in range(8))
    labels[groups[0]] = reverse
    return labels


def _matching(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Pairs (n/2, 2) of n things with a small sum of costs."""
    a, b = np.triu_indices(len(cost), 1)
    order = np.argsort(cost[a, b], kind="stable")
    free = [True] * len(cost)
    pairs = []
    for i, j in zip(a[order].tolist(), b[order].tolist(), strict=True):  # lists: thousands of steps, one number each
        if free[i] and free[j]:
            free[i] = free[j] = False
            pairs.append((i, j))
    return _exchange(np.array(pairs), cost)


def _exchange(pairs: npt.NDArray[np.int64], cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Exchange partners between two pairs at a time while that lowers the sum."""
    pairs = pairs.copy()
    for _ in range(_ROUNDS):
        x, y = pairs.T
        now = cost[x, y]
        straight = cost[np.ix_(x, x)] + cost[np.ix_(y, y)] - now[:, None] - now  # (x, x'), (y, y')
        crossed = cost[np.ix_(x, y)] + cost[np.ix_(x, y)].T - now[:, None] - now  # (x, y'), (x', y)
        gain = np.minimum(straight, crossed)
        np.fill_diagonal(gain, 0)
        moved = np.zeros(len(pairs), dtype=np.bool_)
        partner = gain.argmin(1)
        for i in np.argsort(gain[np.arange(len(pairs)), partner], kind="stable"):
            j = partner[i]
            if gain[i, j] > -1e-9 * (1 + now.mean()):
                break
            if moved[i] or moved[j]:
                continue
            moved[[i, j]] = True
            (p, q), (r, s) = pairs[i], pairs[j]
            pairs[i], pairs[j] = ((p, r), (q, s)) if straight[i, j] < crossed[i, j] else ((p, s), (r, q))
        if not moved.any():
            break
    return pairs
