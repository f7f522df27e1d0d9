"""What was measured, kept in a folder, so that a choice goes on where it was stopped."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from annvq.benchmarks.environment import facts
from annvq.benchmarks.results import Results, Row, digest
from annvq.threads import get_num_threads

_OF = ("versions", "commit", "simd", "threads")


class Kept:
    """Rows by what they are of.

    Args:
        folder: of ``results.jsonl``; None: nothing is kept.
        fresh: forget what it holds.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, fresh: bool = False) -> None:
        self._results = None if folder is None else Results(Path(folder), fresh=fresh)
        where = {} if folder is None else facts(get_num_threads())
        self._where = {name: where.get(name) for name in _OF}

    def find(self, what: Mapping[str, Any]) -> Row | None:
        """The row of ``what``, measured here by these versions with as many threads."""
        return None if self._results is None else self._results.find(self._key(what))

    def keep(self, what: Mapping[str, Any], row: Row) -> None:
        """Write down a row, unless it says an error."""
        if self._results is not None and row.get("error") is None:
            self._results.append({**row, "what": what, "key": self._key(what)})

    def row(self, what: Mapping[str, Any], measure: Callable[[], Row]) -> Row:
        """The row of ``what``, measured now where it is not kept."""
        row = self.find(what)
        if row is None:
            row = measure()
            self.keep(what, row)
        return row

    def _key(self, what: Mapping[str, Any]) -> str:
        return digest({**what, **self._where})
