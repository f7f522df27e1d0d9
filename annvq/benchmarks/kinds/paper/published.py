"""The published figures, read from the user's copy of them: the folder ``Results`` of the authors' repository, or any
folder with its JSON files under whatever names end in theirs.

The copy is only read. Nothing of it is part of annvq.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METHODS = ("AVQ", "RVQ", "PVQ")


@dataclass(frozen=True)
class Curve:
    """Published values by what they are plotted over (bits or T), with their 5 % and 95 % quantiles where given."""

    mean: Mapping[int, float]
    low: Mapping[int, float] = field(default_factory=dict)
    high: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What was found.

    Attributes:
        errors: mean squared errors by data and dimension (``("correlated", 64)``), by method, over bits.
        recall: by figure (``"5"``, ``"6a"``), by method, over T.
        wmops: counted cost, not its logarithm, by figure (``"4c"``, ``"6b"``), by method, over bits.
    """

    errors: dict[tuple[str, int], dict[str, Curve]] = field(default_factory=dict)
    recall: dict[str, dict[str, Curve]] = field(default_factory=dict)
    wmops: dict[str, dict[str, Curve]] = field(default_factory=dict)


def read(folder: Path) -> Published:
    """The published figures in ``folder`` and the folders below it. Other JSON files are passed over.

    Raises:
        ValueError: none is there, or one of them does not hold what it should.
    """
    found = Published()
    for path in sorted(folder.rglob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict):
                _take(found, path.stem, data)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a published figure that can be read: {error}") from None
    if not (found.errors or found.recall or found.wmops):
        raise ValueError(
            f"published: no published figures in {folder}: expected JSON files of the authors' repository, such as "
            "correlated_dataset_Fig2-a.json"
        )
    return found


def _take(found: Published, name: str, data: Mapping[str, Any]) -> None:
    """Take what a file holds, where it is one of the figures."""
    metric = data.get("Metric")
    if metric == "MSE" and "VQ Bitrate" in data:
        dim = int(data.get("Data Dimension", 64))
        kind = str(data.get("Data", "Uncorrelated")).lower()
        found.errors[kind, dim] = dict(_curves(data, _bits(data)))
    elif metric == "Recall @ T":
        figure = "6a" if "RVQ baseline" in data else "5"
        found.recall[figure] = dict(_curves(data, [int(T) for T in data["T"]]))
    elif str(metric).startswith("Complexity (log10") and name.endswith(("Fig4-c", "Fig6-b")):
        curves = {m: dict(zip(_bits(data), (10.0**v for v in data[m]), strict=True)) for m in METHODS}
        found.wmops["4c" if name.endswith("4-c") else "6b"] = {m: Curve(values) for m, values in curves.items()}


def _bits(data: Mapping[str, Any]) -> list[int]:
    """``"12 bits"`` and so on as numbers."""
    return [int(text.split()[0]) for text in data["VQ Bitrate"]]


def _curves(data: Mapping[str, Any], at: list[int]) -> Iterator[tuple[str, Curve]]:
    """The methods' curves over ``at``, by their short names; baselines have theirs."""
    for key, values in data.items():
        method = key.partition(" ")[2] if key.startswith("Mean (") else key if key.endswith("baseline") else ""
        if not method:
            continue
        limits = [
            dict(zip(at, data[f"Quantile {end} {method}"], strict=True)) if f"Quantile {end} {method}" in data else {}
            for end in ("Low", "High")
        ]
        short = method.strip("()").removesuffix(" proposed")
        yield short, Curve(dict(zip(at, map(float, values), strict=True)), *limits)
