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

from annvq.benchmarks import metrics
from annvq.benchmarks.indexing import systems
from annvq.benchmarks.processes import Worker, faiss_levels
from annvq.benchmarks.results import Row
from annvq.benchmarks.runners import Plan, Point
from annvq.benchmarks.runners.codes import Vectors, load_dataset, prepare
from annvq.benchmarks.suite import Suite, check_settings
from annvq.threads import usable_cores

_K = 10
_MODULE = "annvq.benchmarks.indexing.worker"
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
    workers: list[Worker] = field(default_factory=list)
    built: dict[str, Any] = field(default_factory=dict)
    loaded: str | None = None

    def index(self, data: Vectors, entry: dict[str, Any]) -> list[Worker]:
        """The processes that hold this entry's index, built when first asked for."""
        key = (data.digest, entry["label"])
        if self.held != key:
            self._drop()
            self._build(self._vectors(data), entry)
            self.held = key
        return self.workers

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
        first = Worker(_MODULE, use)
        self.workers = [first]
        self.built = first.ask(
            do="build", folder=str(folder), name="index", spec=entry["spec"], seed=self.seed, threads=usable_cores()
        )
        if use not in systems.LEVELS:
            return
        first.close()
        self.workers = []
        for level in faiss_levels():
            try:
                self.workers.append(Worker(_MODULE, use, level))
            except RuntimeError:
                continue
        self.workers = self.workers or [Worker(_MODULE, use)]
        for worker in self.workers:
            worker.ask(do="open", folder=str(folder), name="index")

    def _drop(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers, self.held = [], None

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
    if not systems.installed(entry["use"]):
        raise ModuleNotFoundError(f"{entry['use']} is not installed (pip install {entry['use']})")
    workers = session.index(data, entry)
    assert session.folder is not None
    asked = {
        "do": "search", "settings": facts["settings"], "k": _K, "single": facts["queries"] == "single",
        "threads": facts["threads"],
    }  # fmt: skip
    found = session.folder / "found.npy"
    timed: list[tuple[list[float], Worker]] = []
    for worker in workers:
        first = worker.ask(**asked, nq=facts["nq"], calls=1, ids=str(found))["seconds"]  # warms up, and finds
        calls = max(1, int(0.1 / max(first, 1e-9)))
        times: list[float] = []
        while not times or (len(times) < facts["effort"]["repeats"] and sum(times) < facts["effort"]["budget_s"]):
            times.append(worker.ask(**asked, nq=facts["nq"], calls=calls)["seconds"] / calls)
        timed.append((times, worker))
    times, fastest = min(timed, key=lambda t: median(t[0]))
    recalls = metrics.recalls(np.load(found), data.base, data.queries, data.neighbors, data.metric)
    return {
        "qps": facts["nq"] / median(times),
        "qps_all": [facts["nq"] / t for t in times],
        "recall@1": recalls["recall@1"],
        "10-recall@10": recalls["10-recall@10"],
        "simd": fastest.level,
        **session.built,
    }


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
    systems.check(full["use"], full["spec"], full["sweep"])
    for key, values in full["sweep"].items():
        if not isinstance(values, list) or not values or any(type(v) is not int or v < 1 for v in values):
            raise ValueError(
                f"{where}: sweep of {full['label']}: {key} must be a list of positive integers, got {values!r}"
            )
    return full


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
