"""A page as one HTML file: tables are written out, so that they are read without scripts; scripts sort and draw."""

import base64
import csv
import importlib.util
import io
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from annvq._version import __version__
from annvq.pages import charts
from annvq.pages.content import Chart, Column, Line, Page, Section, Value
from annvq.replacing import replacing

LIMIT_BYTES = 5 << 20
_ASSETS = Path(__file__).parent / "assets"
_LIBRARIES = ("vega/vega.min.js", "vega/vega-lite.min.js", "vega/vega-embed.min.js")
_FIRST = "10-recall@10"  # of the measures, where there is this one
_SYMBOLS = {
    "circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "triangle-down": "▼", "cross": "✚",
    "triangle-right": "▶",
}  # fmt: skip


def write(page: Page, path: str | os.PathLike[str]) -> int:
    """Write a page, in place of what is there; returns its size in bytes.

    A page that would be larger than :data:`LIMIT_BYTES` leaves out what can be downloaded from it and says so.

    Raises:
        ValueError: it would be larger even then: it has too many lines.
    """
    text = _html(page, _downloads(page.data))
    if len(text.encode()) > LIMIT_BYTES and page.data:
        text = _html(page, {})
    size = len(text.encode())
    if size > LIMIT_BYTES:
        lines = sum(len(section.lines) for section in page.sections)
        raise ValueError(f"{path} would have {size:,} bytes for {lines:,} lines; give fewer results")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return size


def _html(page: Page, downloads: Mapping[str, str]) -> str:
    asset = {name: (_ASSETS / name).read_text(encoding="utf-8") for name in (*_LIBRARIES, "page.css", "page.js")}
    data = {"sections": [_section_data(s) for s in page.sections], "downloads": downloads}
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta name="generator" content="annvq {__version__}">',
        f"<title>{escape(page.title)}</title><style>{asset['page.css']}</style></head><body>",
        '<header><button id="theme" type="button" aria-label="Light or dark">◐</button>',
        f"<h1>{escape(page.title)}</h1>",
        *([f'<p class="headline">{escape(page.headline)}</p>'] if page.headline else []),
        *(f"<p>{escape(text)}</p>" for text in page.lead.splitlines()),
        "</header><main>",
        "<noscript><p>Charts, sorting and downloads need JavaScript; the tables do not.</p></noscript>",
        *(_section(at, s, len(page.environments)) for at, s in enumerate(page.sections)),
        _closing(page, downloads),
        "</main>",
        # "<" is written otherwise, since "</" would end the element.
        f'<script type="application/json" id="data">{_json(data)}</script>',
        *(f"<script>{asset[name]}</script>" for name in (*_LIBRARIES, "page.js")),
        "</body></html>",
    ]
    return "\n".join(parts)


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _section_data(section: Section) -> dict[str, Any]:
    """What scripts need of a section: its lines as charts take them, and the charts."""
    return {
        "charts": [
            {"title": c.title, "fixed": c.y is not None, "spec": charts.spec(c, section)} for c in _charts(section)
        ],
        "costs": [
            {"name": name, "title": c.title, "better": c.better}
            for name, c in section.columns.items()
            if c.better and name in {chart.x for chart in _charts(section)}
        ],
        "lines": [_line_data(line, section.columns) for line in section.lines],
    }


def _charts(section: Section) -> list[Chart]:
    """The charts whose columns there are."""
    recall = bool(charts.recall_columns(section))
    has_y = {chart: chart.y in section.columns if chart.y else recall for chart in section.charts}
    return [chart for chart in section.charts if chart.x in section.columns and has_y[chart]]


def _line_data(line: Line, columns: Mapping[str, Column]) -> dict[str, Any]:
    out: dict[str, Any] = {"method": line.method, "detail": line.detail, "facets": dict(line.facets)}
    for name in columns:
        value = line.values.get(name)
        if value is None or value.number is None:
            continue
        out |= {name: value.number, f"{name} text": value.shown}
        if value.low is not None and value.high is not None:
            out |= {f"{name} low": value.low, f"{name} high": value.high}
    return out


def _section(at: int, section: Section, environments: int) -> str:
    head = f'<section id="s{at}"><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>'
    figures = "".join(
        f'<figure><figcaption></figcaption><div class="chart" id="s{at}c{c}"></div>'
        '<div class="save"><button type="button" data-save="png">PNG</button>'
        '<button type="button" data-save="svg">SVG</button></div></figure>'
        for c in range(len(_charts(section)))
    )
    body = _controls(section) + (f'<div class="charts">{figures}</div>' if figures else "")
    if charts.recall_columns(section):
        body += (
            '<h3>What reaches this recall</h3><p class="hint">Of each method the best figures among its lines that '
            'reach the recall set above; –: none does.</p><div class="scroll"><table class="reached"></table></div>'
        )
    return f"{head}{body}<h3>All that was measured</h3>{_table(section, environments)}</section>"


def _controls(section: Section) -> str:
    facets: dict[str, dict[str, None]] = {}
    for line in section.lines:
        for name, value in line.facets.items():
            facets.setdefault(name, {})[value] = None
    selects = [
        f"<label>{escape(name)} <select data-facet='{escape(name)}'>"
        + ("" if name == "data set" else '<option value="">all</option>')
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select></label>"
        for name, values in facets.items()
        if len(values) > 1
    ]
    recalls = charts.recall_columns(section)
    if recalls:
        first = _FIRST if _FIRST in recalls else next(iter(recalls))
        options = "".join(
            f'<option value="{escape(name)}"{" selected" if name == first else ""}>{escape(c.title)}</option>'
            for name, c in recalls.items()
        )
        selects.append(f'<label>recall <select class="measure">{options}</select></label>')
        selects.append(
            '<label class="bound">at least <input class="target" type="range" min="0" max="1" step="0.01" value="0.5">'
            "<output>0.50</output></label>"
        )
    methods = charts.methods_of(section)
    measured = dict.fromkeys(line.method for line in section.lines if not line.error)
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-method="{escape(method)}">'
        f'<span style="color:{colour}" aria-hidden="true">{_SYMBOLS[shape]}</span> {escape(method)}</button>'
        for method in measured
        for colour, shape in (charts.look(methods, method),)
    )
    legend = f'<div class="legend" role="group" aria-label="Methods shown">{buttons}</div>' if _charts(section) else ""
    return f'<div class="controls">{"".join(selects)}</div>{legend}'


def _table(section: Section, environments: int) -> str:
    heads = [Column("method", text=True), *section.columns.values()]
    row = "".join(
        f'<th scope="col" title="{escape(c.help)}"{"" if c.text else " class=n"}>'
        f'<button type="button">{escape(c.title)}</button></th>'
        for c in heads
    )
    # A command that is the same for all lines stands elsewhere.
    again = len({line.command for line in section.lines}) > 1 or environments > 1
    body = "".join(
        f'<tr data-line="{at}">{_cells(line, section.columns)}'
        + (f"<td>{_command(line, environments)}</td></tr>" if again else "</tr>")
        for at, line in enumerate(section.lines)
    )
    return (
        '<div class="scroll"><table class="lines"><thead><tr>'
        f"{row}{again * '<th scope=col>again</th>'}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(line: Line, columns: Mapping[str, Column]) -> str:
    first = f'<th scope="row">{escape(line.method)}</th>'
    if line.error:
        kind = "failed" if line.failed else "skipped"
        return f'{first}<td colspan="{len(columns)}" class="{kind}">{escape(line.error)}</td>'
    return first + "".join(_cell(line.values.get(name), column) for name, column in columns.items())


def _cell(value: Value | None, column: Column) -> str:
    if value is None:
        return f"<td{'' if column.text else ' class=n'}>–</td>"
    half = ""
    if value.low is not None and value.high is not None:
        half = f' title="95 % interval {value.low:.4g} to {value.high:.4g}"'
    mark = f'<abbr title="cannot be told from the best">{escape(value.mark)}</abbr> ' if value.mark else ""
    key = "" if value.number is None else f' data-v="{value.number:.9g}"'
    kind = " ".join(["n"] * (not column.text) + ["best"] * value.best)
    of_class = f' class="{kind}"' if kind else ""
    return f"<td{of_class}{key}{half}>{mark}{escape(value.shown)}</td>"


def _command(line: Line, environments: int) -> str:
    where = f' <a href="#where{line.where}">on {line.where + 1}</a>' if environments > 1 else ""
    return f'<button type="button" class="copy">copy</button> <code>{escape(line.command)}</code>{where}'


def _closing(page: Page, downloads: Mapping[str, str]) -> str:
    out = []
    if page.environments:
        out.append("<section><h2>Measured on</h2>")
        for at, environment in enumerate(page.environments):
            rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in environment.items())
            out.append(f'<dl id="where{at}">{rows}</dl>')
        out.append("</section>")
    if page.data:
        buttons = "".join(f'<button type="button" data-download="{name}">{name}</button>' for name in downloads)
        text = buttons or "The rows would make this page too large; they are in the files that it was made from."
        out.append(f'<section><h2>Download the rows</h2><p class="save">{text}</p></section>')
    if page.notes:
        out.append("<section><h2>Notes</h2>" + "".join(f"<p>{escape(note)}</p>" for note in page.notes) + "</section>")
    out.append(f"<footer><p>Made by annvq {escape(__version__)}. Charts: Vega-Lite (BSD licence).</p></footer>")
    return "".join(out)


def _downloads(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Files of the rows by name, each in base64: CSV, JSON lines, and Parquet where pyarrow is installed."""
    if not rows:
        return {}
    names = list(dict.fromkeys(name for row in rows for name in row))
    flat = [{name: _flat(row.get(name)) for name in names} for row in rows]
    table = io.StringIO()
    writer = csv.DictWriter(table, names)
    writer.writeheader()
    writer.writerows(flat)
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    files = {"results.csv": table.getvalue().encode(), "results.jsonl": lines.encode()}
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        columns = {name: pyarrow.array(_one_type([row[name] for row in flat])) for name in names}
        pyarrow.parquet.write_table(pyarrow.table(columns), sink, compression="zstd")
        files["results.parquet"] = sink.getvalue()
    return {name: base64.b64encode(held).decode() for name, held in files.items()}


def _flat(value: Any) -> Any:
    """A value as a cell: lists and tables as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value


def _one_type(values: list[Any]) -> list[Any]:
    """A column of values of one type: words where numbers and words are mixed."""
    types = {type(value) for value in values if value is not None}
    if types <= {int, float} or len(types) < 2:
        return [float(v) if v is not None and types == {int, float} else v for v in values]
    return [None if value is None else str(value) for value in values]
