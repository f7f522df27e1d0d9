"""How far a measurement is: a bar on a terminal, and a line for each row elsewhere."""

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from annvq.benchmarks.metrics import COLUMNS, meaning
from annvq.benchmarks.run import Observer

_FIGURES = ("mse", "encode_us", "search_us", "qps")  # that lines say beside recall, where a row has them


class Bar(Observer):
    """Shows what is measured and how far it is; a context manager.

    A console that is no terminal, as of output that goes to a file, has no bar: each row is a line there, written as
    soon as it is measured.
    """

    def __init__(self, console: Any) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("loading", total=None)
        self.earlier = 0
        self.done = self.total = 0

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.update(self.task, description="measured")
        self.progress.stop()
        if self.earlier:
            self.console.print(f"{self.earlier} rows were there already (--fresh measures them again)")

    def planned(self, total: int) -> None:
        self.total = total
        self.progress.update(self.task, total=total)

    def loading(self, name: str) -> None:
        self.progress.update(self.task, description=f"loading {name}")

    def started(self, point: Any) -> None:
        self.progress.update(self.task, description=point.label)

    def finished(self, point: Any, row: Any, *, measured: bool) -> None:
        self.earlier += not measured
        self.done += 1
        self.progress.advance(self.task)
        if row["error"] is not None:
            self.console.print(f"[red]failed[/red] {point.label}: {row['error']}")
        elif measured and not self.console.is_terminal:
            line = f"{self.done} of {max(self.done, self.total)}  {point.label}{_figures(row)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
            self.console.file.flush()


def _figures(row: Any) -> str:
    """What a line says of a row: its recalls, and what else it has."""
    names = [name for name in row if meaning(name) is not None] + [name for name in _FIGURES if name in row]
    shown = [(name, COLUMNS[name].title if name in COLUMNS else name, row[name]) for name in names]
    return "".join(f"  {title} {value:.4g}" for _, title, value in shown if isinstance(value, int | float))
