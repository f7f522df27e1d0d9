"""Suites of kind ``index``: queries a second against recall, of whole indexes at equal bytes.

Every system has its own process, FAISS one per SIMD level, of which each row takes the fastest. Vectors kept whole for
re-ranking, and the links of graphs, are stored bytes like any other.
"""

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from annvq.benchmarks import metrics, rivals
from annvq.benchmarks.processes import EndedError, Pool, Worker
from annvq.benchmarks.results import Row
from annvq.benchmarks.roles import check_options
from annvq.benchmarks.runners import Plan, Point
from annvq.benchmarks.runners.codes import Vectors, load_dataset, prepare
from annvq.benchmarks.suite import Suite, check_settings
from annvq.threads import usable_cores

_K = 10
_COLUMNS = (
    "qps", "recall@1", "10-recall@10", "bits_per_vector", "file_bytes_per_vector", "train_s", "add_s", "simd",
)  # fmt: skip
_EFFORT: dict[str, Any] = {"repeats": 5, "budget_s": 3.0}


@dataclass
class _Session:
    """The index being measured, in its processes."""

    seed: int
    folder: Path | None = None
    held: tuple[str, str] | None = None
    workers: Pool[Worker] = field(default_factory=lambda: rivals.pool("index", Worker))
    built: dict[str, Any] = field(default_factory=dict)
    loaded: str | None = None
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    holding: list[Worker] = field(default_factory=list)  # workers that have opened the index

    def index(self, data: Vectors, entry: dict[str, Any]) -> list[Worker]:
        """The processes that are asked for this entry's index, which is built when first asked for.

        Raises:
            RuntimeError: it could not be built, now or earlier.
        """
        key = (data.digest, entry["label"])
        if key in self.failed:
            raise RuntimeError(f"not built: {self.failed[key]}")
        if self.held != key:
            self._drop()
            try:
                self._build(self._vectors(data), entry)
            except RuntimeError as error:  # building it again for each setting would take long and end alike
                self.failed[key] = str(error)
                raise
            self.held = key
        return rivals.measured_at(self.workers, entry["use"])

    def _vectors(self, data: Vectors) -> Path:
        if self.loaded != data.digest or self.folder is None:
            self.close()
            self.folder = Path(tempfile.mkdtemp(prefix="annvq-index-"))
            for name in ("base", "learn", "queries"):
                np.save(self.folder / f"{name}.npy", getattr(data, name))
            self.loaded = data.digest
        return self.folder

    def _build(self, folder: Path, entry: dict[str, Any]) -> None:
        use = entry["use"]
        first = self.workers.worker(use)
        self.built = first.ask(
            do="build", folder=str(folder), name="index", spec=entry["spec"], seed=self.seed, threads=usable_cores()
        )
        if rivals.rival(use).best_of_levels:  # every level reads what was saved, the one that built it too
            first.close()
        else:
            self.holding.append(first)

    def open(self, worker: Worker) -> None:
        """Have the worker hold the index: one that has not built it reads what was saved."""
        if worker not in self.holding:
            worker.ask(do="open", folder=str(self.folder), name="index", threads=usable_cores())
            self.holding.append(worker)

    def _drop(self) -> None:
        self.workers.close()
        self.holding, self.held = [], None

    def close(self) -> None:
        """End the processes, drop the files."""
        self._drop()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = self.loaded = None


def plan(suite: Suite, dataset: str | None) -> Plan:
    """Data set × system × its settings × queries at once or one by one."""
    settings = _checked(suite)
    session, points = _Session(suite.seeds[0]), []
    for name in [dataset] if dataset else settings["datasets"]:
        data = prepare(load_dataset(name), settings["limits"])
        for entry in settings["systems"]:
            keys = list(entry["sweep"])
            for values in itertools.product(*entry["sweep"].values()):
                for queries in settings["queries"]:
                    facts = {
                        "dataset": data.name, "dataset_digest": data.digest, "metric": data.metric, "n": len(data.base),
                        "d": data.base.shape[1], "nq": len(data.queries), "n_learn": len(data.learn),
                        "learn_source": data.learn_source, "method": entry["label"], "use": entry["use"],
                        "spec": entry["spec"], "settings": dict(zip(keys, values, strict=True)), "queries": queries,
                        "threads": suite.threads or usable_cores(), "seed": session.seed, "effort": settings["effort"],
                        "group": entry["group"],
                    }  # fmt: skip
                    shown = ", ".join(f"{k} {v}" for k, v in facts["settings"].items())
                    label = f"{data.name} · {entry['label']} · {shown}, {queries}"
                    points.append(Point(label, facts, _COLUMNS, partial(_measure, session, data, entry, facts)))
    return Plan(points, session.close)


def _measure(session: _Session, data: Vectors, entry: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    library = rivals.rival(entry["use"])
    if not library.installed():
        raise ModuleNotFoundError(f"{library.package} is not installed (pip install {library.package})")
    workers = session.index(data, entry)
    assert session.folder is not None
    found = session.folder / "found.npy"
    timed: list[tuple[list[float], Worker]] = []
    tried: dict[str, float | str] = {}
    for worker in workers:
        try:
            session.open(worker)
            timed.append((_times(worker, facts, found), worker))
        except EndedError as error:
            tried[worker.level] = str(error)
        else:
            tried[worker.level] = facts["nq"] / median(timed[-1][0])
    if not timed:
        raise EndedError("; ".join(map(str, tried.values())))
    times, fastest = min(timed, key=lambda t: median(t[0]))
    recalls = metrics.recalls(np.load(found), data.base, data.queries, data.neighbors, data.metric)
    return {
        "qps": facts["nq"] / median(times),
        "qps_all": [facts["nq"] / t for t in times],
        "recall@1": recalls["recall@1"],
        "10-recall@10": recalls["10-recall@10"],
        "simd": fastest.level,
        "simd_qps": tried,
        **session.built,
    }


def _times(worker: Worker, facts: dict[str, Any], found: Path) -> list[float]:
    """Seconds of each measurement, every one of all queries; ``found`` gets the ids."""
    asked = {
        "do": "search", "settings": facts["settings"], "k": _K, "single": facts["queries"] == "single",
        "threads": facts["threads"],
    }  # fmt: skip
    first = worker.ask(**asked, nq=facts["nq"], calls=1, ids=str(found))["seconds"]  # warms up, and finds
    calls = max(1, int(0.1 / max(first, 1e-9)))
    times: list[float] = []
    while not times or (len(times) < facts["effort"]["repeats"] and sum(times) < facts["effort"]["budget_s"]):
        times.append(worker.ask(**asked, nq=facts["nq"], calls=calls)["seconds"] / calls)
    return times


def _checked(suite: Suite) -> dict[str, Any]:
    known = {"datasets": list, "limits": dict, "systems": list, "queries": list, "effort": dict, "description": str}
    check_settings(suite, {**known, "only": list})
    settings: dict[str, Any] = {"datasets": ["patches"], "limits": {}, "queries": ["batch"], **suite.settings}
    settings["effort"] = {**_EFFORT, **settings.get("effort", {})}
    where = f"suite {suite.name!r}"
    if set(settings["effort"]) != set(_EFFORT) or any(not v > 0 for v in settings["effort"].values()):
        raise ValueError(f"{where}: effort holds positive {', '.join(_EFFORT)}; got {settings['effort']!r}")
    wrong = [q for q in settings["queries"] if q not in ("batch", "single")]
    if wrong or not settings["queries"]:
        raise ValueError(f"{where}: queries must be among batch, single; got {settings['queries']!r}")
    settings["systems"] = [_checked_system(where, entry) for entry in settings.get("systems") or [None]]
    labels = [entry["label"] for entry in settings["systems"]]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise ValueError(f"{where}: two systems are called {twice.pop()!r}; give them labels")
    return settings


def _checked_system(where: str, entry: Any) -> dict[str, Any]:
    keys = {"use", "label", "group", "spec", "sweep"}
    if not isinstance(entry, dict) or not {"use", "sweep"} <= set(entry) or set(entry) - keys:
        raise ValueError(f"{where}: a system has use and sweep, and may have label, group and spec; got {entry!r}")
    full = {"label": entry["use"], "group": "", "spec": {}, **entry}
    _check_known(full["use"], full["spec"], full["sweep"])
    for key, values in full["sweep"].items():
        if not isinstance(values, list) or not values or any(type(v) is not int or v < 1 for v in values):
            raise ValueError(
                f"{where}: sweep of {full['label']}: {key} must be a list of positive integers, got {values!r}"
            )
    return full


def _check_known(use: str, spec: dict[str, Any], settings: dict[str, Any]) -> None:
    """ValueError unless the library exists, has indexes, and knows all that is said of one."""
    known = [name for name in rivals.names() if rivals.rival(name).index is not None]
    if use not in known:
        raise ValueError(f"unknown system {use!r}; known: {', '.join(known)}")
    index = rivals.rival(use).index
    assert index is not None
    check_options(f"{use} spec", spec, index.spec_keys)
    check_options(f"{use} sweep", settings, index.setting_keys)


def tables(rows: list[Row]) -> list[Any]:
    """Rich tables: queries a second at recalls, one per data set and group."""
    from rich.table import Table

    from annvq.benchmarks.indexing import report as text

    out = []
    for title, (header, lines) in text.at_recalls(rows).items():
        table = Table(title=title, title_justify="left")
        for at, name in enumerate(header):
            table.add_column(name, justify="right" if at else "left")
        for line in lines:
            table.add_row(*line)
        out.append(table)
    return out


def report(suite: Suite, rows: list[Row], out: Path) -> None:
    """``report.png``: queries a second against recall; ``report.md``: at recalls, and every row."""
    from annvq.benchmarks.indexing import report as text

    text.picture(rows, out / "report.png", suite.title)
    (out / "report.md").write_text(text.markdown(suite, rows), encoding="utf-8")
