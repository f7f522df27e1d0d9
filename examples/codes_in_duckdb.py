"""Vectors and their codes in DuckDB: learned from a query's result, coded, and searched by SQL alone.

python examples/codes_in_duckdb.py                    # built-in vectors, no network; pip install duckdb pyarrow
python examples/codes_in_duckdb.py --out codes.duckdb

examples/codes_in_sqlite.py keeps codes as bytes and scores them by NumPy, which works in any database. DuckDB has
arrays of numbers: there the sum of look-ups is an SQL expression in float32, and gives what an index gives, bit for
bit.
"""

import argparse
import contextlib

import duckdb
import numpy as np
import pyarrow as pa

import annvq


def arrays(x: np.ndarray) -> pa.Array:
    """Rows of numbers as Arrow's and DuckDB's arrays of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])


def write(db: duckdb.DuckDBPyConnection, index: annvq.FlatIndex) -> None:
    """A column with the codes beside the vectors, and the quantizer in a table of its own: all that scoring takes."""
    codes, norms, ids, _ = index.export()  # (n, M), (n,) uint8, (n,); 8 bits a codebook: a number is a byte
    coded = pa.table({"id": ids, "code": arrays(codes), "norm": norms})
    db.execute("CREATE TABLE codes AS SELECT * FROM coded")
    db.execute("CREATE TABLE quantizers AS SELECT 'patches' AS name, ?::BLOB AS file", [index.quantizer.to_bytes()])
    assert coded.num_rows == len(index)


def search(db: duckdb.DuckDBPyConnection, query: np.ndarray, k: int, where: str = "true") -> tuple[list, list]:
    """Distances and ids of the k nearest to one query (d,) of the rows that a condition of SQL leaves."""
    quantizer = annvq.load_quantizer(db.execute("SELECT file FROM quantizers WHERE name = 'patches'").fetchone()[0])
    term = quantizer.norm_term
    luts, bias = quantizer.tables(query[None], "l2")
    luts = luts[0] + term.table_offsets()  # (M, K): what the norm byte leaves to the tables
    M, K = luts.shape
    # ((luts[0] + luts[1]) + …) + norm + bias: SQL adds from left to right, and DuckDB's FLOAT is float32.
    look_ups = " + ".join(f"luts[{m * K} + code[{m + 1}]::INT + 1]" for m in range(M))
    rows = db.execute(
        f"""
        WITH tables AS (SELECT ?::FLOAT[] AS luts, ?::FLOAT[] AS levels, ?::FLOAT AS bias)
        SELECT {look_ups} + levels[norm::INT + 1] + bias AS distance, id
        FROM codes JOIN vectors USING (id), tables WHERE {where} ORDER BY distance, id LIMIT {k}
        """,
        [luts.ravel().tolist(), term.levels.tolist(), float(bias[0])],
    ).fetchall()
    distances, ids = zip(*rows, strict=True)
    return [max(d, 0.0) for d in distances], list(ids)


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=int, default=20_000)
    parser.add_argument("--codebooks", type=int, default=7)
    parser.add_argument("--out", default=":memory:", help="the database, a new file")
    options = parser.parse_args()

    data = annvq.datasets.load("patches")
    base, queries = data.base[: options.base], data.queries[:20]  # (n, d), (20, d)
    same = {"all": 0, "one shelf": 0}
    with contextlib.closing(duckdb.connect(options.out)) as db:
        source = pa.table({"id": np.arange(len(base)), "shelf": np.arange(len(base)) % 5, "patch": arrays(base)})
        db.execute("CREATE TABLE vectors AS SELECT * FROM source")
        assert source.num_rows == options.base

        # Columns of a query's result go wherever vectors go.
        learn = annvq.datasets.column(db.sql("SELECT patch FROM vectors USING SAMPLE 5000 (reservoir, 0)"))
        stored = annvq.datasets.column(db.sql("SELECT patch FROM vectors ORDER BY id"))
        index = annvq.FlatIndex(annvq.ResidualVQ(stored.shape[1], options.codebooks, beam=4)).fit(learn).add(stored)
        write(db, index)
        for query in queries:
            for what, where, filter in (("all", "true", None), ("one shelf", "shelf = 3", lambda ids: ids % 5 == 3)):
                distances, ids = search(db, query, 10, where)
                expected = index.search(query[None], 10, filter=filter)
                same[what] += distances == expected[0][0].tolist() and ids == expected[1][0].tolist()
    shares = {what: count / len(queries) for what, count in same.items()}
    print(f"{options.base:,} codes of {index.quantizer.row_bytes} bytes and a norm byte in DuckDB")
    for what, share in shares.items():
        print(f"searches of {what} that give what the index gives, bit for bit: {share:.0%}")
    return shares


if __name__ == "__main__":
    main()
