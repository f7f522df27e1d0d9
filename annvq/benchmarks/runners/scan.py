"""Suites of kind ``scan``: queries a second of annvq's scan and of FAISS' over the same codes, asked in turn.

Each engine has processes of its own, FAISS one per SIMD level, of which the fastest is compared with. Product codes go
against ``IndexPQ`` over the same codes and ``IndexPQFastScan`` over as many bytes of 4-bit codes; sums of entries, with
a norm byte on both sides, against ``IndexResidualQuantizer`` and ``IndexLocalSearchQuantizer``.
"""

import itertools
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.benchmarks import metrics, rivals
from annvq.benchmarks.processes import Pool
from annvq.benchmarks.results import Row
from annvq.benchmarks.roles import Source
from annvq.benchmarks.runners import Plan, Point
from annvq.benchmarks.runners.codes import Vectors, load_dataset, prepare
from annvq.benchmarks.scanning import codes
from annvq.benchmarks.scanning.pairs import Effort, Scanner, Side, compare
from annvq.benchmarks.suite import Suite, check_settings
from annvq.datasets import exact_neighbors

CODES = ("product", "residual")
# annvq against itself: what a filter and a second thread bring.
OWN = ("annvq unfiltered", "annvq one thread")
RANDOM = "random"
_RANDOM_DIM = 128
_QUERIES = 200

_GRID: dict[str, tuple[tuple[Any, ...], type]] = {
    # key: (what it is without being said, type of each value)
    "code": (("product",), str),
    "M": ((8,), int),
    "n": ((100_000,), int),
    "k": ((10,), int),
    "queries": (("batch",), str),
    "threads": ((1,), int),
    "simd": (("best",), str),
    "filter": ((0.0,), float),
    "rivals": ((), str),
}
_COLUMNS = (
    "qps", "rival_qps", "ratio", "cpu_ratio", "ns_per_vector", "lookups_per_ns", "ceiling_share", "own_simd",
    "rival_simd", "recall@1", "rival_recall@1", "same_ids",
)  # fmt: skip


def indexes(code: str) -> dict[str, str]:
    """The indexes that annvq's scan of these codes can be compared with, and the libraries they are of."""
    return {index: library for library, scan in rivals.scans().items() for index in scan.indexes.get(code, ())}


@dataclass
class _Session:
    """The codes and processes of a run; both are kept from one point to the next."""

    seed: int
    effort: Effort
    sizes: dict[tuple[str, str, int], set[int]] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    real: dict[str, Vectors] = field(default_factory=dict)
    workers: Pool[Scanner] = field(default_factory=lambda: rivals.pool("scan", Scanner))
    held: tuple[str, str, int] | None = None
    root: Path | None = None
    nearest: dict[tuple[str, int], npt.NDArray[np.int64]] = field(default_factory=dict)

    def folder(self, key: tuple[str, str, int]) -> Path:
        """The codes of (data set, code, M), made when first asked for."""
        if self.held != key:
            self._forget()
            self.root = Path(tempfile.mkdtemp(prefix="annvq-scan-"))
            dataset, code, M = key
            codes.make(self.sources[dataset], code, M, sorted(self.sizes[key]), self.root / "codes", self.seed)
            self.held = key
        assert self.root is not None
        return self.root / "codes"

    def annvq(self, simd: str) -> Scanner:
        """annvq at the level that it takes, or at AVX2."""
        return self.workers.worker("annvq", "avx2" if simd == "avx2" else None)

    def rival(self, library: str, simd: str) -> list[Scanner]:
        """A library at each level that ``simd`` allows and this machine has."""
        if simd == "avx2":
            return [self.workers.worker(library, "AVX2")]
        return rivals.measured_at(self.workers, library)

    def neighbors(self, data: Vectors, n: int) -> npt.NDArray[np.int64]:
        """The nearest of the first n base vectors to each query, (nq, 1)."""
        if (data.name, n) not in self.nearest:
            self.nearest[data.name, n] = exact_neighbors(data.base[:n], data.queries, 1)[0]
        return self.nearest[data.name, n]

    def _forget(self) -> None:
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)
        self.root = self.held = None

    def close(self) -> None:
        """End the processes, drop the codes."""
        self.workers.close()
        self._forget()


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Every data set × grid."""
    settings = _checked(suite)
    names = [*([dataset] if dataset else settings["datasets"]), *([RANDOM] if settings["random"] else [])]
    session = _Session(suite.seeds[0], Effort(**settings["effort"]))
    points = []
    for name in names:
        identity = _open(name, session, settings)
        cells = itertools.chain.from_iterable(_cells(grid, suite.threads) for grid in settings["grids"])
        # The same codes one after another: they are made once.
        for cell in sorted(cells, key=lambda c: (c["code"], c["M"], c["n"])):
            if cell["n"] > session.sources[identity["dataset"]].n:
                continue
            key = (identity["dataset"], cell["code"], cell["M"])
            session.sizes.setdefault(key, set()).add(cell["n"])
            facts = {**identity, "method": _label(cell), **cell}
            facts |= {"seed": session.seed, "effort": asdict(session.effort)}
            label = f"{identity['dataset']} · {facts['method']}"
            points.append(Point(label, facts, _COLUMNS, partial(_measure, session, facts)))
    return Plan(points, session.close)


def _open(name: str, session: _Session, settings: dict[str, Any]) -> dict[str, Any]:
    """Have the data set at hand. Returns what identifies it."""
    largest = max(n for grid in settings["grids"] for n in grid["n"])
    if name == RANDOM:
        source = codes.random_source(_RANDOM_DIM, largest, session.seed)
        session.sources[RANDOM] = source
        return {"dataset": RANDOM, "d": source.dim, "nq": len(source.queries)}
    data = prepare(load_dataset(name), {"base": largest, "queries": _QUERIES, "learn": 50_000})
    session.real[data.name] = data
    session.sources[data.name] = Source(
        data.name,
        data.base.shape[1],
        len(data.base),
        data.queries,
        data.learn[: codes.LEARN],
        lambda a, b: data.base[a:b],
    )
    return {
        "dataset": data.name, "dataset_digest": data.digest, "d": data.base.shape[1], "nq": len(data.queries),
    }  # fmt: skip


def _cells(grid: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """All combinations of a grid, one rival each."""
    values = {**grid, "threads": [threads]} if threads else grid
    cells = []
    for combination in itertools.product(*(values[key] for key in _GRID)):
        cell = dict(zip(_GRID, combination, strict=True))
        rival = cell.pop("rivals")
        if rival in (*indexes(cell["code"]), *OWN):
            cells.append({**cell, "rival": rival})
    return cells


def _label(cell: dict[str, Any]) -> str:
    text = f"{cell['code']} {cell['M']}x8, n={cell['n']:,}, k={cell['k']}, {cell['queries']}, {cell['threads']} thr"
    text += f", {cell['filter']:.0%} filter" if cell["filter"] else ""
    return f"{text}{', AVX2' if cell['simd'] == 'avx2' else ''} · {cell['rival']}"


def _measure(session: _Session, cell: dict[str, Any]) -> dict[str, Any]:
    folder = session.folder((cell["dataset"], cell["code"], cell["M"]))
    mine, keep = session.annvq(cell["simd"]), _allowed(folder, cell, session.seed)
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
    return row if cell["rival"] in OWN else {**row, **_found(session, cell, folder, ours, rival)}


def _allowed(folder: Path, cell: dict[str, Any], seed: int) -> Path | None:
    """A file of the ids that the filter lets through, drawn by chance."""
    if not cell["filter"]:
        return None
    path = folder / f"keep-{cell['n']}-{cell['filter']}.npy"
    if not path.exists():
        some = np.random.default_rng([seed, 5]).choice(
            cell["n"], max(1, int(cell["n"] * cell["filter"])), replace=False
        )
        np.save(path, np.sort(some).astype(np.int64))
    return path


def _found(session: _Session, cell: dict[str, Any], folder: Path, ours: Side, rival: Side) -> dict[str, float | None]:
    """What both find: the share of equal ids, and recall@1 on real data where nothing is filtered."""
    ids: list[npt.NDArray[np.int64]] = []
    for side in (ours, rival):
        side.search(cell["nq"], ids=folder / "found.npy")
        ids.append(np.load(folder / "found.npy"))
    out: dict[str, float | None] = {"same_ids": float((ids[0] == ids[1]).mean())}
    data = session.real.get(cell["dataset"])
    if data is not None and not cell["filter"]:
        base, nearest = data.base[: cell["n"]], session.neighbors(data, cell["n"])
        for name, found in zip(("recall@1", "rival_recall@1"), ids, strict=True):
            out[name] = metrics.recalls(found, base, data.queries, nearest, "l2")["recall@1"]
    return out


def _checked(suite: Suite) -> dict[str, Any]:
    check_settings(suite, {"datasets": list, "grids": list, "effort": dict, "description": str, "random": int})
    settings: dict[str, Any] = {"datasets": ["patches"], "random": 1, "effort": {}, **suite.settings}
    where = f"suite {suite.name!r}"
    if not settings.get("grids"):
        raise ValueError(f"{where}: grids must be a list of at least one")
    settings["grids"] = [_checked_grid(where, grid) for grid in settings["grids"]]
    unknown = set(settings["effort"]) - set(Effort.__dataclass_fields__)
    if unknown or any(not isinstance(v, int | float) or v <= 0 for v in settings["effort"].values()):
        raise ValueError(f"{where}: effort holds positive {', '.join(Effort.__dataclass_fields__)}")
    return settings


def _checked_grid(where: str, grid: Any) -> dict[str, Any]:
    if not isinstance(grid, dict) or set(grid) - set(_GRID):
        raise ValueError(f"{where}: a grid has {', '.join(_GRID)}; got {grid!r}")
    full: dict[str, Any] = {key: list(default) for key, (default, _) in _GRID.items()} | grid
    full["filter"] = [float(f) if isinstance(f, int) else f for f in full["filter"]] if full["filter"] else []
    for key, (_, kind) in _GRID.items():
        values = full[key]
        if not isinstance(values, list) or not values or any(type(v) is not kind for v in values):
            raise ValueError(f"{where}: {key} must be a list of {kind.__name__}, at least one; got {values!r}")
        if kind is int and min(values) < 1:
            raise ValueError(f"{where}: {key} must be at least 1, got {min(values)}")
    allowed = {
        "code": CODES,
        "queries": ("batch", "single"),
        "simd": ("best", "avx2"),
        "rivals": (*itertools.chain.from_iterable(map(indexes, full["code"])), *OWN),
    }
    for key, known in allowed.items():
        wrong = [v for v in full[key] if v not in known]
        if wrong:
            raise ValueError(f"{where}: {key} must be among {', '.join(known)}; got {wrong[0]!r}")
    without = [r for r in full["rivals"] if r not in OWN and not _takes_filter(full["code"], r)]
    if any(full["filter"]) and without:
        raise ValueError(f"{where}: {without[0]} takes no filter; compare with {OWN[0]!r}")
    if any(not 0 <= f < 1 for f in full["filter"]):
        raise ValueError(f"{where}: filter is the share of ids let through, 0 (no filter) to below 1")
    return full


def _takes_filter(codes: list[str], index: str) -> bool:
    return all(rivals.scans()[indexes(c)[index]].filters for c in codes if index in indexes(c))


def tables(rows: list[Row]) -> list[Any]:
    """Rich tables, one per data set, threads and SIMD level."""
    from rich.table import Table

    from annvq.benchmarks.scanning import report as text

    out = []
    for title, group in text.grouped(rows).items():
        table = Table(title=title, title_justify="left")
        for at, name in enumerate(text.COLUMNS[:-1]):  # the last is for the report: a terminal is no wider
            table.add_column(name, justify="left" if at in text.LEFT else "right")
        for row in group:
            table.add_row(*text.cells(row)[:-1])
        out.append(table)
    return out


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png`` and ``report.md``."""
    from annvq.benchmarks.scanning import report as text

    text.picture(rows, out / "report.png", suite.title)
    (out / "report.md").write_text(text.markdown(suite, rows), encoding="utf-8")
