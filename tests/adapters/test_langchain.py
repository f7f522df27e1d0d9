"""The LangChain store: LangChain's own suite for stores, before and after an index has learned, and filters."""

import asyncio

import numpy as np
import pytest

import annvq

langchain = pytest.importorskip("annvq.adapters.langchain", exc_type=ImportError)
standard = pytest.importorskip("langchain_tests.integration_tests.vectorstores")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402

EMBEDDING = DeterministicFakeEmbedding(size=6)


@pytest.fixture(scope="module")
def fitted():
    """A function that gives an empty index that has learned."""
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    made = annvq.RerankIndex(annvq.FlatIndex(annvq.ProductVQ(6, 3, nbits=4), metric="cosine"), "float16").fit(x)
    return lambda: annvq.load_index(made.to_bytes())


class TestBeginning(standard.VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return langchain.AnnvqVectorStore(self.get_embeddings())


class TestLearned(standard.VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, fitted):
        return langchain.AnnvqVectorStore(self.get_embeddings(), index=fitted())


TEXTS = [f"text {i}" for i in range(400)]
ABOUT = [{"lang": ["en", "fi"][i % 2], "year": 2000 + i % 20} for i in range(400)]


@pytest.fixture(scope="module", params=["exact", "learned"])
def store(request):
    settings = {} if request.param == "exact" else {"learn_at": 300}
    made = langchain.AnnvqVectorStore.from_texts(TEXTS, EMBEDDING, ABOUT, ids=[str(i) for i in range(400)], **settings)
    assert made.collection.vectors.learned == (request.param == "learned")
    return made


@pytest.mark.parametrize(
    ("filter", "allowed"),
    [
        (None, [True] * 400),
        ({"lang": "fi"}, [a["lang"] == "fi" for a in ABOUT]),
        (
            {"lang": "en", "year": {"$gte": 2005, "$lt": 2015}},
            [a["lang"] == "en" and 2005 <= a["year"] < 2015 for a in ABOUT],
        ),
        ({"year": {"$in": [2001, 2002]}}, [a["year"] in (2001, 2002) for a in ABOUT]),
        ({"year": {"$nin": [2001, 2002], "$ne": 2003}}, [a["year"] not in (2001, 2002, 2003) for a in ABOUT]),
        (lambda document: document.id.endswith("7"), [i % 10 == 7 for i in range(400)]),
    ],
)
def test_the_nearest_that_a_filter_allows(store, filter, allowed, require_nearest):
    x, q = np.array(EMBEDDING.embed_documents(TEXTS)), np.array(EMBEDDING.embed_query("a question"))
    cosines = x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q)
    cosines[~np.array(allowed)] = -2
    found = store.similarity_search_with_score("a question", 7, filter=filter)
    learned = store.collection.vectors.learned
    require_nearest([int(document.id) for document, _ in found], [score for _, score in found], cosines, learned)
    assert len(found) == 7
    assert all(document.metadata == ABOUT[int(document.id)] for document, _ in found)
    assert asyncio.run(store.asimilarity_search("a question", k=7, filter=filter)) == [d for d, _ in found]


def test_no_document_allowed(store):
    assert store.similarity_search("a question", filter={"lang": "sv"}) == []
    assert store.similarity_search("a question", filter={"absent": {"$gt": 3}}) == []
    with pytest.raises(ValueError, match=r"filter of 'year' must use \$eq, .*, got '\$near'"):
        store.similarity_search("a question", filter={"year": {"$near": 2000}})


def test_relevance_and_diversity(store):
    scores = [score for _, score in store.similarity_search_with_relevance_scores("a question", k=400)]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0
    assert max(scores) <= 1
    near, diverse = (
        store.similarity_search("a question", 5),
        store.max_marginal_relevance_search("a question", 5, 60, 0.1),
    )
    assert near[0] == diverse[0]
    assert len({document.id for document in diverse} - {document.id for document in near}) >= 2
    assert store.as_retriever(search_type="mmr", search_kwargs={"k": 2}).invoke("a question")[0] == near[0]


def test_how_many_must_be_at_least_one(store):
    for search in (store.similarity_search, store.similarity_search_with_score, store.max_marginal_relevance_search):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            search("a question", k=0)
    with pytest.raises(ValueError, match="fetch_k must be at least 1, got -1"):
        store.max_marginal_relevance_search("a question", fetch_k=-1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        store.as_retriever(search_kwargs={"k": 0}).invoke("a question")


def test_saved_and_loaded(store, tmp_path):
    store.save(tmp_path / "saved")
    loaded = langchain.AnnvqVectorStore.load(tmp_path / "saved", EMBEDDING)
    assert loaded.similarity_search_with_score("x", 9) == store.similarity_search_with_score("x", 9)
    assert loaded.add_texts(["text 3"], [{"lang": "sv"}], ids=["3"]) == ["3"]
    assert loaded.get_by_ids(["3", "4", "absent"]) == [
        Document(id="3", page_content="text 3", metadata={"lang": "sv"}),
        Document(id="4", page_content="text 4", metadata=ABOUT[4]),
    ]
    assert loaded.delete() is True
    assert loaded.similarity_search("x") == []


def test_what_cannot_be_kept():
    store = langchain.AnnvqVectorStore(EMBEDDING)
    with pytest.raises(TypeError, match="document 'a' must hold only what JSON holds"):
        store.add_texts(["x"], [{"set": {1}}], ids=["a"])
    with pytest.raises(ValueError, match="one for each of the 2 texts, got 1 and 2"):
        store.add_texts(["x", "y"], [{}])
    with pytest.raises(TypeError, match="texts must be a list of str, got 'abc'"):
        store.add_texts("abc")
    with pytest.raises(TypeError, match="texts must be a list of str"):
        asyncio.run(store.aadd_texts(["a", 5]))
    with pytest.raises(TypeError, match=r"metadatas must be mappings, got \['x'\]"):
        store.add_texts(["a"], [["x"]])
    assert len(store.collection) == 0
    assert store.get_by_ids(store.add_texts(["a"], [None]))[0].metadata == {}
    assert store.add_texts([]) == []
    assert store.add_texts(["x", "y"], ids=["a", "a"]) == ["a", "a"]
    assert [document.page_content for document in store.get_by_ids(["a"])] == ["y"]


@pytest.mark.parametrize(
    ("filter", "error", "message"),
    [
        (["n"], TypeError, r"filter must be a function of a document, or a mapping, got \['n'\]"),
        ({"$and": [{"n": 1}]}, ValueError, "filter must name metadata, .* got '\\$and'"),
        ({"n": {"$near": 1}}, ValueError, "filter of 'n' must use .* got '\\$near'"),
        ({"n": {"$in": "abc"}}, TypeError, "filter of 'n' must have a list after \\$in, got 'abc'"),
        ({"n": {"$gt": "1"}}, TypeError, "filter of 'n' must ask what its values can be compared with"),
    ],
)
def test_filters_that_are_none(filter, error, message):
    store = langchain.AnnvqVectorStore.from_texts(["x"], EMBEDDING, [{"n": 1}])
    with pytest.raises(error, match=message):
        store.similarity_search("x", filter=filter)


def test_one_str_is_no_list_of_ids():
    store = langchain.AnnvqVectorStore.from_texts(["x", "y"], EMBEDDING, ids=["1", "2"])
    with pytest.raises(TypeError, match="keys must be a list of str, got '12'"):
        store.delete("12")
    assert len(store.collection) == 2
