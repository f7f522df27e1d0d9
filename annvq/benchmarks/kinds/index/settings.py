"""What suites of indexes may say."""

from typing import Any

from annvq.benchmarks import rivals
from annvq.benchmarks.roles import check_options
from annvq.benchmarks.suite import Suite, check_settings

_LISTS = ("datasets", "systems", "streams", "queries")
_TABLES = {
    "effort": {"repeats": 5, "budget_s": 3.0},  # of searches
    # of adding to an index of n vectors, trained on so many: how well it codes them is not what is timed
    "stream": {"n": 1_000_000, "learn": 20_000, "repeats": 30, "budget_s": 5.0},
}


def checked(suite: Suite) -> dict[str, Any]:
    """The suite's settings with defaults, after checking them."""
    known: dict[str, Any] = dict.fromkeys(_LISTS, list) | dict.fromkeys((*_TABLES, "limits"), dict)
    check_settings(suite, {**known, "description": str})
    settings: dict[str, Any] = {"datasets": ["patches"], "limits": {}, "queries": ["batch"], **suite.settings}
    where = f"suite {suite.name!r}"
    for table, defaults in _TABLES.items():
        settings[table] = {**defaults, **settings.get(table, {})}
        if set(settings[table]) != set(defaults) or any(not v > 0 for v in settings[table].values()):
            raise ValueError(f"{where}: {table} holds positive {', '.join(defaults)}; got {settings[table]!r}")
    wrong = [q for q in settings["queries"] if q not in ("batch", "single")]
    if wrong or not settings["queries"]:
        raise ValueError(f"{where}: queries must be among batch, single; got {settings['queries']!r}")
    settings["streams"] = [_checked_stream(where, entry) for entry in settings.get("streams", [])]
    systems = settings.get("systems") or ([] if settings["streams"] else [None])
    settings["systems"] = [_checked_system(where, entry) for entry in systems]
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


def _checked_stream(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or "use" not in entry or set(entry) - {"use", "label", "group", "spec"}:
        raise ValueError(f"{where}: a stream has use, and may have label, group and spec; got {entry!r}")
    full = {"label": entry["use"], "group": "", "spec": {}, **entry}
    _check_known(full["use"], full["spec"], {})
    index = rivals.rival(full["use"]).index
    if index is None or not index.grows:
        raise ValueError(f"{where}: an index of {full['use']} cannot be added to once it is filled")
    return full


def _check_known(use: str, spec: dict[str, Any], settings: dict[str, Any]) -> None:
    """ValueError unless the library exists, has indexes, and knows all that is said of one."""
    known = {name: index for name in rivals.names() if (index := rivals.rival(name).index) is not None}
    if use not in known:
        raise ValueError(f"unknown system {use!r}; known: {', '.join(known)}")
    check_options(f"{use} spec", spec, known[use].spec_keys)
    check_options(f"{use} sweep", settings, known[use].setting_keys)
