"""Documents by key with vectors: what was put is what is found, and saved folders are whole at any moment."""

import json
import multiprocessing
import threading

import numpy as np
import pytest

import annvq
from annvq.adapters import collection as module
from annvq.adapters.collection import Collection
from annvq.errors import FormatError

X = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
KEYS = [f"key {i}" for i in range(300)]
DOCUMENTS = [{"n": i, "tags": ["a", {"b": None}], "text": "ä\n€\ud800"} for i in range(300)]


@pytest.fixture(params=["exact", "learned"])
def held(request):
    index = annvq.FlatIndex(annvq.ProductVQ(6, 3, nbits=4), metric="cosine")
    made = Collection(index, learn_at=None if request.param == "exact" else 200)
    made.put(KEYS, DOCUMENTS, X)
    made.put(["bare"], [{"n": -1}], [None])
    return made


def state(held):
    return list(held.items()), [[tuple(found) for found in held.search(q, 20)] for q in X[:5]]


def test_put_found_and_forgotten(held):
    assert (len(held), len(held.vectors)) == (301, 300)
    assert held.get("key 7") == DOCUMENTS[7]
    assert held.get("absent") is None
    assert ("bare" in held, held.has_vector("bare"), held.has_vector("key 7")) == (True, False, True)
    found = held.search(X[7], 5, lambda key, document: document["n"] % 2 == 1)
    assert found[0].key == "key 7"
    assert all(f.document == DOCUMENTS[int(f.key.split()[1])] and f.document["n"] % 2 for f in found)
    assert [f.similarity for f in found] == sorted((f.similarity for f in found), reverse=True)
    assert held.search(X[7], 5, lambda key, document: False) == []

    held.put(["key 7", "new"], [{"n": 7.5}, {"n": 300}], [-X[7], X[7]])
    assert held.search(X[7], 1)[0].key == "new"
    assert "key 7" not in [f.key for f in held.search(X[7], 100)]
    held.put(["new", "bare"], [{}, {}], [None, X[9]])
    assert "new" not in [f.key for f in held.search(X[7], 302)]
    assert (len(held), len(held.vectors)) == (302, 301)
    held.update("key 8", {"changed": True})
    assert held.search(X[8], 1)[0].document == {"changed": True}
    assert held.delete(["key 8", "new", "absent", "key 8"]) == 2
    assert (len(held), len(held.vectors)) == (300, 300)
    held.clear()
    assert (len(held), held.search(X[7], 3)) == (0, [])
    held.put(["a"], [{}], X[:1])
    assert held.search(X[7], 3)[0].key == "a"


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)])
def test_how_many_must_be_at_least_one(held, k, error):
    for collection in (held, Collection()):
        with pytest.raises(error, match=rf"k must be (at least 1|an integer), got {k}"):
            collection.search(X[7], k)


def test_documents_are_copies():
    held, document = Collection(), {"list": [1, (2, 3)]}
    held.put(["a"], [document], X[:1])
    document["list"].append(4)
    assert held.get("a") == {"list": [1, [2, 3]]}


def test_vectors_of(held):
    expected = held.vectors.reconstruct([3, 1])
    np.testing.assert_array_equal(held.vectors_of(["key 3", "key 1"]), expected)
    with pytest.raises(ValueError, match=r"keys must be of documents with a vector, got \['bare', 'absent'\]"):
        held.vectors_of(["key 1", "bare", "absent"])


@pytest.mark.parametrize(
    ("keys", "documents", "vectors", "error", "message"),
    [
        (["a"], [{}, {}], X[:2], ValueError, "equally many, got 1, 2 and 2"),
        ("ab", [{}, {}], X[:2], TypeError, "keys must be a list of str, got 'ab'"),
        (["a", 3], [{}, {}], X[:2], TypeError, "keys must be str, got int"),
        (["a", "a"], [{}, {}], X[:2], ValueError, "keys must differ, got 'a' twice"),
        (["a", "b"], [{}, {"x": object()}], X[:2], TypeError, "document 'b' must hold only what JSON holds"),
        (["a", "b"], [{}, {}], [X[0], X[0, :5]], ValueError, "vectors must be numbers, equally many in each"),
        (["a", "b"], [{}, {}], [X[0], "text"], ValueError, "vectors must be numbers"),
        (["a", "b"], [{}, {}], [X[0], 0 * X[0]], ValueError, "row 1 is zero"),
        (["a"], [{}], [X[0, :5]], ValueError, r"must be float32 of shape \(n, 6\)"),
    ],
)
def test_what_cannot_be_kept(held, keys, documents, vectors, error, message):
    before = state(held)
    with pytest.raises(error, match=message):
        held.put(keys, documents, vectors)
    assert state(held) == before


class TestFolders:
    def test_saved_and_loaded(self, held, tmp_path):
        held.save(tmp_path / "a" / "b")
        loaded = Collection.load(tmp_path / "a" / "b")
        assert state(loaded) == state(held)
        loaded.put(["more"], [{}], X[:1])
        loaded.delete(["key 3"])
        loaded.save(tmp_path / "a" / "b")
        assert state(Collection.load(tmp_path / "a" / "b", mmap=loaded.vectors.learned)) == state(loaded)
        assert len(list((tmp_path / "a" / "b").iterdir())) == 3

    @pytest.mark.parametrize("fails", ["replacing", "write_text", "vectors"])
    def test_a_save_that_fails_leaves_the_old_state(self, held, tmp_path, monkeypatch, fails):
        held.save(tmp_path)
        before = state(held)

        def fail(*a, **k):
            raise OSError("disk full")

        if fails == "vectors":
            monkeypatch.setattr(type(held.vectors), "save", fail)
        else:
            monkeypatch.setattr(module, fails, fail)
        held.delete(["key 1"])
        with pytest.raises(OSError, match="disk full"):
            held.save(tmp_path)
        assert state(Collection.load(tmp_path)) == before
        monkeypatch.undo()
        held.save(tmp_path)
        assert state(Collection.load(tmp_path)) == state(held)

    def test_readers_see_one_state_or_another(self, tmp_path):
        held, stop, wrong = Collection(), threading.Event(), []
        held.put(["a"], [{"n": 0}], X[:1])
        held.save(tmp_path)

        def read():
            while not stop.is_set():
                loaded = Collection.load(tmp_path)
                if loaded.get("a")["n"] + 1 != len(loaded.vectors):
                    wrong.append(loaded.get("a"))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for n in range(1, 30):
                held.put(["a", f"b{n}"], [{"n": n}, {}], X[n - 1 : n + 1])
                held.save(tmp_path)
        finally:
            stop.set()
            thread.join()
        assert wrong == []

    def test_threads_save_to_one_folder(self, tmp_path):
        held, errors = Collection(), []
        held.put(["a"], [{}], X[:1])

        def save(name):
            try:
                for i in range(15):
                    held.put([f"{name} {i}"], [{}], X[i : i + 1])
                    held.save(tmp_path)
                    Collection.load(tmp_path)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=save, args=(name,)) for name in "bc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert state(Collection.load(tmp_path)) == state(held)

    def test_damage(self, held, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no collection: there is no collection.json"):
            Collection.load(tmp_path / "absent")
        held.save(tmp_path)
        for path in sorted(tmp_path.iterdir()):
            whole = path.read_bytes()
            for damaged in (
                whole[:-2],
                b"",
                b"\xff" * 40,
                whole.replace(b"key 3", b"key 4"),
                whole.replace(b":", b";"),
            ):
                if damaged == whole:
                    continue
                path.write_bytes(damaged)
                with pytest.raises(FormatError):
                    Collection.load(tmp_path)
            path.write_bytes(whole)
        manifest = json.loads((tmp_path / "collection.json").read_text())
        manifest["files"]["documents"] = "../elsewhere"
        (tmp_path / "collection.json").write_text(json.dumps(manifest))
        with pytest.raises(FormatError, match=r"is no annvq.collection of version 1"):
            Collection.load(tmp_path)


def test_threads(held):
    """Puts, deletes and searches at once leave what doing them in turn leaves."""
    errors = []

    def change(name):
        try:
            for i in range(40):
                held.put([f"{name} {i}"], [{"by": name}], X[i : i + 1])
                held.search(X[i], 5, lambda key, document: "by" in document)
                if i % 2:
                    held.delete([f"{name} {i}"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(key for key, document in held.items() if "by" in document) == sorted(
        f"{name} {i}" for name in "abcd" for i in range(0, 40, 2)
    )
    assert len(held.vectors) == 300 + 80


def _search_in_child(held, queue):
    queue.put([found.key for found in held.search(X[3], 4)])


def test_forks(held):
    stop = threading.Event()

    def change():
        while not stop.is_set():
            held.put(["x"], [{}], X[:1])
            held.delete(["x"])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(5):
            queue = context.Queue()
            child = context.Process(target=_search_in_child, args=(held, queue))
            child.start()
            assert queue.get(timeout=60)[0] == "key 3"
            child.join(60)
            assert child.exitcode == 0
    finally:
        stop.set()
        thread.join()
