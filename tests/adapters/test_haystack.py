"""The Haystack store: Haystack's own mixins, before and after an index has learned, and the retriever in a pipeline."""

import asyncio
import warnings

import numpy as np
import pytest

import annvq

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    adapter = pytest.importorskip("annvq.adapters.haystack", exc_type=ImportError)
    standard = pytest.importorskip("haystack.testing.document_store")
    asynchronous = pytest.importorskip("haystack.testing.document_store_async")

from dataclasses import replace

from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy


class Standard(
    standard.DocumentStoreBaseExtendedTests,
    standard.CountDocumentsByFilterTest,
    asynchronous.CountDocumentsAsyncTest,
    asynchronous.WriteDocumentsAsyncTest,
    asynchronous.DeleteDocumentsAsyncTest,
):
    """Haystack's tests; documents are compared without embeddings, as they come back without."""

    @staticmethod
    def assert_documents_are_equal(received, expected):
        assert received == [replace(document, embedding=None) for document in expected]

    def test_write_documents(self, document_store):
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(content="another"), document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])

    async def test_write_documents_async(self, document_store):
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])
        assert await document_store.filter_documents_async() == [document]


class TestBeginning(Standard):
    @pytest.fixture
    def document_store(self):
        return adapter.AnnvqDocumentStore()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The path of an empty index that has learned."""
    x = np.random.default_rng(0).normal(size=(300, 768)).astype(np.float32)
    path = tmp_path_factory.mktemp("indexes") / "empty.annvq"
    annvq.IVFIndex(annvq.ProductVQ(768, 8, nbits=4), nlist=4, metric="cosine").fit(x).save(path)
    return str(path)


class TestLearned(Standard):
    @pytest.fixture
    def document_store(self, fitted):
        store = adapter.AnnvqDocumentStore(index=fitted)
        assert store.collection.vectors.learned
        return store


X = np.random.default_rng(1).normal(size=(400, 8))
FINNISH = {"field": "meta.lang", "operator": "==", "value": "fi"}


def documents():
    return [
        Document(id=str(i), content=f"text {i}", meta={"lang": ["en", "fi"][i % 2]}, embedding=x.tolist())
        for i, x in enumerate(X)
    ]


@pytest.fixture(params=["exact", "learned"])
def store(request):
    made = adapter.AnnvqDocumentStore(learn_at=10_000 if request.param == "exact" else 300)
    assert made.write_documents([*documents(), Document(id="bare", content="without embedding")]) == 401
    assert made.collection.vectors.learned == (request.param == "learned")
    return made


@pytest.mark.parametrize("filters", [None, FINNISH])
def test_retrieval(store, filters, require_nearest):
    q = np.random.default_rng(2).normal(size=8)
    cosines = X @ q / np.linalg.norm(X, axis=1) / np.linalg.norm(q)
    cosines[np.arange(400) % 2 == 0] = -2 if filters else cosines[np.arange(400) % 2 == 0]
    found = store.embedding_retrieval(q.tolist(), filters=filters, top_k=5)
    scores, learned = [document.score for document in found], store.collection.vectors.learned
    require_nearest([int(document.id) for document in found], scores, cosines, learned)
    assert len(found) == 5
    assert all(document.embedding is None for document in found)
    again = asyncio.run(store.embedding_retrieval_async(q.tolist(), filters=filters, top_k=5, return_embedding=True))
    assert [replace(document, embedding=None) for document in again] == found
    for document in again:
        x = X[int(document.id)]
        held = np.array(document.embedding)
        assert held @ x / np.linalg.norm(held) / np.linalg.norm(x) > 0.99


def test_a_pipeline_is_written_and_read(store, tmp_path):
    with pytest.raises(ValueError, match="path must be given"):
        store.save_to_disk()
    store.save_to_disk(tmp_path / "saved")
    kept = adapter.AnnvqDocumentStore(path=str(tmp_path / "saved"))
    pipeline = Pipeline()
    pipeline.add_component("retriever", adapter.AnnvqEmbeddingRetriever(kept, filters=FINNISH, top_k=3))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["annvq.adapters.haystack"])
    q = X[7].tolist()
    results = [p.run({"retriever": {"query_embedding": q}})["retriever"]["documents"] for p in (pipeline, again)]
    assert results[0] == results[1] == store.embedding_retrieval(q, filters=FINNISH, top_k=3)
    assert results[0][0].id == "7"
    run = {"retriever": {"query_embedding": q, "filters": {}, "top_k": 2}}
    assert len(asyncio.run(again.run_async(run))["retriever"]["documents"]) == 2
    with pytest.raises(TypeError, match="document_store must be an AnnvqDocumentStore, got dict"):
        adapter.AnnvqEmbeddingRetriever({})
    with pytest.raises(ValueError, match=r"top_k must be .* got 0"):
        adapter.AnnvqEmbeddingRetriever(kept, top_k=0)
    with pytest.raises(ValueError, match=r"top_k must be .* got -1"):
        kept.embedding_retrieval(q, top_k=-1)


def test_embeddings_come_and_go(store):
    assert store.write_documents([Document(id="7", content="text 7")], policy=DuplicatePolicy.OVERWRITE) == 1
    assert "7" not in [document.id for document in store.embedding_retrieval(X[7].tolist(), top_k=400)]
    more = Document(id="bare", content="now with one", embedding=X[7].tolist())
    store.write_documents([more], policy=DuplicatePolicy.OVERWRITE)
    assert store.embedding_retrieval(X[7].tolist(), top_k=1)[0].id == "bare"
    assert (store.count_documents(), len(store.collection.vectors)) == (401, 400)
