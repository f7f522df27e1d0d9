"""Queries a second of annvq's scan and of others' over the same codes, asked in turn."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from annvq.benchmarks import metrics, rivals, vectors
from annvq.benchmarks.kinds.scan import codes
from annvq.benchmarks.kinds.scan.pairs import Effort, Side, compare
from annvq.benchmarks.kinds.scan.session import Scanned, Session
from annvq.benchmarks.kinds.scan.settings import OWN, cells, checked, indexes
from annvq.benchmarks.plan import Part, Plan, Point
from annvq.benchmarks.roles import Source
from annvq.benchmarks.suite import Suite
from annvq.benchmarks.vectors import Vectors
from annvq.types import I64

RANDOM = "random"
_RANDOM_DIM = 128
_QUERIES, _LEARN = 200, 50_000
_COLUMNS = (
    "qps", "rival_qps", "ratio", "cpu_ratio", "ns_per_vector", "lookups_per_ns", "ceiling_share", "own_simd",
    "rival_simd", "recall@1", "rival_recall@1", "same_ids",
)  # fmt: skip


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Every data set × grid."""
    settings = checked(suite)
    session = Session(suite.seeds[0], Effort(**settings["effort"]))
    grid = [cell for grid in settings["grids"] for cell in cells(grid, suite.threads)]
    # The same codes one after another: they are made once.
    grid.sort(key=lambda cell: (cell["code"], cell["M"], cell["n"]))
    largest = max(n for grid in settings["grids"] for n in grid["n"])

    def real(data: Vectors) -> list[Point]:
        def base(start: int, stop: int) -> Any:
            return data.base[start:stop]

        learn = data.learn[: codes.LEARN]
        source = Source(data.name, data.base.shape[1], len(data.base), data.queries, learn, base)
        return _points(session, Scanned(data.digest, source, data), {"dataset_digest": data.digest}, grid)

    def random() -> list[Point]:
        source = codes.random_source(_RANDOM_DIM, largest, session.seed)
        return _points(session, Scanned(RANDOM, source, None), {}, grid)

    names = [dataset] if dataset else settings["datasets"]
    limits = {"base": largest, "queries": _QUERIES, "learn": _LEARN}
    parts = vectors.parts(names, limits, len(grid), real, _COLUMNS)
    if settings["random"]:
        parts.append(Part(RANDOM, len(grid), random))
    return Plan(parts, session.close)


def _points(session: Session, scanned: Scanned, digest: dict[str, str], grid: list[dict[str, Any]]) -> list[Point]:
    """The cells of the grid that the data set has vectors for, and sub-spaces of equal dimensions."""
    source, points = scanned.source, []
    for cell in grid:
        if cell["n"] > source.n or (cell["code"] == "product" and source.dim % cell["M"]):
            continue
        scanned.sizes.setdefault((cell["code"], cell["M"]), set()).add(cell["n"])
        facts = {"dataset": source.name, **digest, "d": source.dim, "nq": len(source.queries), "method": _label(cell)}
        facts |= {**cell, "seed": session.seed, "effort": asdict(session.effort)}
        label = f"{source.name} · {facts['method']}"
        points.append(Point(label, facts, _COLUMNS, partial(_measure, session, scanned, facts)))
    return points


def _label(cell: dict[str, Any]) -> str:
    text = f"{cell['code']} {cell['M']}x8, n={cell['n']:,}, k={cell['k']}, {cell['queries']}, {cell['threads']} thr"
    text += f", {cell['filter']:.0%} filter" if cell["filter"] else ""
    return f"{text}{', AVX2' if cell['simd'] == 'avx2' else ''} · {cell['rival']}"


def _measure(session: Session, scanned: Scanned, cell: dict[str, Any]) -> dict[str, Any]:
    folder = session.folder(scanned, cell["code"], cell["M"])
    mine, keep = session.annvq(cell["simd"]), session.allowed(folder, cell["n"], cell["filter"])
    how = {"folder": folder, "n": cell["n"], "k": cell["k"], "single": cell["queries"] == "single"}
    own = {"index": "FlatIndex", **how}
    ours = Side(mine, threads=cell["threads"], keep=keep, **own)
    least = 1
    if cell["rival"] == "annvq unfiltered":
        theirs = [Side(mine, threads=cell["threads"], **own)]
    elif cell["rival"] == "annvq one thread":
        theirs = [Side(mine, threads=1, keep=keep, **own)]
    else:
        library = indexes(cell["code"])[cell["rival"]]
        theirs = [
            Side(worker, threads=cell["threads"], keep=keep, index=cell["rival"], **how)
            for worker in session.rival(library, cell["simd"])
        ]
        if cell["threads"] > 1 and not how["single"]:
            least = rivals.scans()[library].least_queries.get(cell["rival"], 1)
    row = compare(ours, theirs, cell["nq"], least, session.effort)
    lookups = cell["n"] * (cell["M"] + (cell["code"] == "residual"))
    row["ns_per_vector"] = 1e9 / (row["qps"] * cell["n"])
    row["lookups_per_ns"] = row["qps"] * lookups / 1e9
    cost = mine.lookup_cost()
    row["ceiling_share"] = None if cost is None or keep else row["lookups_per_ns"] * cost / cell["threads"]
    rival = next(side for side in theirs if side.worker.level == row["rival_simd"])
    return row if cell["rival"] in OWN else {**row, **_found(scanned, cell, folder, ours, rival)}


def _found(scanned: Scanned, cell: dict[str, Any], folder: Path, ours: Side, rival: Side) -> dict[str, float | None]:
    """What both find: the share of equal ids, and recall@1 on real data where nothing is filtered."""
    ids: list[I64] = []
    for side in (ours, rival):
        side.search(cell["nq"], ids=folder / "found.npy")
        ids.append(np.load(folder / "found.npy"))
    out: dict[str, float | None] = {"same_ids": float((ids[0] == ids[1]).mean())}
    data = scanned.real
    if data is not None and not cell["filter"]:
        base, nearest = data.base[: cell["n"]], scanned.neighbors(cell["n"])
        for name, found in zip(("recall@1", "rival_recall@1"), ids, strict=True):
            out[name] = metrics.recalls(metrics.hits(found, base, data.queries, nearest, "l2"))["recall@1"]
    return out
