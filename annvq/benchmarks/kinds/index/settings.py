"""What suites of indexes may say."""

from typing import Any

from annvq.benchmarks import rivals
from annvq.benchmarks.roles import check_options
from annvq.benchmarks.suite import Suite, check_settings

_LISTS = ("datasets", "systems", "queries")
_EFFORT: dict[str, Any] = {"repeats": 5, "budget_s": 3.0}


def checked(suite: Suite) -> dict[str, Any]:
    """The suite's settings with defaults, after checking them."""
    known: dict[str, Any] = {
        "datasets": list,
        "limits": dict,
        "systems": list,
        "queries": list,
        "effort": dict,
        "description": str,
    }
    check_settings(suite, known)
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
