"""What is on a page: sections of lines, columns and charts. Values, not HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column of a section's table.

    Attributes:
        title: its heading; ``help`` says more, in a tooltip.
        better: ``"lower"``, ``"higher"`` or None where no value is the better one.
        recall: a measure that the page's selector offers and its slider bounds.
        text: values are words.
    """

    title: str
    help: str = ""
    better: str | None = None
    recall: bool = False
    text: bool = False


@dataclass(frozen=True)
class Value:
    """A cell: the number by which it is sorted and drawn (None for words), as shown, with its interval.

    ``mark`` stands before it: what cannot be told from the best, which is ``best``.
    """

    number: float | None
    shown: str
    low: float | None = None
    high: float | None = None
    mark: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A line of the table, and a point of the charts.

    Attributes:
        method: what the charts colour and the legend names.
        detail: what tells the method's lines from each other, for tooltips.
        values: by column.
        facets: what the page's selectors choose by, name to value.
        command: reproduces the line; not shown where it is the same for all lines.
        error: why there are no values, in words that the line shows.
        where: which of the page's environments it was measured in, from 0.
        failed: whether what ``error`` says is that something went wrong.
    """

    method: str
    detail: str
    values: Mapping[str, Value]
    facets: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    error: str = ""
    where: int = 0
    failed: bool = True


@dataclass(frozen=True)
class Chart:
    """A chart of a section.

    Attributes:
        title: what it shows; ``{y}`` stands for the chosen measure of recall.
        x: a column.
        y: a column; None for the measure that is chosen on the page, with the slider's bound.
        x_title: with its unit.
        log_x, log_y: logarithmic axes.
        joined: a line joins a method's points.
    """

    title: str
    x: str
    x_title: str
    y: str | None = None
    log_x: bool = False
    log_y: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Section:
    """A heading, an explanation, selectors, charts and a table of all lines."""

    title: str
    text: str
    columns: Mapping[str, Column]
    lines: Sequence[Line]
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Page:
    """All of a page.

    Attributes:
        title: of the page.
        headline: the one thing to know, below it.
        lead: a few sentences below that; each line is a paragraph.
        environments: what was measured on, each a table of names and values.
        notes: sentences at the end.
        data: rows as they were measured, JSON values, for the downloads.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    environments: Sequence[Mapping[str, str]] = ()
    notes: Sequence[str] = ()
    data: Sequence[Mapping[str, Any]] = ()
    headline: str = ""
