"""Rows on disk: JSON lines, written as they come, and resumed from."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annvq.replacing import replacing

Row = dict[str, Any]


def digest(facts: Mapping[str, Any]) -> str:
    """A short name of ``facts``: equal facts, equal digest."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _plain(value: Any) -> Any:
    """``value`` as JSON holds it: NumPy scalars become Python's, and what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Results:
    """The rows of one folder's ``results.jsonl``.

    A row carries ``point`` (what was measured) and ``key`` (that, and with which versions). Opening drops
    what must be measured again: failed rows, and rows of a point that other versions measured once this run
    measures it.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self.path = folder / "results.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if fresh and self.path.exists():
            with replacing(self.path):
                pass  # an empty file
        self.rows: list[Row] = read_rows(self.path) if self.path.exists() else []

    def drop_stale(self, keys: Mapping[str, str]) -> None:
        """Forget rows of the points in ``keys`` (point: key) that failed or have another key."""
        kept = [
            row
            for row in self.rows
            if row.get("point") not in keys or (row.get("error") is None and row.get("key") == keys[row["point"]])
        ]
        self.rows = kept
        with replacing(self.path) as temporary:
            temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")

    def find(self, key: str) -> Row | None:
        """The row of ``key``, if it has been measured."""
        return next((row for row in self.rows if row.get("key") == key), None)

    def append(self, row: Row) -> Row:
        """Write one row; it is on disk when this returns."""
        row = _plain(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        return row


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def read_rows(path: Path) -> list[Row]:
    """The rows of a results file. A last line cut short by an interruption is left out.

    Raises:
        ValueError: any other line that is not a JSON object; the message names it.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise ValueError(f"{path} line {number} is not JSON; --fresh starts the file anew") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number} is not a JSON object; --fresh starts the file anew")
        rows.append(row)
    return rows
