"""The txtai backend, by the class path that a configuration names."""

import warnings

import numpy as np
import pytest

import annvq

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    adapter = pytest.importorskip("annvq.adapters.txtai", exc_type=ImportError)
    from txtai.ann import ANNFactory

BACKEND = "annvq.adapters.txtai.AnnvqANN"
X = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture(params=["exact", "learned", "given"])
def ann(request, tmp_path):
    settings = {"exact": {}, "learned": {"learnat": 300}, "given": {"index": str(tmp_path / "empty.annvq")}}
    annvq.FlatIndex(annvq.ProductVQ(8, 8, nbits=6), metric="cosine").fit(X).save(tmp_path / "empty.annvq")
    made = ANNFactory.create({"backend": BACKEND, "dimensions": 8, BACKEND: settings[request.param]})
    made.index(X[:350])
    assert isinstance(made, adapter.AnnvqANN)
    assert made.backend.learned == (request.param != "exact")
    return made


def test_searched_grown_and_shrunk(ann, tmp_path, require_nearest):
    ann.append(X[350:])
    assert (ann.count(), ann.config["offset"]) == (400, 400)
    for query, found in zip(X[360:365], ann.search(X[360:365], 6), strict=True):
        cosines = X @ query
        assert found[0][0] == int(np.argmax(cosines))
        require_nearest([i for i, _ in found], [score for _, score in found], cosines, ann.backend.learned)
        assert len(found) == 6
    ann.delete([360, 361, 4000])
    assert ann.count() == 398
    assert all(i not in (360, 361) for i, _ in ann.search(X[360:361], 400)[0])
    ann.save(str(tmp_path / "saved"))
    again = ANNFactory.create(dict(ann.config))
    again.load(str(tmp_path / "saved"))
    assert again.search(X[:5], 7) == ann.search(X[:5], 7)
    again.append(X[:3])
    assert [i for i, _ in again.search(X[:1], 2)[0]] == [0, 400]


def test_fewer_vectors_than_asked_for():
    ann = ANNFactory.create({"backend": BACKEND, "dimensions": 8})
    ann.index(X[:3])
    assert sorted(i for i, _ in ann.search(X[:1], 10)[0]) == [0, 1, 2]
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        ann.search(X[:1], 0)
    ann.delete([0, 1, 2])
    assert ann.search(X[:2], 10) == [[], []]


WORDS = """
import numpy as np

known, rng = {}, np.random.default_rng(0)

def vectors(texts):
    return np.stack([sum(known.setdefault(word, rng.normal(size=32)) for word in str(text).split()) for text in texts])
"""


def test_under_embeddings(tmp_path, monkeypatch):
    """Texts, SQL and files of txtai's own, over the backend."""
    (tmp_path / "bag_of_words.py").write_text(WORDS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ALLOW_RESOLVE_TRANSFORM", "True")
    txtai = pytest.importorskip("txtai")
    made = txtai.Embeddings(method="external", transform="bag_of_words.vectors", backend=BACKEND, content=True)
    made.index([(i, {"text": f"word{i} common{i % 3}", "part": i % 3}, None) for i in range(200)])
    assert isinstance(made.ann, adapter.AnnvqANN)
    assert made.search("word7 common1", 1)[0]["id"] == "7"
    made.upsert([(200, {"text": "something new", "part": 0}, None)])
    made.delete([7])
    made.save(str(tmp_path / "saved"))
    loaded = txtai.Embeddings()
    loaded.load(str(tmp_path / "saved"))
    for embeddings in (made, loaded):
        assert embeddings.count() == 200
        assert embeddings.search("something new", 1)[0]["text"] == "something new"
        assert "7" not in [found["id"] for found in embeddings.search("word7 common1", 50)]
        asked = "select id, part from txtai where similar('word9 common0') and part = 0 limit 1"
        assert embeddings.search(asked) == [{"id": "9", "part": 0}]
        embeddings.close()


def test_settings_that_are_none():
    with pytest.raises(ValueError, match=r"settings of .*AnnvqANN must be index or learnat, got \['learn_at'\]"):
        ANNFactory.create({"backend": BACKEND, "dimensions": 4, BACKEND: {"learn_at": 500}}).index(np.eye(4))
