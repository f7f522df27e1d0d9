"""The documentation site: ``sphinx-build -W docs docs/_build``, with what ``pip install 'annvq[docs]'`` brings.

Sphinx, since the docstrings are written for it (roles, Google's sections), and MyST, since the guides are Markdown that
is read in the repository too. Furo is light and dark, and made for phones.
"""

import base64
import json
import runpy
import shutil
from pathlib import Path

from annvq import __version__

HERE = Path(__file__).parent
GENERATED = HERE / "_generated"
NOTEBOOK = "from_vectors_to_an_index"
(GENERATED / "pages").mkdir(parents=True, exist_ok=True)  # Sphinx looks for it before it is filled

project = "annvq"
author = "The annvq developers"
copyright = author
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated/*.md", "results"]
suppress_warnings = ["myst.header"]  # the changelog's lists of changes come without a heading between
html_theme = "furo"
html_title = f"annvq {__version__}"
html_extra_path = ["_generated/pages"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types are in the signatures of the source; docstrings say shapes and dtypes
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def _in_the_site(source):
    """Links to files beside ``docs/`` lead to the pages that hold them."""
    for name, page in (("CONTRIBUTING.md", "contributing.md"), ("CHANGELOG.md", "changelog.md")):
        source[0] = source[0].replace(f"](../{name}", f"]({page}").replace(f"]({name}", f"]({page}")


def _results(app):
    """Tables, pictures and pages of the results that are kept in ``results/``."""
    from annvq.benchmarks import load_suite, webpage
    from annvq.benchmarks.kinds.codes import reporting as codes
    from annvq.benchmarks.kinds.paper import reporting as paper
    from annvq.training import History

    shutil.rmtree(GENERATED, ignore_errors=True)
    (GENERATED / "pages" / "rows").mkdir(parents=True)
    for file in sorted((HERE / "results").glob("*.jsonl")):
        suite, rows = load_suite(file.stem), webpage.read_results([file])
        reporting = {"codes": codes, "paper": paper}[suite.kind]
        text = reporting.markdown(suite, rows).replace("\n## ", "\n### ").replace("# ", "## ", 1)
        text = text.replace("![](report.png)", f"![{suite.title}](_generated/{file.stem}.svg)")
        (GENERATED / f"{file.stem}.md").write_text(text, encoding="utf-8")
        reporting.picture(rows, GENERATED / f"{file.stem}.svg", suite.title)
        if reporting is codes:
            codes.picture(rows, GENERATED / f"{file.stem}-bits.svg", "", ("bits_per_vector",))
        webpage.report(rows, GENERATED / "pages" / "rows" / f"{file.stem}.html", suite.title)
    History.load(HERE / "results" / "training.json").plot(GENERATED / "training.svg")
    for file in sorted((HERE / "results" / "examples").glob("*.json")):  # written by `python examples/… --json`
        draw = runpy.run_path(str(HERE.parent / "examples" / f"{file.stem}.py"))["draw"]
        draw(json.loads(file.read_text(encoding="utf-8")), GENERATED / f"{file.stem}.svg")


def _notebook(app):
    """The notebook as a page, with the outputs that are kept in it."""
    cells = json.loads((HERE.parent / "examples" / f"{NOTEBOOK}.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = []
    for i, cell in enumerate(cells):
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text.replace("](../docs/", "]("))
        for output in cell.get("outputs", ()):
            if said := "".join(output.get("text", ())).rstrip():
                parts.append(f"```text\n{said}\n```")
            if picture := output.get("data", {}).get("image/png"):
                name = f"notebook-{i}.png"
                (GENERATED / name).write_bytes(base64.b64decode(picture))
                parts.append(f"![What cell {i} draws](_generated/{name})")
    (GENERATED / "notebook.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def setup(app):
    app.connect("source-read", lambda app, docname, source: _in_the_site(source))
    app.connect("include-read", lambda app, relative_path, parent, source: _in_the_site(source))
    app.connect("builder-inited", _results)
    app.connect("builder-inited", _notebook)
