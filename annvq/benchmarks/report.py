"""What reports have in common."""

from collections.abc import Iterable, Mapping, Sequence

from annvq.benchmarks.plan import ABSENT
from annvq.benchmarks.results import Row
from annvq.benchmarks.statistics import SAME, Figure, figure_of, same_as_best
from annvq.benchmarks.suite import Suite


def heading(suite: Suite, rows: Sequence[Row], how: str = "") -> list[str]:
    """First lines of a report: its title, and where its rows were measured, and ``how``."""
    lines = [f"# {suite.title or suite.name}", ""]
    return [*lines, f"Measured with {environment_line(rows[-1])}.{how}", ""] if rows else lines


def environment_line(row: Row) -> str:
    """Where a row was measured, in one line."""
    env = row["env"]
    versions = env["versions"]
    shown = ("annvq", "faiss-cpu", "torch")
    libraries = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    commit = f", commit {env['commit']}" if env.get("commit") else ""
    return f"{env['cpu']}, SIMD {env['simd']}, {env['threads']} threads; {libraries}{commit}; {row['date']}"


def split_absent(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows of data sets that could be had, and lines that say why others could not."""
    missing = [f"Not measured: {row['dataset']}: {row['error']}" for row in rows if row["method"] == ABSENT]
    return [row for row in rows if row["method"] != ABSENT], ["", *missing] if missing else []


def over_seeds(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of one table by method, in order of appearance: those of a method differ in their seed alone."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    return methods


def measured(rows: Sequence[Row]) -> list[Row]:
    """Those that could be measured."""
    return [row for row in rows if row["error"] is None]


def seeds_note(rows: Sequence[Row]) -> str:
    """ ", 3 seeds" where rows are of several."""
    return f", {len(rows)} seeds" if len(rows) > 1 else ""


def number(figure: Figure | None, shown: str, *, spread: bool = True) -> str:
    """A figure in a table, with half of its interval behind ±, or of repeats with the whole in brackets."""
    if figure is None:
        return "–"
    text = format(figure.value, shown)
    if not spread or figure.low is None or figure.high is None or figure.half is None:
        return text
    if figure.ranged:
        return f"{text} ({figure.low:{shown}}–{figure.high:{shown}})"
    half = format(figure.half, shown)
    return f"{text} ±{half[1:] if half.startswith('0.') else half}"  # of a share ".004" says as much as "0.004"


def compared(
    methods: Mapping[str, Sequence[Row]],
    column: str,
    better: str | None,
    shown: str,
    *,
    spread: bool = True,
    bold: str = "{}",
) -> tuple[dict[str, str], str | None]:
    """A column of a table: how each method's figure is shown, and the method whose figure is the best.

    Args:
        methods: the rows of each, of one or several seeds.
        better: which direction is; None: nothing is compared.
        shown: format of the values.
        spread: show half the interval too.
        bold: a format of one place, for the best.
    """
    figures = {name: figure_of(measured(rows), column) for name, rows in methods.items()}
    best, same = same_as_best(figures, better) if better else (None, set())
    texts = {name: number(figure, shown, spread=spread) for name, figure in figures.items()}
    texts |= {name: f"{SAME} {texts[name]}" for name in same}
    if best is not None:
        texts[best] = bold.format(texts[best])
    return texts, best
