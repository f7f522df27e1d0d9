"""Files that hold several arrays, shards, and tables: read as they were written, and refused with a reason."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from annvq.arrays import as_bfloat16, as_float32, dtype_name
from annvq.columns import ColumnRows
from annvq.datasets import column, convert, files, from_vectors, load, load_vectors
from annvq.rows import LazyRows

X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)


@pytest.fixture
def pa():
    return pytest.importorskip("pyarrow")


class TestArchives:
    @pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
    def test_npz(self, tmp_path, write, dtype):
        x = np.abs(X * 9).astype(dtype)
        write(tmp_path / "x.npz", ids=np.arange(60), x=x, fortran=np.asfortranarray(x[:9]))
        with pytest.raises(
            ValueError, match=r"expected one array of vectors, or the name of one; got 'x', 'fortran' of .*:x names"
        ):
            load_vectors(tmp_path / "x.npz")
        got = load_vectors(tmp_path / "x.npz", "x")
        assert isinstance(got, np.memmap) == (write is np.savez and dtype != "float64")
        np.testing.assert_array_equal(got, x.astype(got.dtype))
        np.testing.assert_array_equal(load_vectors(f"{tmp_path}/x.npz:fortran"), x[:9].astype(got.dtype))
        write(tmp_path / "y.npz", ids=np.arange(60), text=np.array(["a"]), x=x)
        np.testing.assert_array_equal(load_vectors(tmp_path / "y.npz"), x.astype(got.dtype))

    @pytest.mark.parametrize("at", range(4))
    def test_numbers_that_begin_at_any_byte_are_taken(self, tmp_path, at):
        """In an archive nothing is aligned; what reads vectors copies them where it must."""
        np.savez(tmp_path / "x.npz", **{"x" * (at + 1): X})
        got = as_float32(load_vectors(tmp_path / "x.npz"))
        assert got.flags.aligned
        np.testing.assert_array_equal(got, X)

    def test_safetensors(self, tmp_path):
        torch = pytest.importorskip("torch")
        from safetensors.torch import save_file as save_tensors

        halves = torch.from_numpy(X).bfloat16()
        save_tensors(
            {"half": halves, "whole": torch.from_numpy(X), "ids": torch.arange(60)}, tmp_path / "x.safetensors"
        )
        got = load_vectors(tmp_path / "x.safetensors", "half")
        assert dtype_name(got) == "bfloat16"
        np.testing.assert_array_equal(as_float32(got), halves.float().numpy())
        np.testing.assert_array_equal(load_vectors(f"{tmp_path}/x.safetensors:whole"), X)
        save_file({"ids": np.arange(60), "x": X}, tmp_path / "y.safetensors")
        np.testing.assert_array_equal(load_vectors(tmp_path / "y.safetensors"), X)

    @pytest.mark.parametrize("suffix", ["npz", "safetensors", "parquet", "arrow"])
    @pytest.mark.parametrize("content", [b"", b"PK", b"\xff" * 99, b"PAR1" * 9])
    def test_damage(self, tmp_path, suffix, content, pa):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"x.{suffix}"):
            load_vectors(path)

    @pytest.mark.parametrize("suffix", ["npz", "safetensors", "hdf5", "parquet", "npy"])
    def test_no_such_array(self, tmp_path, suffix, write_hdf5, pa):
        import pyarrow.parquet as pq

        np.savez(tmp_path / "x.npz", x=X)
        np.save(tmp_path / "x.npy", X)
        save_file({"x": X}, tmp_path / "x.safetensors")
        write_hdf5("x.hdf5", x=X)
        pq.write_table(pa.table({"x": X.tolist()}), tmp_path / "x.parquet")
        with pytest.raises(ValueError, match=r"no (array|tensor|column|dataset) 'y' in it; it has 'x'|holds one array"):
            load_vectors(f"{tmp_path}/x.{suffix}:y")
        with pytest.raises(ValueError, match=r"column must be given once, got 'y' in .* and column='z'"):
            load_vectors(f"{tmp_path}/x.{suffix}:y", "z")

    def test_a_file_may_have_a_colon_in_its_name(self, tmp_path):
        np.save(tmp_path / "x.npy:y.npy", X)
        np.testing.assert_array_equal(load_vectors(f"{tmp_path}/x.npy:y.npy"), X)


class TestTables:
    @pytest.mark.parametrize("groups", [7, 60, 1000])
    @pytest.mark.parametrize("form", ["list", "fixed"])
    def test_parquet(self, tmp_path, pa, groups, form):
        import pyarrow.parquet as pq

        kind = pa.list_(pa.float32()) if form == "list" else pa.list_(pa.float32(), 6)
        table = pa.table(
            {"text": [str(i) for i in range(60)], "tokens": [[1, 2]] * 60, "v": pa.array(X.tolist(), kind)}
        )
        pq.write_table(table, tmp_path / "x.parquet", row_group_size=groups)
        got = load_vectors(tmp_path / "x.parquet")
        assert (got.shape, got.dtype) == ((60, 6), np.float32)
        np.testing.assert_array_equal(np.asarray(got), X)
        np.testing.assert_array_equal(got[[50, 3, 3]], X[[50, 3, 3]])
        np.testing.assert_array_equal(load_vectors(f"{tmp_path}/x.parquet:v")[40:], X[40:])

    @pytest.mark.parametrize("form", ["file", "stream"])
    def test_arrow(self, tmp_path, pa, form):
        table = pa.table({"id": range(60), "v": pa.array(X.astype("f8").tolist())})
        new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with new(str(tmp_path / "x.arrow"), table.schema) as sink:
            for batch in table.to_batches(max_chunksize=25):
                sink.write_batch(batch)
        got = load_vectors(tmp_path / "x.arrow")
        assert isinstance(got, LazyRows)
        assert got.dtype == np.float32  # rounded when it is read, as float64 always is
        np.testing.assert_array_equal(np.asarray(got), X)
        np.testing.assert_array_equal(got[[7]], X[[7]])

    def test_ragged_rows_are_named(self, tmp_path, pa):
        import pyarrow.parquet as pq

        rows = X.tolist()
        rows[44] = rows[44][:5]
        pq.write_table(pa.table({"v": rows}), tmp_path / "x.parquet", row_group_size=20)
        got = load_vectors(tmp_path / "x.parquet")
        np.testing.assert_array_equal(got[:40], X[:40])
        with pytest.raises(ValueError, match=r"x.parquet: column 'v' must have 6 numbers in each row; row 44 has 5"):
            got[:50]

    def test_which_column(self, pa):
        table = pa.table({"a": X.tolist(), "b": (X + 1).tolist(), "c": range(60)})
        np.testing.assert_array_equal(np.asarray(column(table, "b")), X + 1)
        np.testing.assert_array_equal(np.asarray(column(table.to_batches()[0], "b")), X + 1)
        with pytest.raises(
            ValueError, match="expected one column of vectors, or the name of one; got 'a', 'b' of 'a', "
        ):
            column(table)
        with pytest.raises(ValueError, match="got none of 'c'"):
            column(table.select(["c"]))
        with pytest.raises(TypeError, match=r"column 'c' must be a column of vectors .*, got one of int64"):
            column(table, "c")
        with pytest.raises(TypeError, match="table must be a table that exports Arrow, got dict"):
            column({"a": X})

    def test_splits(self, tmp_path, pa):
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"v": X.tolist()}), tmp_path / "x.parquet", row_group_size=20)
        got = from_vectors(load_vectors(tmp_path / "x.parquet"), nq=10, k=5)
        assert (got.n, got.nq, got.d) == (50, 10, 6)
        with pytest.raises(ValueError, match=r"load_vectors\(\) reads it, from_vectors\(\) splits it"):
            load(tmp_path / "x.parquet")


class TestShards:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "shards"
        folder.mkdir()
        for number, rows in enumerate((X[:20], X[20:21], X[21:])):
            np.save(folder / f"part-{number}.npy", rows)
        (folder / "_SUCCESS.npy").write_bytes(b"")
        (folder / "readme.md").write_text("what these are")
        return folder

    def test_a_folder(self, folder):
        got = load_vectors(folder)
        assert (got.shape, got.dtype, len(got)) == ((60, 6), np.float32, 60)
        np.testing.assert_array_equal(np.asarray(got), X)
        np.testing.assert_array_equal(got[15:30], X[15:30])
        np.testing.assert_array_equal(load_vectors(f"{folder}/*-[02].npy"), np.concatenate([X[:20], X[21:]]))
        np.testing.assert_array_equal(np.asarray(load_vectors(f"{folder.parent}/**/part-*.npy")), X)
        assert files.plain(folder)

    def test_parquet_shards(self, tmp_path, pa):
        import pyarrow.parquet as pq

        for number, rows in enumerate((X[:20], X[20:])):
            table = pa.table({"v": rows.tolist(), "w": (rows + 1).tolist()})
            pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=9)
        np.testing.assert_array_equal(load_vectors(f"{tmp_path}:w")[10:40], X[10:40] + 1)

    def test_little_is_held(self, tmp_path, pa):
        """Of what shards have read only the last is kept, and few files are open."""
        import pyarrow.parquet as pq

        for number in range(150):
            pq.write_table(pa.table({"v": X.tolist()}), tmp_path / f"{number:03}.parquet")
            np.save(tmp_path / f"{number:03}.npy", X)
        tables, maps = load_vectors(f"{tmp_path}/*.parquet"), load_vectors(f"{tmp_path}/*.npy")
        for start in range(0, 9000, 500):
            np.testing.assert_array_equal(tables[start : start + 500], maps[start : start + 500])
        gc.collect()
        held = [x for x in gc.get_objects() if type(x) is ColumnRows]
        assert sum(str(tmp_path) in x._name for x in held) == 1
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
        assert len(mapped) <= 65

    def test_empty_shards(self, folder, tmp_path, pa):
        """Parts of a table that were left without rows count for nothing, the first as well."""
        np.save(folder / "part-.npy", X[:0])
        np.save(folder / "part-1b.npy", X[:0])
        np.testing.assert_array_equal(np.asarray(load_vectors(folder)), X)
        import pyarrow.parquet as pq

        for number, rows in enumerate((X[:0], X, X[:0])):
            pq.write_table(
                pa.table({"v": pa.array(rows.tolist(), pa.list_(pa.float32()))}), tmp_path / f"{number}.parquet"
            )
        np.testing.assert_array_equal(load_vectors(f"{tmp_path}/*.parquet")[:], X)
        with pytest.raises(ValueError, match=r"0.parquet is empty, and so are all 2 shards"):
            load_vectors(f"{tmp_path}/[02].parquet")

    def test_a_pattern_through_folders(self, folder):
        """It matches the folders, too, whose files must not count twice."""
        np.testing.assert_array_equal(np.asarray(load_vectors(f"{folder}/**")), X)

    def test_a_shard_that_changes(self, folder):
        got = load_vectors(folder)
        np.save(folder / "part-1.npy", X[:7])
        with pytest.raises(ValueError, match=r"part-1.npy: had 1 vectors, and has 7 now"):
            got[:]

    def test_shards_that_do_not_fit(self, folder):
        np.save(folder / "part-3.npy", X[:, :5])
        with pytest.raises(ValueError, match=r"part-3.npy: must hold float32 of dimension 6, as part-0.npy has; got "):
            load_vectors(folder)
        np.save(folder / "part-3.npy", X.astype("f2"))
        with pytest.raises(ValueError, match="got float16 of dimension 6"):
            load_vectors(folder)

    def test_folders_that_are_none(self, folder, tmp_path):
        np.savez(folder / "more.npz", X)
        with pytest.raises(ValueError, match=r"several formats \(.npy, .npz\); say which are meant, as '.*/\*.npy'"):
            load_vectors(folder)
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"no file in it that ends in .fvecs"):
            load_vectors(tmp_path / "empty")
        with pytest.raises(ValueError, match=r"no file in it .*; there are some in its folders shards: name one of th"):
            load_vectors(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"no file matches .*\*.npy"):
            load_vectors(f"{tmp_path}/empty/*.npy")
        with pytest.raises(FileNotFoundError, match=r"no such file: .*nowhere$"):
            load_vectors(tmp_path / "nowhere")


def test_the_middle_of_a_table_is_all_that_is_read(tmp_path, monkeypatch, pa):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"v": X.tolist()}), tmp_path / "x.parquet", row_group_size=20)
    read, row_group = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda f, i, **kw: (read.append(i), row_group(f, i, **kw))[1])
    got = load_vectors(tmp_path / "x.parquet")
    for start in range(20, 40, 5):
        np.testing.assert_array_equal(got[start : start + 5], X[start : start + 5])
    assert read == [1]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_what_is_missing_is_said(tmp_path, monkeypatch, suffix):
    (tmp_path / f"x.{suffix}").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=rf"reading .{suffix} files needs pyarrow, .*: pip install pyarrow"):
        load_vectors(tmp_path / f"x.{suffix}")
    with pytest.raises(ImportError, match=rf"writing .{suffix} files needs pyarrow, .*: pip install pyarrow"):
        convert(X, tmp_path / f"y.{suffix}")


def test_bfloat16_archives(tmp_path):
    np.savez(tmp_path / "x.npz", x=as_bfloat16(X))
    assert dtype_name(load_vectors(tmp_path / "x.npz")) == "bfloat16"
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.savez(tmp_path / "y.npz", x=X.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(as_float32(load_vectors(tmp_path / "y.npz")), as_float32(as_bfloat16(X)))
