"""Vectors in tables: Parquet and Arrow files, tables in memory, and Hugging Face data sets. Needs pyarrow."""

from pathlib import Path
from typing import Any

from annvq.columns import ColumnRows, hugging_face_rows, number_type, of_hugging_face, refuse_no_table
from annvq.datasets.archives import chosen
from annvq.datasets.dataset import VECTOR_DTYPES
from annvq.datasets.vecs import require_file
from annvq.rows import NoVectorsError

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")


def read_parquet(path: Path, column: str | None) -> ColumnRows:
    """A column of vectors of a Parquet file, read one row group at a time, when a row of it is asked for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, or no such column, or several that could be meant.
        TypeError: the named column holds no vectors.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path)
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error})") from None
    name = vector_column(path, schema, column, metadata.num_rows)
    counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def read(number: int) -> Any:
        # Opened anew, so that threads do not share a reader, and of many shards few are open.
        with pq.ParquetFile(path, memory_map=True, metadata=metadata) as file:
            return file.read_row_group(number, columns=[name], use_threads=False)[name]

    def begin(number: int) -> Any:
        with pq.ParquetFile(path, memory_map=True, metadata=metadata) as file:
            batches = file.iter_batches(1, row_groups=[number], columns=[name], use_threads=False)
            return next(batches)[name]

    return ColumnRows(counts, read, schema.field(name).type, f"{path}: column {name!r}", begin)


def read_arrow(path: Path, column: str | None) -> ColumnRows:
    """A column of vectors of an Arrow file or stream, in a memory map.

    Raises:
        as :func:`read_parquet`.
    """
    import pyarrow as pa

    require_file(path)
    try:
        mapped = pa.memory_map(str(path))
        try:
            table = pa.ipc.open_file(mapped).read_all()
        except pa.ArrowInvalid:
            mapped.seek(0)
            table = pa.ipc.open_stream(mapped).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a readable Arrow file or stream ({error})") from None
    return table_rows(table, column, str(path))


def table_rows(table: Any, column: str | None, where: str) -> ColumnRows:
    """A column of vectors of a table: pyarrow's, of a Hugging Face data set, or what exports Arrow.

    Raises:
        TypeError: no table, or the named column holds no vectors.
        ValueError: no such column, or several that could be meant.
    """
    import pyarrow as pa

    refuse_no_table(table, where)
    if of_hugging_face(table) and hasattr(table, "column_names"):
        name = vector_column(where, table.features.arrow_schema, column, len(table))
        return hugging_face_rows(table, name, f"{where}: column {name!r}")
    if not isinstance(table, pa.Table):
        if of_hugging_face(table) or isinstance(table, pa.Array | pa.ChunkedArray):
            raise TypeError(f"{where} must be a table, got a column: it goes wherever vectors go as it is")
        if not hasattr(table, "__arrow_c_stream__") and not hasattr(table, "__arrow_c_array__"):
            raise TypeError(f"{where} must be a table that exports Arrow, got {type(table).__name__}")
        try:
            table = pa.table(table)
        except pa.ArrowInvalid as error:  # a column's
            raise TypeError(f"{where} must be a table, got {type(table).__name__} ({error})") from None
    name = vector_column(where, table.schema, column, len(table))
    held = table[name]
    return ColumnRows([len(c) for c in held.chunks], held.chunk, held.type, f"{where}: column {name!r}")


def vector_column(where: object, schema: Any, column: str | None, n: int) -> str:
    """The name that ``column`` asks for, or of the only column of vectors of a table of ``n`` rows.

    Raises:
        NoVectorsError: there are no rows: types say little then.
        ValueError: no such column, or several that could be meant.
    """
    if not n and (column is None or column in schema.names):
        raise NoVectorsError(f"{where} must have at least one row, got none")
    known = (*VECTOR_DTYPES, "float64")
    vectors = [field.name for field in schema if number_type(field.type) in known]
    return chosen(where, column, vectors, schema.names, "column")
