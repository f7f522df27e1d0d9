"""Codes in a database's column, searched by SQL and NumPy; the same works in DuckDB, PostgreSQL and others with bytes.

python examples/codes_in_sqlite.py                 # built-in vectors, no network
python examples/codes_in_sqlite.py --out codes.db
"""

import argparse
import sqlite3

import numpy as np

import annvq


def write(db: sqlite3.Connection, index: annvq.FlatIndex) -> None:
    """A row for each vector, with the quantizer beside them: all that scoring takes."""
    db.execute("CREATE TABLE vectors (id INTEGER PRIMARY KEY, shelf INTEGER, code BLOB, norm INTEGER)")
    db.execute("CREATE TABLE quantizers (name TEXT PRIMARY KEY, file BLOB)")
    db.execute("INSERT INTO quantizers VALUES ('vectors', ?)", [index.quantizer.to_bytes()])
    codes, norms, ids, _ = index.export()  # (n, M), (n,) uint8, (n,)
    rows = index.quantizer.to_rows(codes)  # (n, bytes) uint8
    about = zip(ids.tolist(), (ids % 5).tolist(), map(bytes, rows), norms.tolist(), strict=True)
    db.executemany("INSERT INTO vectors VALUES (?, ?, ?, ?)", about)
    db.commit()


def search(
    db: sqlite3.Connection, query: np.ndarray, k: int, where: str = "1", values: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and ids of the k nearest to one query (d,) of the rows that a condition of SQL leaves."""
    quantizer = annvq.load_quantizer(db.execute("SELECT file FROM quantizers WHERE name = 'vectors'").fetchone()[0])
    found = db.execute(f"SELECT id, code, norm FROM vectors WHERE {where}", values).fetchall()
    ids, blobs, norms = zip(*found, strict=True)
    rows = np.frombuffer(b"".join(blobs), np.uint8).reshape(len(ids), quantizer.row_bytes)
    codes, term = quantizer.from_rows(rows), quantizer.norm_term

    luts, bias = quantizer.tables(query[None], "l2")
    luts = luts[0] + term.table_offsets()  # (M, K): what the norm byte leaves to the tables
    scores = luts[0, codes[:, 0]]
    for m in range(1, quantizer.M):
        scores = scores + luts[m, codes[:, m]]
    scores = scores + term.levels[np.array(norms)] + bias
    order = np.lexsort((ids, scores))[:k]
    return np.maximum(scores[order], 0), np.array(ids)[order]


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=int, default=20_000)
    parser.add_argument("--codebooks", type=int, default=7)
    parser.add_argument("--out", default=":memory:", help="the database, a new file")
    options = parser.parse_args()

    data = annvq.datasets.load("patches")
    base, queries = data.base[: options.base], data.queries[:20]  # (n, d), (20, d)
    index = annvq.FlatIndex(annvq.ResidualVQ(base.shape[1], options.codebooks, beam=4))
    index.fit(data.learn[:5000]).add(base)

    db = sqlite3.connect(options.out)
    write(db, index)
    same = {"all": 0, "one shelf": 0}
    for query in queries:
        for what, where, filter in (("all", "1", None), ("one shelf", "shelf = 3", lambda ids: ids % 5 == 3)):
            distances, ids = search(db, query, 10, where)
            expected = index.search(query[None], 10, filter=filter)
            same[what] += np.array_equal(distances, expected[0][0]) and np.array_equal(ids, expected[1][0])
    shares = {what: count / len(queries) for what, count in same.items()}
    db.close()
    print(f"{options.base:,} codes of {index.quantizer.row_bytes} bytes and a norm byte in SQLite")
    for what, share in shares.items():
        print(f"searches of {what} that give what the index gives, bit for bit: {share:.0%}")
    return shares


if __name__ == "__main__":
    main()
