"""A progress bar over the points of a measurement."""

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from annvq.benchmarks.run import Observer


class Bar(Observer):
    """Shows what is measured and how far it is; a context manager."""

    def __init__(self, console: Any) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self.task = self.progress.add_task("loading", total=None)
        self.earlier = 0

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.update(self.task, description="measured")
        self.progress.stop()
        if self.earlier:
            self.console.print(f"{self.earlier} rows were there already (--fresh measures them again)")

    def planned(self, total: int) -> None:
        self.progress.update(self.task, total=total)

    def loading(self, name: str) -> None:
        self.progress.update(self.task, description=f"loading {name}")

    def started(self, point: Any) -> None:
        self.progress.update(self.task, description=point.label)

    def finished(self, point: Any, row: Any, *, measured: bool) -> None:
        self.earlier += not measured
        self.progress.advance(self.task)
        if row["error"] is not None:
            self.console.print(f"[red]failed[/red] {point.label}: {row['error']}")
