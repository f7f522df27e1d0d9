"""Indexes that begin with nothing: exact while few vectors are there, learned when there are enough."""

import threading

import numpy as np
import pytest

import annvq
from annvq.adapters import growing
from annvq.adapters.growing import GrowingIndex, default_index
from annvq.errors import FormatError

X = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
IDS = np.random.default_rng(1).permutation(4000)[:400]
Q = np.random.default_rng(2).normal(size=(9, 6)).astype(np.float32)


def distances(metric, x=X, q=Q):
    """All distances (nq, n), in float64."""
    x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - x) ** 2).sum(axis=2)
    products = q @ x.T
    if metric == "ip":
        return -products
    return 1 - products / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)


def small(metric="cosine"):
    return annvq.FlatIndex(annvq.ProductVQ(6, 3, nbits=4), metric=metric)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
class TestExact:
    def test_few_vectors_are_compared_exactly(self, metric):
        index = GrowingIndex(metric=metric)
        assert (len(index), index.dim, index.learned, index.index) == (0, None, False, None)
        for a in range(0, 400, 150):
            index.upsert(X[a : a + 150], IDS[a : a + 150])
        assert (len(index), index.dim, index.learned) == (400, 6, False)
        true = distances(metric)
        order = np.argsort(true, axis=1)[:, :12]
        found, ids = index.search(Q, 12)
        assert (found.dtype, ids.dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(ids, IDS[order])
        np.testing.assert_allclose(found, np.take_along_axis(true, order, 1), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("form", ["ids", "bitmap", "function"])
    def test_filters(self, metric, form):
        index = GrowingIndex(metric=metric)
        index.upsert(X, IDS)
        allowed = IDS[IDS % 40 == 3]
        bitmap = np.zeros(4000, bool)
        bitmap[allowed] = True
        filter = {"ids": np.append(allowed, 9999), "bitmap": bitmap, "function": lambda ids: ids % 40 == 3}[form]
        true = distances(metric)[:, IDS % 40 == 3]
        found, ids = index.search(Q, len(allowed) + 2, filter=filter)
        np.testing.assert_array_equal(ids[:, :-2], allowed[np.argsort(true, axis=1)])
        assert (ids[:, -2:] == -1).all()
        assert np.isinf(found[:, -2:]).all()
        assert (index.search(Q, 3, filter=np.array([], np.int64))[1] == -1).all()

    def test_changes(self, metric):
        index = GrowingIndex(metric=metric)
        index.upsert(X[:10], np.arange(10))
        index.upsert(X[10:12], [3, 10])
        index.remove([0, 9])
        np.testing.assert_array_equal(index.reconstruct([3, 10, 1]), X[[10, 11, 1]])
        assert len(index) == 9
        for ids in ([0], [1, 1], [1, 99]):
            with pytest.raises(ValueError, match="ids must be stored, and each come once"):
                index.remove(ids)
        with pytest.raises(ValueError, match=r"ids must be stored, got \[0\]"):
            index.reconstruct([1, 0])
        assert len(index) == 9
        index.reset()
        assert (len(index), index.dim) == (0, None)
        index.upsert(X[:, :4], IDS)
        assert index.dim == 4


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize(("dim", "M"), [(3, 3), (50, 8), (96, 12), (1009, 126)])
def test_the_default_index(metric, dim, M):
    index = default_index(dim, metric)
    assert (index.dim, index.metric, index.quantizer.M) == (dim, metric, M)
    assert index.bits_per_vector == 8 * M + (8 if metric == "cosine" else 16) * dim


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("kind", ["clusters", "Gaussian"])
def test_the_default_index_finds_most_of_the_ten_nearest(metric, kind):
    """Its lists and its shortlist together reach the share that the guide promises, .95, within what chance does."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2300, 32)).astype(np.float32)
    if kind == "clusters":
        x += 3 * rng.normal(size=(20, 32)).astype(np.float32)[rng.integers(0, 20, 2300)]
    index = GrowingIndex(metric=metric, learn_at=2000)
    index.upsert(x[:2000], np.arange(2000))
    assert index.learned
    nearest = np.argsort(distances(metric, x[:2000], x[2000:]), axis=1)[:, :10]
    found = index.search(x[2000:], 10)[1]
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, nearest, strict=True)]) >= 9.4


class TestLearning:
    def test_it_learns_when_there_are_enough(self):
        index = GrowingIndex(small(), learn_at=300)
        index.upsert(X[:299], IDS[:299])
        assert not index.learned
        index.upsert(X[5:6], IDS[5:6])  # replaced: none the more
        assert not index.learned
        index.upsert(X[299:350], IDS[299:350])
        assert index.learned
        index.upsert(X[350:], IDS[350:])
        expected = small().fit(X[np.argsort(IDS[:350])]).add(X, IDS)
        for a, b in zip(index.search(Q, 7), expected.search(Q, 7), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(index.reconstruct(IDS[:5]), expected.reconstruct(IDS[:5]))
        index.remove(IDS[:390])
        assert (len(index), len(index.index)) == (10, 10)
        index.reset()
        assert (len(index), index.learned) == (0, True)

    def test_a_fitted_index_takes_vectors_from_the_first(self):
        index = GrowingIndex(small("l2").fit(X))
        assert (index.learned, index.metric, index.dim) == (True, "l2", 6)
        index.upsert(X[:3], [5, 6, 7])
        assert set(index.search(Q, 3)[1][0]) == {5, 6, 7}
        with pytest.raises(ValueError, match="the index has learned already"):
            index.learn()

    def test_by_hand(self):
        index = GrowingIndex(small(), learn_at=None)
        with pytest.raises(ValueError, match="needs vectors to learn from, and there are none"):
            index.learn()
        index.upsert(X[:10], IDS[:10])
        with pytest.raises(ValueError, match="at least 16 rows"):
            index.learn()
        assert not index.learned
        index.upsert(X, IDS)
        index.learn()
        assert (index.learned, len(index)) == (True, 400)

    def test_nothing_changes_where_learning_fails(self, monkeypatch):
        index = GrowingIndex(small(), learn_at=300)
        index.upsert(X[:299], IDS[:299])
        before = index.search(Q, 9)
        monkeypatch.setattr(annvq.FlatIndex, "fit", lambda *a, **k: (_ for _ in ()).throw(MemoryError("none left")))
        with pytest.raises(MemoryError):
            index.upsert(X[299:], IDS[299:])
        assert (len(index), index.learned) == (299, False)
        for a, b in zip(index.search(Q, 9), before, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_it_learns_once_more_where_it_was_interrupted(self, monkeypatch):
        index = GrowingIndex(small(), learn_at=300)
        index.upsert(X[:299], IDS[:299])
        monkeypatch.setattr(annvq.FlatIndex, "search", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            index.upsert(X[299:], IDS[299:])
        monkeypatch.undo()
        assert (len(index), index.learned) == (299, False)
        index.upsert(X[299:], IDS[299:])
        assert (len(index), index.learned) == (400, True)

    def test_searches_go_on_while_it_learns(self):
        index, stop, wrong = GrowingIndex(small(), learn_at=300), threading.Event(), []
        index.upsert(X[:250], IDS[:250])

        def ask():
            while not stop.is_set():
                found = index.search(X[:1], 250)[1][0]
                if (found < 0).any() or len(set(found.tolist())) < 250:
                    wrong.append(found)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for i in range(250, 400, 25):
                index.upsert(X[i : i + 25], IDS[i : i + 25])
        finally:
            stop.set()
            thread.join()
        assert index.learned
        assert wrong == []


class TestFiles:
    @pytest.mark.parametrize("state", ["empty", "exact", "given", "learned"])
    def test_saved_and_loaded(self, tmp_path, state):
        index = GrowingIndex(None if state in ("empty", "exact") else small(), learn_at=300)
        n = {"empty": 0, "exact": 200, "given": 200, "learned": 400}[state]
        if n:
            index.upsert(X[:n], IDS[:n])
        index.save(tmp_path / "x")
        again = GrowingIndex.load(tmp_path / "x")
        assert (len(again), again.learned, again.metric) == (n, state == "learned", "cosine")
        assert again.index is None if state in ("empty", "exact") else again.index.kind == "flat"
        for a, b in zip(again.search(Q, 9) if n else (), index.search(Q, 9) if n else (), strict=True):
            np.testing.assert_array_equal(a, b)
        again.upsert(X, IDS)  # it goes on as it would have
        assert (len(again), again.learned) == (400, True)
        if state == "learned":
            assert len(annvq.load_index(tmp_path / "x", mmap=True)) == 400

    def test_damage(self, tmp_path):
        index = GrowingIndex()
        index.upsert(X, IDS)
        index.save(tmp_path / "x")
        whole = (tmp_path / "x").read_bytes()
        for damaged in (whole[:-1], whole[:100], b"", whole[:-9] + b"\0" * 9):
            (tmp_path / "x").write_bytes(damaged)
            with pytest.raises(FormatError):
                GrowingIndex.load(tmp_path / "x")
        annvq.ProductVQ(6, 3, nbits=4).fit(X).save(tmp_path / "x")
        with pytest.raises(FormatError, match=r"holds 'annvq.quantizer'"):
            GrowingIndex.load(tmp_path / "x")
        with pytest.raises(FileNotFoundError):
            GrowingIndex.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"index": 3}, TypeError, "index must be an annvq index that has upsert, or None, got int"),
        ({"metric": "l1"}, ValueError, "metric must be one of"),
        ({"learn_at": 100}, ValueError, "learn_at must be at least 256, got 100"),
        ({"index": "l2", "metric": "ip"}, ValueError, "metric must be 'l2', as index has, got 'ip'"),
        ({"index": "l2", "learn_at": 15}, ValueError, "learn_at must be at least 16, got 15"),
    ],
)
def test_bad_arguments(arguments, error, message):
    if arguments.get("index") == "l2":
        arguments = {**arguments, "index": small("l2")}
    with pytest.raises(error, match=message):
        GrowingIndex(**arguments)


def test_an_index_with_vectors_is_refused():
    with pytest.raises(ValueError, match="index must be empty, got one of 400 vectors"):
        GrowingIndex(small().fit(X).add(X))


def test_first_vectors_of_two_threads_are_of_one_dimension(monkeypatch):
    index = GrowingIndex()
    real = growing.to_numpy

    def overtaken(x, *about):
        rows = real(x, *about)
        monkeypatch.undo()
        index.upsert(X[:3, :4], [1, 2, 3])  # as another thread would
        return rows

    monkeypatch.setattr(growing, "to_numpy", overtaken)
    with pytest.raises(ValueError, match=r"must be float32 of shape \(n, 4\)"):
        index.upsert(X[:3], [4, 5, 6])
    assert (len(index), index.dim) == (3, 4)


@pytest.mark.parametrize("learned", [False, True])
def test_bad_vectors(learned):
    index = GrowingIndex(small().fit(X) if learned else None)
    index.upsert(X, IDS)
    zero = np.where(np.arange(3)[:, None] == 2, 0, X[:3])
    for x, ids, message in (
        (zero, [1, 2, 3], "zero vectors under cosine; row 2 is zero"),
        (X[:3] * np.nan, [1, 2, 3], "row 0 has NaN"),
        (X[:3, :5], [1, 2, 3], r"must be float32 of shape \(n, 6\)"),
        (X[:3], [1, 2], r"ids must be int64 of shape \(3,\)"),
        (X[:3], [1, 2, 2], "ids must differ from one another"),
        (X[:3], [1, 2, -2], "ids must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            index.upsert(x, ids)
    with pytest.raises(ValueError, match="queries must be float32"):
        index.search(Q[:, :3], 2)
    assert len(index) == 400
