"""The documentation site builds without a warning. (What guides say in Python: test_guides.py.)"""

import subprocess
import sys
from pathlib import Path

import pytest

import annvq

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(name)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", out / "trees", DOCS, out / "html"]
    # Elsewhere than in the checkout, whose package has no compiled kernels.
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=out)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_every_guide_is_on_the_site(site):
    front = (site / "index.html").read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).with_suffix(".html")
        if "_generated" not in page.parts:
            assert f'href="{page.as_posix()}"' in front or page.name == "index.html"
    assert (site / "search.html").is_file()


def test_lines_of_guides_fit_a_narrow_window():
    """Those of prose: tables, code and links are as wide as they must be."""
    wide = []
    for path in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]:
        code = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            prose = not code and not line.startswith("    ") and not line.lstrip().startswith("|")
            if prose and len(line) > 100 and "_generated" not in path.parts:
                wide.append(f"{path.name}:{number}")
    assert not wide


def test_results_have_their_table_picture_and_page(site):
    text = (site / "results.html").read_text(encoding="utf-8")
    assert "annvq RVQ" in text
    assert (site / "_images" / "quickstart.svg").is_file()
    assert "data-line=" in (site / "rows" / "quickstart.html").read_text(encoding="utf-8")


def test_docstrings_are_on_the_site(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    assert 'id="annvq.choosing.choose"' in text
    assert "bytes_per_vector" in text
    for package in (annvq, annvq.training):
        for name in package.__all__:
            full = f"{package.__name__}.{name}"
            documented = f'id="{full}"' in text or f'id="module-{full}"' in text
            assert documented or name in ("__version__", "training")
