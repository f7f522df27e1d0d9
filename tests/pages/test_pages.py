"""A page is one file that needs nothing else, says what it was given, and works in a browser."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from annvq.pages import LIMIT_BYTES, Chart, Column, Line, Page, Section, Value, charts, write

RECALLS = ("recall@1", "10-recall@10")


def page_of(n=6, data=(), **more):
    """Two methods of n lines; the second has the lower recall, and its third line failed."""
    columns = {
        "bits": Column("bits", better="lower"), **{r: Column(r, better="higher", recall=True) for r in RECALLS},
        "qps": Column("queries/s", better="higher"),
    }  # fmt: skip

    def line(method, at):
        recall = (at + 1) / (n + 1) - 0.05 * (method == "dull & <b>")
        values = {
            "bits": Value(8 * (at + 1), str(8 * (at + 1))),
            "recall@1": Value(recall / 2, f"{recall / 2:.3f}"),
            "10-recall@10": Value(recall, f"{recall:.3f} ±.010", recall - 0.01, recall + 0.01),
            "qps": Value(1e5 / (at + 1), f"{1e5 / (at + 1):,.0f}", 0.9e5 / (at + 1), 1.1e5 / (at + 1), "≈" * (at == 1)),
        }
        facets = {"data set": "photos" if at < n - 1 else "words"}
        if method != "keen" and at == 2:
            return Line(method, "failing", {}, facets, f"annvq bench {at}", error="failed: ValueError: no </script>")
        return Line(method, f"line {at}", values, facets, f"annvq bench {at}")

    lines = [line(method, at) for method in ("keen", "dull & <b>") for at in range(n)]
    drawn = [
        Chart("{y} against bits", "bits", "bits per vector"),
        Chart("{y} against queries a second", "qps", "queries a second", log_x=True),
        Chart("queries a second against bits", "bits", "bits per vector", y="qps", log_y=True, joined=False),
    ]
    section = Section("Codes", "What was measured.", columns, lines, drawn)
    return Page(
        "Codes & more", [section], "A lead.", [{"processor": "one <of> many"}], ["A note.", "long" * 60], data, **more
    )


class Seen(HTMLParser):
    """Elements that name other files, and the words of the page less its scripts."""

    def __init__(self):
        super().__init__()
        self.links, self.text, self.inside = [], "", []

    def handle_starttag(self, tag, attrs):
        self.inside.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.text += data


def test_a_page_needs_no_other_file(tmp_path):
    size = write(page_of(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert size == len(text.encode()) < LIMIT_BYTES
    seen = Seen()
    seen.feed(text)
    assert seen.links == []
    assert not re.search(r"@import|url\(", text.split("</style>")[0])
    for word in (
        "Codes & more",
        "A lead.",
        "dull & <b>",
        "failed: ValueError: no </script>",
        "one <of> many",
        "A note.",
    ):
        assert word in seen.text
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text).group(1))
    assert len(data["sections"][0]["lines"]) == 12
    assert data["sections"][0]["lines"][0]["10-recall@10 low"] == pytest.approx(1 / 7 - 0.01)


def files_of(path):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    return {name: base64.b64decode(held) for name, held in json.loads(data.group(1))["downloads"].items()}


ROWS = [{"method": "a, b", "qps": 2, "all": [1, 2], "error": None}, {"method": "c", "qps": 2.5, "more": "x"}]


def test_downloads_hold_the_rows(tmp_path):
    write(page_of(data=ROWS), tmp_path / "page.html")
    files = files_of(tmp_path / "page.html")
    assert files["results.csv"].decode().split("\r\n")[:3] == [
        "method,qps,all,error,more", '"a, b",2,"[1, 2]",,', "c,2.5,,,x"
    ]  # fmt: skip
    assert [json.loads(line) for line in files["results.jsonl"].decode().splitlines()] == ROWS


def test_parquet_holds_the_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(page_of(data=ROWS), tmp_path / "page.html")
    table = parquet.read_table(io.BytesIO(files_of(tmp_path / "page.html")["results.parquet"]))
    assert table.to_pydict() == {
        "method": ["a, b", "c"], "qps": [2.0, 2.5], "all": ["[1, 2]", None], "error": [None, None],
        "more": [None, "x"],
    }  # fmt: skip


def test_a_page_stays_small(tmp_path):
    large = [{"method": "m", "text": "x" * 1000}] * 4000
    size = write(page_of(data=large), tmp_path / "page.html")
    assert size < LIMIT_BYTES
    assert files_of(tmp_path / "page.html") == {}
    assert "would make this page too large" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"would have [\d,]+ bytes for 16,000 lines; give fewer results"):
        write(page_of(n=8000), tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_methods_look_different():
    methods = [f"method {at}" for at in range(56)]
    assert len({charts.look(methods, method) for method in methods}) == 56


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    """Chromium without a display, and its driver; both are Debian packages, and Selenium is a Python one."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


def opened(browser, path, width=1280, scheme="light"):
    shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)
    browser.get(path.as_uri())
    settled(browser, "document.documentElement.dataset.drawn")


def settled(browser, condition):
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
    return wait(browser, 20).until(lambda b: b.execute_script(f"return {condition}"))


@pytest.fixture
def shown(browser, tmp_path):
    path = tmp_path / "page.html"
    write(page_of(data=ROWS), path)
    opened(browser, path)
    yield browser
    assert browser.get_log("browser") == []


def points(chart=0):
    return f"document.querySelectorAll('#s0c{chart} .mark-symbol path').length"


def test_what_was_left_out_is_no_failure(tmp_path):
    lines = [
        Line("one", "", {}, error="failed: no memory"),
        Line("two", "", {}, error="not measured: it would take about 9 s", failed=False),
    ]
    page = Page("Codes", [Section("S", "", {"bits": Column("bits")}, lines)], "A lead.", headline="Take <two>.")
    write(page, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert '<p class="headline">Take &lt;two&gt;.</p>\n<p>A lead.</p>' in text
    assert 'class="failed">failed: no memory</td>' in text
    assert 'class="skipped">not measured: it would take about 9 s</td>' in text


def test_charts_are_drawn(shown):
    for chart in range(3):
        assert shown.execute_script(f"return {points(chart)}") == 9  # the first data set's, less one that failed
    # What screen readers are told of a point.
    label = shown.execute_script("return document.querySelector('#s0c0 .mark-symbol path').getAttribute('aria-label')")
    assert "keen" in label
    assert (
        shown.execute_script("return document.querySelector('#s0c0 .mark-symbol path').getBoundingClientRect().x") > 0
    )


def test_the_slider_bounds_recall_and_the_selector_chooses_it(shown):
    def reached():
        rows = shown.execute_script(
            "return [...document.querySelectorAll('.reached tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        )
        return {row[0]: row[1:] for row in rows}

    def slide(value):
        shown.execute_script(
            "const s = document.querySelector('.target'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
            value,
        )

    slide(0.4)
    # Fewest bits, and most queries a second: the third line of the one, the fourth of the other (its third failed).
    assert reached() == {"keen": ["24", "33,333"], "dull & <b>": ["32", "25,000"]}
    slide(0.7)
    assert reached() == {"keen": ["40", "20,000"], "dull & <b>": ["–", "–"]}
    faint = "document.querySelectorAll('#s0c0 .mark-symbol path[opacity=\"0.35\"]').length"
    settled(shown, f"{faint} === 8")
    shown.execute_script(
        "const m = document.querySelector('.measure'); m.value = 'recall@1'; m.dispatchEvent(new Event('change'))"
    )
    assert reached() == {"keen": ["–", "–"], "dull & <b>": ["–", "–"]}
    assert shown.execute_script("return document.querySelector('figcaption').textContent") == "recall@1 against bits"


def test_tables_are_sorted(shown):
    def order():
        return shown.execute_script(
            "return [...document.querySelectorAll('.lines tbody tr')].map(r => Number(r.dataset.line))"
        )

    heads = "document.querySelectorAll('.lines thead button')"
    shown.execute_script(f"{heads}[4].click()")  # queries a second, least first; lines of the second method follow
    assert order() == [5, 11, 4, 10, 3, 9, 2, 1, 7, 0, 6, 8]
    shown.execute_script(f"{heads}[4].click()")
    assert order() == [0, 6, 1, 7, 2, 3, 9, 4, 10, 5, 11, 8]  # what failed stays last
    assert shown.execute_script(f"return {heads}[4].parentNode.getAttribute('aria-sort')") == "descending"
    shown.execute_script(f"{heads}[0].click()")
    assert order()[0] == 6  # by name


def test_legend_and_selectors_choose_lines(shown):
    shown.execute_script("document.querySelector('[data-method=keen]').click()")
    settled(shown, f"{points()} === 4")
    assert shown.execute_script("return document.querySelectorAll('.lines tbody tr:not([hidden])').length") == 5
    shown.execute_script("document.querySelector('[data-method=keen]').click()")
    shown.execute_script(
        "const f = document.querySelector('[data-facet]'); f.value = 'words'; f.dispatchEvent(new Event('change'))"
    )
    settled(shown, f"{points()} === 2")


def test_charts_and_rows_are_saved(shown):
    shown.execute_script(
        "window.saved = []; HTMLAnchorElement.prototype.click = function () {"
        " window.saved.push([this.download, this.href.slice(0, 40)]); };"
        "for (const b of document.querySelectorAll('figure:first-child button, [data-download]')) b.click();"
    )
    settled(shown, "window.saved.length >= 4")
    saved = dict(shown.execute_script("return window.saved"))
    assert saved["chart.png"].startswith("data:image/png")
    assert saved["chart.svg"].startswith("blob:")
    assert saved["results.csv"].startswith("data:application/octet-stream;base64,")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways(browser, tmp_path, scheme):
    path = tmp_path / "page.html"
    write(page_of(), path)
    opened(browser, path, width=390, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.execute_script("return document.querySelector('h1').getBoundingClientRect().top") >= 8  # not cut off
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != back
    assert browser.get_log("browser") == []
