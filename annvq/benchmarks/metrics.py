"""What a row measures: the table of columns, and recall that ties do not cost.

Recall goes by distance, not by id. The harness computes the exact distances of all results itself, in
float64, in the same way as those of the true neighbours:

``recall@R`` (1-recall@R)
    share of queries for which one of the first R results is no farther than the true nearest neighbour.
``k-recall@k``
    share of the first k results that are no farther than the true k-th neighbour, averaged over queries.

A base vector as near as the true neighbour is thus a right answer whatever its id. Ids below zero (no
result) never count, and an id that occurs twice counts once.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK_VALUES = 1 << 24
_ERROR_BLOCKS = 32


@dataclass(frozen=True)
class Column:
    """One measured column: how it is called in tables and plots, and which direction is better."""

    title: str
    unit: str
    better: str  # "lower" or "higher"
    format: str


COLUMNS: dict[str, Column] = {
    "bits_per_vector": Column("bits", "bits per vector, code and norm", "lower", ".0f"),
    "mse": Column("MSE", "mean of ‖x − x̂‖²", "lower", ".4g"),
    "recall@1": Column("recall@1", "share of queries", "higher", ".3f"),
    "recall@10": Column("recall@10", "share of queries", "higher", ".3f"),
    "recall@100": Column("recall@100", "share of queries", "higher", ".3f"),
    "10-recall@10": Column("10-recall@10", "share of neighbours", "higher", ".3f"),
    "train_s": Column("train s", "seconds", "lower", ".1f"),
    "encode_us": Column("encode µs", "measured time of encoding, µs per vector", "lower", ".2f"),
    "wmops": Column("WMOPS", "counted cost of encoding, WMOPS per vector", "lower", ".3g"),
    "search_us": Column("search µs", "µs per query, in a batch", "lower", ".0f"),
}

RECALLS: dict[str, tuple[int, int]] = {  # name: (true neighbours, results looked at)
    "recall@1": (1, 1),
    "recall@10": (1, 10),
    "recall@100": (1, 100),
    "10-recall@10": (10, 10),
}
_NAME = re.compile(r"(?:([1-9]\d*)-)?recall@([1-9]\d*)")


def k_recall(k: int) -> str:
    """The name of k-recall@k; of one neighbour that is recall@1."""
    return "recall@1" if k == 1 else f"{k}-recall@{k}"


def meaning(name: str) -> tuple[int, int] | None:
    """How many true neighbours a measure of recall is of, and how many results it looks at, by its name: those of
    :data:`RECALLS` and of any other numbers. None of other columns."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found[1] or 1), int(found[2]))


def _meanings(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    return {name: what for name in names if (what := meaning(name)) is not None}


def exact_distances(
    base: npt.NDArray[Any], queries: npt.NDArray[Any], ids: npt.NDArray[Any], metric: str
) -> npt.NDArray[np.float64]:
    """Distances (nq, k) of queries to base rows ``ids`` (nq, k) in float64; +inf where an id is negative."""
    out = np.full(ids.shape, np.inf)
    step = max(1, _BLOCK_VALUES // max(1, ids.shape[1] * base.shape[1]))
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        rows = base[np.maximum(part, 0)].astype(np.float64)
        asked = queries[start : start + step, None, :].astype(np.float64)
        if metric == "l2":
            values = ((asked - rows) ** 2).sum(-1)
        else:
            values = -(asked * rows).sum(-1)
            if metric == "cosine":
                lengths = np.sqrt((rows**2).sum(-1)) * np.sqrt((asked**2).sum(-1))
                values = 1 + values / lengths
        out[start : start + step] = np.where(part < 0, np.inf, values)
    return out


def hits(
    ids: npt.NDArray[Any],
    base: npt.NDArray[Any],
    queries: npt.NDArray[Any],
    neighbors: npt.NDArray[Any],
    metric: str,
    names: Iterable[str] = RECALLS,
) -> dict[str, npt.NDArray[np.int64]]:
    """How many of the true neighbours each query found (nq,), by ``names``.

    Names for which ``ids`` (nq, k) has too few results or ``neighbors`` too few columns are left out.
    """
    asked = _meanings(names)
    wanted = max((true for true, _ in asked.values() if true <= neighbors.shape[1]), default=0)
    k = ids.shape[1]
    both = exact_distances(base, queries, np.hstack([ids, neighbors[:, :wanted]]), metric)
    found, truth = both[:, :k].copy(), both[:, k:]
    found[_repeats(ids)] = np.inf
    out: dict[str, npt.NDArray[np.int64]] = {}
    for name, (true, among) in asked.items():
        if true > wanted or among > k:
            continue
        # The farthest of the first neighbours: what a file lists need not be in float64's order.
        threshold = truth[:, :true].max(axis=1, keepdims=True)
        out[name] = np.minimum((found[:, :among] <= threshold).sum(axis=1), true)
    return out


def first_ranks(
    ids: npt.NDArray[Any],
    base: npt.NDArray[Any],
    queries: npt.NDArray[Any],
    neighbors: npt.NDArray[Any],
    metric: str,
) -> npt.NDArray[np.int64]:
    """Where among the results ``ids`` (nq, k) of each query the first stands that is no farther than its true nearest
    neighbour: (nq,), counted from 0; k where there is none. 1-recall@R is the share that is below R."""
    both = exact_distances(base, queries, np.hstack([ids, neighbors[:, :1]]), metric)
    right = both[:, :-1] <= both[:, -1:]
    return np.where(right.any(axis=1), right.argmax(axis=1), ids.shape[1])


def recalls(counts: dict[str, npt.NDArray[np.int64]], names: Iterable[str] = RECALLS) -> dict[str, float | None]:
    """All of ``names`` from what :func:`hits` found; None where it left a name out."""
    return {
        name: float(counts[name].mean() / true) if name in counts else None
        for name, (true, _) in _meanings(names).items()
    }


def _repeats(ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where an id has occurred before in its row."""
    order = np.argsort(ids, axis=1, kind="stable")
    ranked = np.take_along_axis(ids, order, axis=1)
    again = np.zeros(ids.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    return again


def squared_errors(
    x: npt.NDArray[Any], decode: Callable[[int, int], npt.NDArray[Any] | None], step: int = 1 << 14
) -> npt.NDArray[np.float64] | None:
    """‖x − x̂‖² of each row (n,); ``decode(start, stop)`` gives x̂ of these rows, or None where nobody can say."""
    errors = np.empty(len(x))
    for start in range(0, len(x), step):
        part = x[start : start + step].astype(np.float64)
        decoded = decode(start, start + len(part))
        if decoded is None:
            return None
        errors[start : start + step] = ((part - decoded) ** 2).sum(axis=1)
    return errors


def mean_error(errors: npt.NDArray[np.float64] | None) -> dict[str, Any]:
    """The columns ``mse`` and ``mse_blocks``: the mean of ``errors`` (n,), and of each of 32 equal parts of them.

    The parts tell how sure the mean is, and two codes of the same vectors are compared by them part by part.
    """
    if errors is None:
        return {"mse": None}
    blocks = np.array_split(errors, min(_ERROR_BLOCKS, len(errors)))
    return {"mse": float(errors.mean()), "mse_blocks": [float(block.mean()) for block in blocks]}
