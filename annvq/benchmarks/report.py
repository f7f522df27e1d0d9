"""What reports have in common."""

from collections.abc import Sequence

from annvq.benchmarks.plan import ABSENT
from annvq.benchmarks.results import Row
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
