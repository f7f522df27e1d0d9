"""Columns in Arrow's layout as vectors: what NumPy copies of the same give, and rows refused by their number."""

import numpy as np
import pytest

import annvq
from annvq.arrays import check_vectors, to_numpy
from annvq.choosing import choose
from annvq.indexes.building import add_in_chunks
from annvq.training import KMeans, Recipe, Trainer

pa = pytest.importorskip("pyarrow")

X = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
QUICK = Recipe((KMeans(3),))


def column(x, kind=None, value=None):
    value = value or pa.from_numpy_dtype(x.dtype)
    return pa.array([row.tolist() for row in x], (kind or pa.list_)(value))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8"])
@pytest.mark.parametrize("kind", ["fixed", "list", "large", "view", "tensor", "chunked", "sliced"])
def test_vectors_are_those_of_numpy(dtype, kind):
    x = np.abs(X * 20).astype(dtype)
    flat = pa.array(x.reshape(-1))
    fixed = pa.FixedSizeListArray.from_arrays(flat, 8)
    given = {
        "fixed": lambda: fixed,
        "list": lambda: column(x),
        "large": lambda: column(x, pa.large_list),
        "view": lambda: column(x, pa.list_view),
        "tensor": lambda: pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, [2, 4]), fixed),
        "chunked": lambda: pa.chunked_array([fixed[:0], fixed[:100], fixed[100:101], fixed[101:]]),
        "sliced": lambda: pa.concat_arrays([column(x[:5]), column(x)])[5:],
    }[kind]()
    np.testing.assert_array_equal(to_numpy(given, 8), x.astype(np.float32))
    lazy = check_vectors(given, 8)
    assert (lazy.shape, lazy.dtype) == ((300, 8), x.dtype)
    np.testing.assert_array_equal(lazy[np.array([250, 3, 100])], x[[250, 3, 100]])


def test_no_copy_is_made():
    x = X.copy()
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 8)
    assert np.shares_memory(check_vectors(fixed, 8)[20:200], x)


class Exporter:
    """Another library's column, which exports Arrow and has nothing else of pyarrow's."""

    def __init__(self, held):
        self.held, self.dtype, self.shape = held, "List(Float32)", (len(held),)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.held.__arrow_c_stream__(requested_schema)


def test_other_libraries_columns():
    np.testing.assert_array_equal(to_numpy(Exporter(pa.chunked_array([column(X)])), 8), X)


@pytest.mark.parametrize("form", ["fixed", "chunked"])
def test_everything_that_takes_vectors_takes_them(form):
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 8)
    given = fixed if form == "fixed" else pa.chunked_array([fixed[:120], fixed[120:]])
    for make in (
        lambda: annvq.FlatIndex(annvq.ResidualVQ(8, 2, nbits=4)),
        lambda: annvq.FlatIndex(annvq.ProductVQ(8, 2, nbits=4), metric="cosine"),
        lambda: annvq.IVFIndex(annvq.ProductVQ(8, 2, nbits=4), nlist=4),
        lambda: annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(8, 2, nbits=4)), "float32"),
    ):
        ours, theirs = make().fit(X, recipe=QUICK), make().fit(given, recipe=QUICK)
        assert ours.fingerprint() == theirs.fingerprint()
        ours.add(X)
        theirs.add(given)
        theirs.upsert(given[:10], np.arange(10))
        for a, b in zip(ours.search(X[:9], 5), theirs.search(given[:9], 5), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(ours.search_within(X[:9], 2.0), theirs.search_within(given[:9], 2.0), strict=True):
            np.testing.assert_array_equal(a, b)
    keyed = annvq.KeyedIndex(annvq.FlatIndex(annvq.ProductVQ(8, 2, nbits=4))).fit(given, recipe=QUICK)
    keyed.add(given, [str(i) for i in range(300)]).upsert(given[:2], ["7", "8"])
    assert len(keyed) == 300
    q = ours.quantizer
    np.testing.assert_array_equal(q.encode(given), q.encode(X))
    assert len(add_in_chunks(make().fit(X, recipe=QUICK), given)) == 300
    Trainer(steps=3).run(q, given, validation=given[:20])
    big = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(X, (4, 1)).reshape(-1)), 8)
    assert choose(big, bits=8, seconds=1, sample=1200, nq=20).recommended is not None


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([[1.0, 2.0], [3.0], [4.0, 5.0]], pa.list_(pa.float32()), "x must have 2 numbers in each row; row 1 has 1"),
        ([[1.0, 2.0], [], [4.0, 5.0]], pa.large_list(pa.float32()), "2 numbers in each row; row 1 has 0"),
        ([[1.0, 2.0], [4.0, 5.0], None], pa.list_(pa.float32()), "a vector in each row; row 2 is null"),
        ([[1.0, 2.0], [4.0, 5.0], None], pa.list_(pa.float32(), 2), "a vector in each row; row 2 is null"),
        ([None, [1.0, 2.0]], pa.list_(pa.float32()), "row 0 is null"),
        ([[1.0, 2.0], [4.0, None]], pa.list_(pa.float32(), 2), "row 1 has a null among them"),
        ([[1.0, 2.0], [4.0, float("nan")]], pa.list_(pa.float32(), 2), "x must be finite in float32; row 1 has NaN"),
        ([], pa.list_(pa.float32()), "x must have at least one row, got none"),
        ([], pa.list_(pa.float32(), 2), "x must have at least one row, got none"),
        ([], pa.null(), "x must have at least one row, got none"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_rows_that_are_no_vectors(rows, kind, message, chunked):
    array = pa.array(rows, kind)
    index = annvq.FlatIndex(annvq.ProductVQ(2, 1, nbits=2)).fit(X[:, :2], recipe=QUICK)
    with pytest.raises(ValueError, match=message):
        index.add(pa.chunked_array([array[:1], array[1:]]) if chunked and rows else array)
    assert len(index) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pa.array([1.0, 2.0]), "x must be a column of vectors .*, got one of double"),
        (pa.array([["a"], ["b"]]), "x must be a column of vectors"),
        (pa.array([[[1.0]], [[2.0]]]), "x must be a column of vectors"),
        (pa.array([[1, 2], [3, 4]]), r"x must be float32 of shape \(n, 2\) .*, got int64"),
        (pa.table({"a": [[1.0, 2.0]]}), r"x must be a column: annvq.datasets.column\(table, name\)"),
        (pa.array([{"a": [1.0]}]), r"annvq.datasets.column\(table, name\)"),
    ],
)
def test_columns_that_hold_no_vectors(given, message):
    with pytest.raises(TypeError, match=message):
        to_numpy(given, 2)


@pytest.mark.parametrize("kind", [None, pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_a_table_without_rows(kind):
    table = pa.table({"v": pa.array([], kind), "text": pa.array([], pa.string())})
    for name in (None, "v"):
        with pytest.raises(ValueError, match="table must have at least one row, got none"):
            annvq.datasets.column(table, name)
    with pytest.raises(ValueError, match="no column 'absent' in it; it has 'v', 'text'"):
        annvq.datasets.column(table, "absent")


@pytest.mark.parametrize("given", [column(X), pa.chunked_array([column(X)]), Exporter(pa.chunked_array([column(X)]))])
def test_a_column_in_place_of_a_table(given):
    with pytest.raises(TypeError, match="table must be a table, got "):
        annvq.datasets.column(given)


def test_a_data_set_of_a_column():
    made = annvq.datasets.from_vectors(column(X), nq=10, k=5)
    assert (made.n, made.nq, made.d) == (290, 10, 8)
    assert {tuple(row) for row in np.concatenate([made.base, made.queries])} == {tuple(row) for row in X}


def test_another_width():
    with pytest.raises(ValueError, match=r"x must be float32 of shape \(n, 9\), got float32 \(300, 8\)"):
        to_numpy(column(X), 9)
