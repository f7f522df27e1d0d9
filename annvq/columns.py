"""Columns of vectors in Arrow's memory layout: of pyarrow, of whatever exports Arrow (polars, pandas, DuckDB), and of
Hugging Face's ``datasets``.

A column of vectors holds a list of numbers in each row: Arrow's FixedSizeList, or List and LargeList of which all rows
have equally many. pyarrow is imported where a column is read.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annvq.optional import needed_by
from annvq.rows import JoinedRows, NoVectorsError

HUGGING_FACE_ROWS = 4096
"""Rows of a Hugging Face data set that are read at a time."""


def exports_arrow(x: Any) -> bool:
    """Whether ``x`` is a column or a table that pyarrow can take, or a column of a Hugging Face data set."""
    return hasattr(x, "__arrow_c_stream__") or hasattr(x, "__arrow_c_array__") or of_hugging_face(x)


def of_hugging_face(x: Any) -> bool:
    """Whether ``x`` is a data set of Hugging Face's ``datasets``, or a column of one."""
    return type(x).__module__ == "datasets.arrow_dataset"


def refuse_no_table(x: Any, name: str) -> None:
    """Say what to do instead where ``x`` is of Hugging Face's ``datasets``, but no table.

    Raises:
        TypeError: a data set that has not been narrowed to one split, or one that is streamed.
    """
    module = type(x).__module__
    if module == "datasets.dataset_dict":
        splits = ", ".join(map(repr, x)) or "none"
        raise TypeError(f"{name} must be one split of a data set, got {type(x).__name__} of {splits}: choose a split")
    if module == "datasets.iterable_dataset":
        raise TypeError(
            f"{name} must be vectors or a table of them, got {type(x).__name__}, which is streamed: "
            "annvq.indexes.building.add_in_chunks takes arrays of its batches"
        )


def column_rows(x: Any, name: str) -> "ColumnRows":
    """Vectors (n, d) in a column for which :func:`exports_arrow` holds; the memory is shared where it can be.

    Raises:
        TypeError: no column of vectors.
        ValueError: no rows, or a row that is null, or longer or shorter than the first; it is named where it is read.
    """
    if of_hugging_face(x):
        if not hasattr(x, "column_name"):
            raise TypeError(f"{name} must be a column: annvq.datasets.column(table, name) takes one of a data set")
        return hugging_face_rows(x.source, x.column_name, name)
    with needed_by("a column of Arrow's"):
        import pyarrow as pa

    held = x if isinstance(x, pa.ChunkedArray) else pa.chunked_array([x]) if isinstance(x, pa.Array) else None
    if held is None and not isinstance(x, pa.Table | pa.RecordBatch):
        held = pa.chunked_array(x) if hasattr(x, "__arrow_c_stream__") else pa.chunked_array([pa.array(x)])
    if held is None or pa.types.is_struct(held.type):
        raise TypeError(f"{name} must be a column: annvq.datasets.column(table, name) takes one of a table")
    return ColumnRows([len(c) for c in held.chunks], held.chunk, held.type, name)


def hugging_face_rows(table: Any, column: str, name: str) -> "ColumnRows":
    """A column of a Hugging Face data set, read a few thousand rows at a time."""
    source = table.select_columns(column).with_format("arrow")
    n, step = len(source), HUGGING_FACE_ROWS

    def read(number: int) -> Any:
        return source[number * step : (number + 1) * step][column]

    return ColumnRows([min(step, n - a) for a in range(0, n, step)], read, source[:0][column].type, name)


def number_type(column_type: Any) -> str | None:
    """``"float32"`` for a column of lists of them; None where a column of this type holds no lists of numbers."""
    held = _storage(column_type)
    inner = getattr(held, "value_type", None)
    if inner is None or not hasattr(held, "value_field"):
        return None
    known = {"halffloat": "float16", "float": "float32", "double": "float64"}
    return known.get(str(inner), str(inner))


def _storage(column_type: Any) -> Any:
    return getattr(column_type, "storage_type", column_type)


class ColumnRows(JoinedRows):
    """Vectors of a column that comes in pieces, read one piece at a time; the last one read is kept.

    Args:
        counts: rows of each piece.
        read: gives a piece by its number, a pyarrow Array or ChunkedArray.
        column_type: pyarrow's type of the column.
        name: what errors call it.
        begin: gives the beginning of a piece, where that is quicker than ``read``.

    Raises:
        TypeError: no column of lists of numbers.
        ValueError: no rows, or no vector in the first.
    """

    def __init__(
        self,
        counts: Sequence[int],
        read: Callable[[int], Any],
        column_type: Any,
        name: str,
        begin: Callable[[int], Any] | None = None,
    ) -> None:
        full = np.flatnonzero(counts)
        if not len(full):  # said first: without rows there may be no type either
            raise NoVectorsError(f"{name} must have at least one row, got none")
        dtype = number_type(column_type)
        if dtype is None:
            raise TypeError(f"{name} must be a column of vectors (lists of float32), got one of {column_type}")
        self._read, self._name, self._kept = read, name, (-1, np.empty((0, 0)))
        width = getattr(_storage(column_type), "list_size", -1)
        if width < 0:
            first = _chunks((begin or read)(int(full[0])))[0][0].as_py()
            if first is None:
                raise ValueError(f"{name} must have a vector in each row; row 0 is null")
            width = len(first)
        try:
            super().__init__(counts, width, dtype)
        except TypeError:
            raise TypeError(f"{name} must be a column of vectors (lists of float32), got {column_type}") from None

    def piece(self, number: int) -> npt.NDArray[Any]:
        """The piece of this number, (rows, d).

        Raises:
            ValueError: a row that is null or not of d numbers.
        """
        kept, rows = self._kept  # (one look: another thread may put another)
        if kept != number:
            start, parts = int(self._ends[number]), []
            for chunk in _chunks(self._read(number)):
                parts.append(_matrix(chunk, self.shape[1], self._name, start))
                start += len(chunk)
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._kept = number, rows
        return rows


def _chunks(held: Any) -> list[Any]:
    return [chunk for chunk in getattr(held, "chunks", [held]) if len(chunk)]


def _matrix(column: Any, dim: int, name: str, start: int) -> npt.NDArray[Any]:
    """An Arrow array of lists as (n, dim), in the same memory; ValueError naming a row, counted from ``start``."""
    import pyarrow.compute as pc

    column = getattr(column, "storage", column)
    if column.null_count:
        raise ValueError(f"{name} must have a vector in each row; row {start + _first(column.is_null())} is null")
    lengths = pc.list_value_length(column)
    wrong = pc.not_equal(lengths, dim)
    if pc.any(wrong).as_py():
        row = _first(wrong)
        raise ValueError(f"{name} must have {dim} numbers in each row; row {start + row} has {lengths[row].as_py()}")
    values = column.flatten()
    if values.null_count:
        row = _first(values.is_null()) // dim
        raise ValueError(f"{name} must have {dim} numbers in each row; row {start + row} has a null among them")
    flat: npt.NDArray[Any] = values.to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), dim)


def _first(flags: Any) -> int:
    """Where an Arrow array of bools is first true."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return int(pc.index(flags, pa.scalar(True)).as_py())
