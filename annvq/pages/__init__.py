"""Pages that show results: one HTML file each, with tables, charts and downloads, that needs nothing but itself.

A page is a value (:class:`Page`); :func:`write` makes the file. Charts are Vega-Lite specifications. Of the plotting
libraries that can be put into a page it is the one whose charts are data, made and tested in Python; that draws SVG
with labels for screen readers, tooltips and exports; and that is small enough: 0.8 MB, where the smallest bundle of
Plotly has 1.2 MB, and the one that its Python package brings 4.6 MB. uPlot (50 kB) draws on a canvas, which exports no
SVG; Observable Plot with D3 (0.5 MB) leaves legends and exports to code of ours. ``assets/vega/`` has the three
files as npm distributes them (``npm pack vega vega-lite vega-embed``), with their licences.
"""

from annvq.pages.content import Chart, Column, Line, Page, Section, Value
from annvq.pages.render import LIMIT_BYTES, write

__all__ = ["LIMIT_BYTES", "Chart", "Column", "Line", "Page", "Section", "Value", "write"]
