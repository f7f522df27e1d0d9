"""Charts as Vega-Lite specifications (https://vega.github.io/vega-lite/docs/)."""

from collections.abc import Sequence
from typing import Any

from annvq.pages.content import Chart, Column, Section

# Colours that can be told apart without colour vision (Okabe and Ito), none of which vanishes on white or on dark grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#C78500", "#3AA0D8", "#7A7A7A", "#8A6FD1")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")


def methods_of(section: Section) -> list[str]:
    """The section's methods in order of appearance."""
    return list(dict.fromkeys(line.method for line in section.lines))


def look(methods: Sequence[str], method: str) -> tuple[str, str]:
    """Colour and shape of a method. Their numbers have no common divisor: 56 methods differ."""
    at = methods.index(method)
    return COLOURS[at % len(COLOURS)], SHAPES[at % len(SHAPES)]


def spec(chart: Chart, section: Section) -> dict[str, Any]:
    """The specification of a chart. Its data is named ``lines``; its parameters are ``measure`` and ``target``.

    Of a line the data has ``method`` and ``detail``, and for each column its name, and the name with `` low``,
    `` high`` and `` text``.
    """
    methods = methods_of(section)
    looks = [look(methods, method) for method in methods]
    measure = chart.y or next(name for name, column in section.columns.items() if column.recall)
    colour = {
        "field": "method",
        "type": "nominal",
        "scale": {"domain": methods, "range": [c for c, _ in looks]},
        "legend": None,
    }
    shape = {
        "field": "method",
        "type": "nominal",
        "scale": {"domain": methods, "range": [s for _, s in looks]},
        "legend": None,
    }
    x = {
        "field": "x",
        "type": "quantitative",
        "title": chart.x_title,
        "scale": _scale(chart.log_x),
        "axis": {"labelOverlap": True, "labelFlush": True, "tickCount": 6, "format": ",.4~r"},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": None,
        "scale": _scale(chart.log_y),
        "axis": {"tickCount": 6},
    }
    reached = (
        {"condition": {"test": "datum.y >= target", "value": 1}, "value": 0.35} if chart.y is None else {"value": 1}
    )
    tooltip = [
        {"field": "method", "title": "method"},
        {"field": "detail", "title": " "},
        {"field": "y text", "title": section.columns[chart.y].title if chart.y else "recall"},
        {"field": "x text", "title": chart.x_title},
    ]
    interval = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    layers: list[dict[str, Any]] = []
    if chart.joined:
        layers.append(
            {
                "mark": {"type": "line", "strokeWidth": 1.5, "opacity": 0.7},
                "encoding": {"x": x, "y": y, "color": colour},
            }
        )
    layers += [
        {
            "transform": [{"filter": f"isValid(datum.low) && isValid(datum.high){_above_zero('low', chart.log_y)}"}],
            "mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.8},
            "encoding": {"x": x, **interval, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 55, "stroke": "transparent", "strokeWidth": 12},
            "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "opacity": reached, "tooltip": tooltip},
        },
    ]
    if chart.y is None:
        bound = {
            "data": {"values": [{}]},
            "transform": [{"calculate": "target", "as": "y"}],
            "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.2},
            "encoding": {"y": {"field": "y", "type": "quantitative"}},
        }
        layers.append(bound)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": chart.title.replace("{y}", "recall"),
        "width": "container",
        "height": 300,
        "autosize": {"type": "fit", "contains": "padding"},
        "params": [{"name": "measure", "value": measure}, {"name": "target", "value": 0.5}],
        "data": {"name": "lines"},
        "transform": [
            {"calculate": "datum[measure]", "as": "y"},
            *({"calculate": f"datum[measure + ' {part}']", "as": part} for part in ("low", "high")),
            {"calculate": "datum[measure + ' text']", "as": "y text"},
            {"calculate": f"datum['{chart.x}']", "as": "x"},
            {"calculate": f"datum['{chart.x} text']", "as": "x text"},
            {
                "filter": "isValid(datum.x) && isValid(datum.y)"
                + _above_zero("x", chart.log_x)
                + _above_zero("y", chart.log_y)
            },
        ],
        "layer": layers,
    }


def _above_zero(field: str, log: bool) -> str:
    """What a filter asks besides of what a logarithmic axis shows."""
    return f" && datum.{field} > 0" if log else ""


def _scale(log: bool) -> dict[str, Any]:
    """An axis that ends a little beyond what is drawn, wherever zero is."""
    return {**({"type": "log"} if log else {"zero": False}), "nice": False, "padding": 14}


def recall_columns(section: Section) -> dict[str, Column]:
    """The measures that the section's selector offers."""
    return {name: column for name, column in section.columns.items() if column.recall}
